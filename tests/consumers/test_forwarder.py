"""aws-lambda-ses-forwarder from npm, unchanged, as the function of a rule: it fetches what we stored, rewrites it and sends it by SESv2."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from local_dev import ANY_PORTS, Dev, client, run
from needs import needs_module

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: forward
      Recipients: [info@example.com]
      ScanEnabled: true
      Actions:
        - AddHeaderAction: {HeaderName: X-Route, HeaderValue: forward}
        - S3Action: {BucketName: mail, ObjectKeyPrefix: emailsPrefix/}
        - LambdaAction: {FunctionArn: "arn:aws:lambda:us-east-1:000000000000:function:forwarder"}
    - Name: forward-and-wait
      Recipients: [abuse@example.com, team@example.com]
      Actions:
        - S3Action: {BucketName: mail, ObjectKeyPrefix: emailsPrefix}
        - LambdaAction: {FunctionArn: "arn:aws:lambda:us-east-1:000000000000:function:forwarder", InvocationType: RequestResponse}
        - S3Action: {BucketName: mail, ObjectKeyPrefix: afterwards/}
    - Name: others
      Recipients: [others@example.com]
      Actions:
        - S3Action: {BucketName: mail, ObjectKeyPrefix: others/}
"""
CONFIG = {
    "fromEmail": "noreply@example.com", "subjectPrefix": "[fwd] ", "emailBucket": "mail", "emailKeyPrefix": "emailsPrefix/", "allowPlusSign": True,
    "forwardMapping": {
        "info@example.com": ["john@example.org", "jen@example.org"], "abuse@example.com": ["jim@example.org"], "team@example.com": ["jo@example.org"],
        "others@example.com": ["leak@example.org"],
    },
}
HEADER = """\
DKIM-Signature: v=1; a=rsa-sha256; d=example.net; s=s;
\th=from; bh=AA==;
\tb=AA==
From: "Ann Author" <ann@example.net>
To: undisclosed-recipients:;
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Date: Wed, 13 Aug 2025 19:16:05 +0200
Message-ID: <1@example.net>
Return-Path: <liar@example.net>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit
"""
BODY = "Grüße!\n\n.a line with a dot\nFrom: not a header\n\n-- \nAnn\n"


NEVER = b"\0"


class Outgoing:
    """Where mail leaves: keeps what SendEmail of SESv2 is called with, and refuses messages that hold `refuses`."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []
        self.refuses = NEVER
        self._heard = threading.Condition()
        outgoing = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                called = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v2/email/outbound-emails"
                fits = outgoing.refuses not in raw(called)
                answer = b'{"MessageId": "0"}' if fits else b'{"message": "Email address is not verified."}'
                self.send_response(200 if fits else 400)
                self.send_header("Content-Type", "application/json")
                if not fits:
                    self.send_header("X-Amzn-Errortype", "MessageRejected")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                with outgoing._heard:
                    (outgoing.sent if fits else outgoing.refused).append(called)
                    outgoing._heard.notify_all()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing of it on the screen."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def with_id(self, message_id: str, *, refused: bool = False) -> dict[str, Any]:
        """The call for the message whose Received tells this id; waits for it."""
        calls = self.refused if refused else self.sent

        def found() -> dict[str, Any] | None:
            return next((call for call in calls if message_id.encode() in raw(call)), None)

        with self._heard:
            self._heard.wait_for(lambda: found() is not None, 30)
        call = found()
        assert call is not None, f"the forwarder did not send {message_id}"
        return call


def raw(call: dict[str, Any]) -> bytes:
    """The message of a SendEmail call."""
    return base64.b64decode(call["Content"]["Raw"]["Data"])


@pytest.fixture(scope="module")
def outgoing() -> Iterator[Outgoing]:
    started = Outgoing()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def dev(npm: Path, node: str, outgoing: Outgoing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """`inbound dev` with the forwarder, in a project that has it installed."""
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    project = npm / "project"
    project.mkdir()
    shutil.copy(npm / "forward.js", project)
    (project / "forward.json").write_text(json.dumps(CONFIG | {"leaves": outgoing.url}))
    folder = tmp_path_factory.mktemp("forwarding")
    (folder / "rules.yaml").write_text(RULES)
    running = Dev(folder, *ANY_PORTS, "--function", f"forwarder={project}/forward.js:handler",
                  environment={"INBOUND_RETRY_MIN": "0.5s"})
    try:
        running.ready()
        yield running
    finally:
        running.stop()


def send(dev: Dev, *recipients: str) -> str:
    """Send the message; its id."""
    eml = dev.folder / "message.eml"
    eml.write_bytes(f"{HEADER}\n{BODY}".replace("\n", "\r\n").encode())
    sent = run(dev.folder, "send", "--from", "bounces@example.net", "--eml", str(eml), *(word for each in recipients for word in ("--to", each)))
    assert sent.returncode == 0, sent.stderr
    return sent.stdout.split()[3]


def test_what_we_store_is_forwarded_with_our_trace_and_its_own_body(dev: Dev, outgoing: Outgoing) -> None:
    message_id = send(dev, "info@example.com")
    call = outgoing.with_id(message_id)
    assert call["Destination"] == {"ToAddresses": ["john@example.org", "jen@example.org"]}, "by the envelope: the header names nobody"
    header, _, body = raw(call).decode().partition("\r\n\r\n")
    assert body == BODY.replace("\n", "\r\n")
    lines = header.split("\r\n")
    assert lines[:2] == ["X-Route: forward", "Received: from [127.0.0.1] (unknown [127.0.0.1])"], "our Return-Path went, as SES's does"
    assert lines[2].endswith(f" with SMTP id {message_id}")
    assert {"X-SES-Spam-Verdict: PASS", "X-SES-Virus-Verdict: PASS"} <= set(lines)
    assert lines[lines.index('From: "Ann Author" <noreply@example.com>') :] == [
        'From: "Ann Author" <noreply@example.com>',
        "To: undisclosed-recipients:;",
        "Subject: [fwd] =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
        "Date: Wed, 13 Aug 2025 19:16:05 +0200",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        'Reply-To: "Ann Author" <ann@example.net>',
    ]
    assert "DKIM-Signature" not in header


def test_it_forwards_for_the_recipients_that_its_rule_matched_and_no_others(dev: Dev, outgoing: Outgoing) -> None:
    message_id = send(dev, "Team+News@Example.COM", "others@example.com", "abuse@example.com")
    assert outgoing.with_id(message_id)["Destination"]["ToAddresses"] == ["jo@example.org", "jim@example.org"]


def test_a_function_that_answers_nothing_lets_the_rule_go_on(dev: Dev, outgoing: Outgoing) -> None:
    message_id = send(dev, "abuse@example.com")
    assert outgoing.with_id(message_id)["Destination"]["ToAddresses"] == ["jim@example.org"]
    assert client(dev.ready(), "s3").head_object(Bucket="mail", Key=f"afterwards/{message_id}")


def test_what_can_not_be_forwarded_now_is_forwarded_later(dev: Dev, outgoing: Outgoing) -> None:
    outgoing.refuses = "Grüße!".encode()
    try:
        message_id = send(dev, "abuse@example.com")
        assert outgoing.with_id(message_id, refused=True)
    finally:
        outgoing.refuses = NEVER
    assert outgoing.with_id(message_id)
