"""The real clamd and rspamd, started offline in a temporary folder, and the harmless strings that they take for a virus and for spam.

`needs` skips a test where they are not installed; Debian has them as clamav-daemon and rspamd.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dns_server import DnsServer
from needs import needs

# in two halves, so that no scanner takes this file for what it looks for
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-" + b"ANTI-UBE-TEST-EMAIL*C.34X"
EICAR_NAME = "Eicar-Test-Signature"
RSPAMD_LIMIT = 8 * 1024 * 1024  # octets, its max_message here: many parts in the packaged 50 MB take it minutes and 20 GB of memory
STREAM_LIMIT = 1024 * 1024  # octets, clamd's StreamMaxLength here

_CLAMD = """
Foreground yes
LocalSocket {folder}/clamd.sock
TCPSocket {port}
TCPAddr 127.0.0.1
DatabaseDirectory {folder}/db
TemporaryDirectory {folder}
StreamMaxLength {limit}
ConcurrentDatabaseReload no
"""
_RSPAMD = """
.include "/etc/rspamd/common.conf"
options {{
  .include(priority=1) "{folder}/options.inc"
  .include "/etc/rspamd/options.inc"
}}
logging {{ type = "console"; level = "info"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
"""
_RSPAMD_OPTIONS = """
pidfile = "{folder}/rspamd.pid";
control_socket = "{folder}/control.sock mode=0600";
enable_test_patterns = true;
max_message = {limit};
filters = "chartable,dkim,regexp";
url_tld = "{folder}/tld.dat";
dns {{ nameserver = "{dns}"; timeout = 0.2s; retransmits = 1; }}
"""


class ClamdAddresses(NamedTuple):
    """Where the clamd listens."""

    port: int
    path: Path


@contextlib.contextmanager
def running_clamd() -> Iterator[ClamdAddresses]:
    """clamd with one signature, that of EICAR, found in mail and archives too."""
    program = needs("clamd", why="Debian's clamav-daemon")
    with _folder() as folder:
        port = free_port()
        (folder / "db").mkdir()
        (folder / "db" / "local.ndb").write_text(f"{EICAR_NAME}:0:*:{EICAR.hex()}\n")
        (folder / "clamd.conf").write_text(_CLAMD.format(folder=folder, port=port, limit=STREAM_LIMIT))
        with _process([program, "--config-file", str(folder / "clamd.conf")], until="Self checking every"):
            yield ClamdAddresses(port, folder / "clamd.sock")


@contextlib.contextmanager
def running_rspamd() -> Iterator[int]:
    """rspamd with the packaged rules and a DNS server that knows nothing; the port of its normal worker."""
    program = needs("rspamd", why="Debian's rspamd")
    with _folder() as folder, DnsServer() as dns:
        port = free_port()
        (folder / "tld.dat").write_text("com\nexample\nnet\norg\n")  # the packaged list takes 15 s to compile
        (folder / "rspamd.conf").write_text(_RSPAMD.format(folder=folder, port=port))
        (folder / "options.inc").write_text(_RSPAMD_OPTIONS.format(folder=folder, dns=dns.setting, limit=RSPAMD_LIMIT))
        user = []
        if os.geteuid() == 0:
            user = ["-u", "_rspamd", "-g", "_rspamd"]
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "_rspamd", "_rspamd")
        folders = [f"--var={name}={folder}" for name in ("DBDIR", "RUNDIR", "LOGDIR")]
        with _process([program, "-f", *user, "-c", str(folder / "rspamd.conf"), *folders], until="starting normal process"):
            yield port


def free_port() -> int:
    """A port of loopback that nobody has just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder that other users may enter, as pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="inbound-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def _process(command: list[str], *, until: str) -> Iterator[None]:
    """A process that has said `until`."""
    lines: list[str] = []
    said = threading.Event()

    def listen() -> None:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if until in line:
                said.set()
        said.set()

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace",
                          start_new_session=True) as process:
        reader = threading.Thread(target=listen, daemon=True)
        reader.start()
        try:
            assert said.wait(60), "".join(lines[-20:])
            assert process.poll() is None, "".join(lines[-20:])
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            reader.join(10)
