"""What the benchmarks measure: `inbound serve` and Debian's Postfix as MXs on loopback, and smtp-source, which sends to both.

CPU and memory are those of a whole process tree, as /proc tells them: Postfix is some twenty processes, and the mail that it
discards is work as our verdicts are. Both sync a message before their 250.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
DOMAIN = "bench.test"
RECIPIENT = f"u@{DOMAIN}"
RULES = f"""
Identities: [{DOMAIN}]
RuleSets:
  default:
    - Name: stop
      Recipients: [{DOMAIN}]
      ScanEnabled: true
      Actions:
        - StopAction: {{Scope: RuleSet}}
"""
SERVICES = """\
127.0.0.1:{port} inet n - n - 120 smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""
PARAMETERS = {
    "compatibility_level": "3.6", "command_directory": "/usr/sbin", "daemon_directory": "/usr/lib/postfix/sbin", "mail_owner": "postfix",
    "setgid_group": "postdrop", "myhostname": "mx.bench.test", "mydestination": "", "inet_interfaces": "127.0.0.1", "inet_protocols": "ipv4",
    "relay_domains": DOMAIN, "relay_transport": "discard:", "default_transport": "discard:", "message_size_limit": "60000000",
    "mailbox_size_limit": "0", "in_flow_delay": "0s", "default_process_limit": "120", "smtpd_client_connection_count_limit": "0",
    "alias_maps": "", "alias_database": "",
}  # in_flow_delay would have it wait a second for its own queue


@dataclass(frozen=True)
class Server:
    """One that runs: the process at the root of its tree, and its port."""

    name: str
    process: subprocess.Popen[bytes]
    port: int

    def cpu(self) -> float:
        """Seconds of CPU so far, those of processes that ended included."""
        return sum(sum(map(int, stat[11:15])) for stat in self._tree()) / TICKS

    def rss(self) -> float:
        """Resident MB."""
        return sum(int(stat[21]) for stat in self._tree()) * PAGE / 2**20

    def settle(self, seconds: float = 20.0) -> float:
        """Wait until it does nothing more, `seconds` at most; its CPU by then."""
        last, end = self.cpu(), time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.25)
            now = self.cpu()
            if now - last < 1.5 / TICKS:
                return now
            last = now
        return last

    def _tree(self) -> list[list[str]]:
        children: dict[int, list[int]] = {}
        stats: dict[int, list[str]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(stat[1]), []).append(int(entry.name))
                stats[int(entry.name)] = stat
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            if pid in stats:
                found.append(stats[pid])
                waiting += children.get(pid, ())
        return found


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def inbound(rules: str = RULES, *, code: str = "", dns: str = "127.0.0.1:9", settings: Mapping[str, str] | None = None,
            folder: Path | None = None) -> Iterator[Server]:
    """`inbound serve`, from the folder `code` if that is given, else as it is installed. `folder` keeps what is written for a next start."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="inbound-bench-", dir="/var/tmp") as made:
        place = folder or Path(made)
        (place / "rules.yaml").write_text(rules)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INBOUND_", "AWS_"))}
        environment = kept | {
            "INBOUND_RULES": str(place / "rules.yaml"), "INBOUND_DATA": str(place / "data"), "INBOUND_LISTEN": f"127.0.0.1:{port}",
            "INBOUND_HTTP_LISTEN": "127.0.0.1:0", "INBOUND_DNS": dns, "INBOUND_HOSTNAME": "mx.bench.test", "AWS_DEFAULT_REGION": "us-east-1",
        } | {f"INBOUND_{name}": value for name, value in (settings or {}).items()} | ({"PYTHONPATH": code} if code else {})
        with (place / "log").open("wb") as out:
            process = subprocess.Popen([sys.executable, "-m", "inbound", "serve"], env=environment, cwd=place, stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT)
        try:
            _await_greeting(port, process)
            yield Server("inbound", process, port)
        finally:
            process.terminate()
            process.wait(60)


@contextlib.contextmanager
def postfix() -> Iterator[Server]:
    """Postfix in a folder of its own: a real queue, synced before 250, and the discard transport."""
    program = shutil.which("postfix", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        raise SystemExit("this needs Debian's postfix, and root to start it: apt-get install postfix")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postfix-bench-", dir="/var/tmp") as made:
        folder = Path(made)
        folder.chmod(0o755)
        for name in ("etc", "spool", "data"):
            (folder / name).mkdir()
        shutil.chown(folder / "data", "postfix")
        log = Path("/var/log") / f"postfix-bench-{os.getpid()}.log"
        parameters = PARAMETERS | {"queue_directory": str(folder / "spool"), "data_directory": str(folder / "data"), "maillog_file": str(log)}
        (folder / "etc/main.cf").write_text("".join(f"{name} = {value}\n" for name, value in parameters.items()))
        (folder / "etc/master.cf").write_text(SERVICES.format(port=port))
        command = [program, "-c", str(folder / "etc")]
        process = subprocess.Popen([*command, "start-fg"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        try:
            _await_greeting(port, process)
            yield Server("Postfix", process, port)
        finally:
            subprocess.run([*command, "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            process.wait(30)
            log.unlink(missing_ok=True)


def send(server: Server, octets: int, count: int, *, many: bool, sessions: int = 20, core: int | None = None) -> float:
    """Have smtp-source send `count` messages of that size, one or many a connection, on that core if one is given; the seconds it took."""
    program = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SystemExit("this needs smtp-source: apt-get install postfix")
    command = [program, "-4", "-s", str(sessions), "-l", str(octets), "-m", str(count), "-f", "a@src.test", "-t", RECIPIENT, "-M", "src.test"]
    started = time.perf_counter()
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    done = subprocess.run([*pinned, *command, *(["-d"] if many else []), f"127.0.0.1:{server.port}"], capture_output=True, timeout=600,
                          check=False)
    if done.returncode:
        raise SystemExit(f"smtp-source: {(done.stdout + done.stderr).decode()[-300:]}")
    return time.perf_counter() - started


def machine() -> str:
    """What the figures were taken on, in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    busy = os.getloadavg()[0]
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}; load at the start {busy:.1f}"


def say(text: str) -> None:
    """A line of the report."""
    print(text, flush=True)  # noqa: T201  # a command prints


def _await_greeting(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            if sock.recv(3) == b"220":
                return
        time.sleep(0.02)
    raise SystemExit(f"no greeting on port {port}; the process {'runs' if process.poll() is None else f'ended with {process.returncode}'}")
