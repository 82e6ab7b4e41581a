"""What goes wrong when someone starts inbound or looks at its queue: one line that says what, and never a traceback."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_dev import ANY_PORTS, run
from needs import needs_module
from process import AWS, Serve, clean_environment

RULES = "Identities: [example.com]\nRuleSets: {default: [{Name: all, Actions: [{S3Action: {BucketName: mail}}]}]}\n"
ANYWHERE = {"INBOUND_LISTEN": "127.0.0.1:0", "INBOUND_HTTP_LISTEN": "127.0.0.1:0"}


def serve(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`inbound serve` that should not come to run."""
    (folder / "rules.yaml").write_text(RULES)
    return subprocess.run([sys.executable, "-m", "inbound", "serve"], cwd=folder, env=clean_environment() | AWS | ANYWHERE | environment,
                          capture_output=True, text=True, timeout=30, check=False)


def only_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def no_aws() -> Iterator[str]:
    """A web server that knows no AWS."""
    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_function_given_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("def a(event, context): ...\nb = a\n")
    line = only_line(run(tmp_path, "dev", *ANY_PORTS, "--function", "f=f.py:a", "--function", "f=f.py:b"))
    assert line == "inbound: --function f: given twice, as f.py:a and f.py:b"


def test_a_sample_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = only_line(run(tmp_path, "dev", *ANY_PORTS, "--rules", "file/rules.yaml"))
    assert line.startswith("inbound: cannot write a sample rule file to file/rules.yaml: ")
    assert line.endswith("; choose another place with --rules FILE")


@pytest.mark.parametrize("url", ["", "http://"])
def test_an_endpoint_that_is_no_aws_is_told(tmp_path: Path, no_aws: str, url: str) -> None:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    (tmp_path / "rules.yaml").write_text(RULES)
    line = only_line(run(tmp_path, "dev", "--smtp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--aws", url or no_aws))
    assert line.startswith("inbound: no AWS answers at http:")


def test_no_mail_is_received_where_http_cannot_listen(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(tmp_path, INBOUND_HTTP_LISTEN=f"127.0.0.1:{port}")
    assert only_line(done) == f"inbound: cannot listen on 127.0.0.1:{port} (HTTP): Address already in use; choose another with INBOUND_HTTP_LISTEN"
    assert "service.started" not in done.stdout


def test_a_data_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    line = only_line(serve(tmp_path, INBOUND_DATA="rules.yaml"))
    assert line.startswith("inbound: cannot use the data folder rules.yaml: Not a directory")


def test_a_spool_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "var" / "spool").mkdir(parents=True)
    (tmp_path / "var" / "spool" / "spool.sqlite3").write_bytes(os.urandom(20_000))
    assert only_line(serve(tmp_path)) == "inbound: cannot use the data folder var: file is not a database"
    assert only_line(run(tmp_path, "queue", "list")) == "inbound: cannot use the data folder var: file is not a database"


async def test_a_misspelt_setting_is_a_warning_and_no_dead_letters_are_said_to_be_none(tmp_path: Path) -> None:
    service = Serve(tmp_path, RULES, "http://127.0.0.1:9")
    service.environment["INBOUND_MAX_HOP"] = "30"
    await service.start()
    warning = await service.until(lambda e: "MAX_HOP" in e.get("warning", ""))
    assert warning["warning"] == "INBOUND_MAX_HOP is no setting and does nothing; did you mean INBOUND_MAX_HOPS?"
    assert await service.kill(signal.SIGTERM) == 0
    for command in ("retry", "drop"):
        done = run(tmp_path, "queue", command, "--all", "--data", "data")
        assert (done.returncode, done.stdout) == (0, "there are no dead letters\n")
        assert json.loads(run(tmp_path, "queue", command, "--error", "x", "--data", "data", "--json").stdout) == {"done": [], "not_done": []}
