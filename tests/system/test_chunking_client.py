"""CHUNKING (RFC 3030) with a client that is not ours: Exim sends by BDAT, and what is stored is what it sent."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import missing, needs
from process import Serve
from sink import Sink

RULES = "RuleSets: {default: [{Name: all, Recipients: [example.com], Actions: [{S3Action: {BucketName: mail}}]}]}\n"
CONFIGURATION = """
exim_path = {exim}
primary_hostname = client.test
spool_directory = {folder}
log_file_path = {folder}/%slog
keep_environment =
accept_8bitmime = true
begin routers
out:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = smtp
begin transports
smtp:
  driver = smtp
  port = {port}
  allow_localhost
  hosts_try_chunking = *
  hosts_avoid_tls = *
  hosts_try_dane =
  message_linelength_limit = 1000000
begin retry
"""
DOTS = b".\n..\n.dot\n. \n\n.\n"
BODIES = {
    "dots": DOTS + b"end\n" + DOTS,
    "eight bits": bytes(set(range(256)) - {0, 10, 13}) * 40 + b"\n",
    "NUL": b"a\0b\n\0\n",
    "what looks like an end": b"x\n.\nQUIT\nRSET\nBDAT 10 LAST\n",
    "a long line": b"x" * 100_000 + b"\n",
    "many chunks": b".\n" + b"0123456789abcdef.\n" * 20_000,
}
HEADER = b"Subject: chunks\nFrom: a@example.net\nMessage-ID: <1@example.net>\nDate: Tue, 24 Nov 2026 12:00:00 +0000\n"


@pytest.fixture
def spool() -> Iterator[Path]:
    """A folder that Exim's user can work in, unlike those of pytest."""
    if os.geteuid() != 0:
        missing("only root gives Exim a configuration of its own")
    folder = Path(tempfile.mkdtemp(prefix="inbound-exim-"))
    try:
        exim = pwd.getpwnam("Debian-exim")
        os.chown(folder, exim.pw_uid, exim.pw_gid)
    except KeyError:
        missing("there is no user Debian-exim, whom Debian's Exim wants to be")
    else:
        yield folder
    finally:
        shutil.rmtree(folder)


async def test_what_exim_sends_by_bdat_is_stored_as_it_was_sent(tmp_path: Path, spool: Path) -> None:
    exim = needs("exim4", why="a client that sends by BDAT")
    async with Sink() as sink:
        serve = Serve(tmp_path, RULES, sink.endpoint, log_level="debug")
        await serve.start()
        configuration = spool / "exim.conf"
        configuration.write_text(CONFIGURATION.format(exim=exim, folder=spool, port=serve.port))
        for name, body in BODIES.items():
            client = await asyncio.create_subprocess_exec(
                exim, "-C", str(configuration), "-odf", "-i", "-f", "a@example.net", "u@example.com",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
            said, _ = await client.communicate(HEADER + b"\n" + body)
            log = (spool / "mainlog").read_text()
            (accepted,) = re.findall(r'^.* => .* K C="250 2\.0\.0 OK ([0-9a-v]{40})"$', log, re.MULTILINE) or [""]  # K: by CHUNKING
            assert accepted, f"{name}: {said.decode()}{log}"
            (spool / "mainlog").unlink()
            await sink.until(lambda i=accepted: f"mail/{i}" in sink.objects)
            header, _, stored = sink.objects[f"mail/{accepted}"].partition(b"\r\n\r\n")
            assert header.endswith(HEADER.rstrip().replace(b"\n", b"\r\n")), name
            assert stored == body.replace(b"\n", b"\r\n"), name
        assert await serve.kill(15) == 0
