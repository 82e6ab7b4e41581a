"""Keeps the local AWS of `inbound dev`: ministack as a child in its own session, on one loopback port, with its data under one folder."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import importlib.util
import ipaddress
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import IO

import aiohttp

from inbound.operate.dev.credentials import dev_environment
from inbound.operate.dev.wanted import DEFAULT_ACCOUNT, DEFAULT_REGION

CHILD = Path(__file__).with_name("child.py")

_START_LIMIT = 60.0
_STOP_LIMIT = 8.0
_LOCK_LIMIT = 10.0
_POLL = 0.03
_WORDS = 200  # characters of the log that an error quotes
_STATE_LIMIT = 32_000_000


class LocalAwsError(Exception):
    """The local AWS cannot run; the text is one line that says why and what to do."""


class LocalAws:
    """ministack, from `start` to `stop`; it also goes when this process does, however that ends (see child.py)."""

    def __init__(
        self, *, folder: Path, address: str = "127.0.0.1", port: int = 4566, account: str = DEFAULT_ACCOUNT, region: str = DEFAULT_REGION,
    ) -> None:
        """`folder` (made if missing) holds state, objects, temporary files and the log; `port` 0 takes a free one; `account` is the one
        that test credentials stand for, `region` the one of requests that name none.
        """
        self._folder = folder.absolute()
        self._address = address
        self._port = port
        self._account = account
        self._region = region
        self._process: asyncio.subprocess.Process | None = None

    @property
    def endpoint(self) -> str:
        """The URL for AWS clients; after `start` also where the port was 0."""
        return f"http://{self._address}:{self._port}"

    @property
    def log(self) -> Path:
        """What ministack and the functions print, since the last start."""
        return self._folder / "ministack.log"

    async def start(self) -> None:
        """Start it and wait until it answers. Raises LocalAwsError."""
        if importlib.util.find_spec("ministack") is None:
            raise LocalAwsError("the local AWS needs ministack: pip install 'inbound-mx[dev]', or name a running one with --aws URL")
        self._refuse_outside()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.ExitStack() as held:
                lock = held.enter_context(await self._lock())
                listening = held.enter_context(self._bind())
                self._tidy()
                self._process = await self._spawn(listening.fileno(), lock.fileno())
        except OSError as error:
            raise LocalAwsError(f"the local AWS cannot use {self._folder}: {error.strerror or error}") from None
        try:
            await self._answers()
        except BaseException:
            await self.stop()
            raise

    async def ended(self) -> str:
        """Wait until it ends by itself, which it should not; one line that says what its log ends with. To be cancelled before `stop`."""
        assert self._process is not None, "started before"  # noqa: S101  the caller's mistake, not the world's
        await self._process.wait()
        return self._last_words()

    async def use_account(self, account: str) -> None:
        """From now on test credentials stand for this account. Each account has its own buckets, topics and functions."""
        if account != self._account and self._process is not None and self._process.stdin is not None:
            self._account = account
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(f"account {account}\n".encode())
                await self._process.stdin.drain()

    async def stop(self) -> None:
        """Let it finish its requests and write its state, then end it with every function it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _STOP_LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _refuse_outside(self) -> None:
        try:
            is_fine = ipaddress.IPv4Address(self._address).is_loopback
        except ValueError:
            is_fine = False
        if not is_fine:
            raise LocalAwsError(f"--aws {self._address}:{self._port}: the local AWS runs code for whoever reaches it, "
                                "so its address must be of 127.0.0.0/8 (127.0.0.1:4566)")

    async def _lock(self) -> IO[bytes]:
        """The lock on the folder, which the child holds as long as it lives; an earlier one whose parent was killed is about to end."""
        lock = (self._folder / "lock").open("wb")
        deadline = asyncio.get_running_loop().time() + _LOCK_LIMIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    lock.close()
                    raise LocalAwsError(f"another inbound dev uses {self._folder}: choose another folder with --data DIR") from None
                await asyncio.sleep(_POLL)
            else:
                return lock

    def _bind(self) -> socket.socket:
        listening = socket.socket()
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._address, self._port))
            listening.listen(256)
        except OSError as error:
            listening.close()
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
            raise LocalAwsError(f"{self._address}:{self._port} {reason}: choose another port for the local AWS with --aws HOST:PORT, "
                                f"or use what runs there with --aws {self.endpoint}") from None
        self._port = listening.getsockname()[1]
        return listening

    def _tidy(self) -> None:
        """Make the folders; drop what a killed child left, state so large (messages nobody took) that loading it would be felt, and
        queues of another port, which their URLs hold.
        """
        shutil.rmtree(self._folder / "tmp", ignore_errors=True)
        for name in ("state", "s3", "tmp"):
            (self._folder / name).mkdir(exist_ok=True)
        queues = self._folder / "state" / "sqs.json"
        for state in (queues, self._folder / "state" / "sns.json", self._folder / "state" / "cloudwatch_logs.json"):
            if state.exists() and state.stat().st_size > _STATE_LIMIT:
                state.unlink()
        if queues.exists() and f":{self._port}/" not in queues.read_text(encoding="utf-8"):
            queues.unlink()

    async def _spawn(self, listening: int, lock: int) -> asyncio.subprocess.Process:
        arguments = (str(os.getpid()), str(listening), json.dumps(self._environment()))
        with self.log.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-P", str(CHILD), *arguments, stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log,
                pass_fds=(listening, lock), start_new_session=True)

    def _environment(self) -> dict[str, str]:
        """What makes ministack keep to its port and folder. It would open 0.0.0.0:8883 (IoT) and :2222 (SFTP), serve TLS, and stop
        other people's containers if the environment let it.
        """
        return {
            "BIND_HOST": self._address,
            "GATEWAY_PORT": str(self._port),
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "USE_SSL": "0",
            "AUTH": "false",
            "SERVICES": "",
            "DOCKER_HOST": f"unix://{self._folder}/no-docker",
            "LAMBDA_EXECUTOR": "local",
            "MINISTACK_ACCOUNT_ID": self._account,
            "MINISTACK_REGION": self._region,
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self._folder / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._folder / "s3"),
            "TMPDIR": str(self._folder / "tmp"),
            "LOG_LEVEL": "INFO",
            **dev_environment(self.endpoint, self._region),
        }

    async def _answers(self) -> None:
        """It listens already, so one request is enough: it is answered as soon as ministack is up."""
        limit = aiohttp.ClientTimeout(total=_START_LIMIT)
        try:
            async with aiohttp.ClientSession(timeout=limit) as session, session.get(f"{self.endpoint}/_ministack/health") as answer:
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError):
            raise LocalAwsError(self._last_words()) from None

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        last = last if len(last) <= _WORDS else f"{last[:_WORDS]}…"
        return f"the local AWS ended: {last} (its log: {self.log})"
