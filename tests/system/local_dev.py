"""`inbound dev` as a process, and `inbound` commands beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from process import clean_environment


class Dev:
    """A running `inbound dev` and what it printed."""

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._said = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inbound", "dev", *arguments], cwd=folder, env=clean_environment() | (environment or {}), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self._said.notify_all()

    def until(self, text: str, seconds: float = 60, after: int = 0) -> str:
        """The first line, past the first `after`, that holds `text`; waits for it."""
        def found() -> str | None:
            return next((line for line in self.lines[after:] if text in line), None)

        with self._said:
            self._said.wait_for(lambda: found() is not None or not self._reader.is_alive(), seconds)
        line = found()
        assert line is not None, "\n".join(self.lines)
        return line

    def ready(self) -> dict[str, str]:
        self.until("Ctrl-C stops it.")
        about: dict[str, str] = json.loads((self.folder / "var" / "dev.json").read_text())
        return about

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        status = self.process.wait(40)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One `inbound` command in that folder."""
    return subprocess.run([sys.executable, "-m", "inbound", *arguments], cwd=folder, env=clean_environment(), capture_output=True, text=True,
                          timeout=90, check=False)


ANY_PORTS = ("--smtp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--aws", "127.0.0.1:0")


def client(about: dict[str, str], service: str) -> Any:
    """boto3 as a user writes it, at the endpoint and with the keys of the first screen."""
    import boto3

    return boto3.client(service, endpoint_url=about["aws"], region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
