"""`inbound serve` with what bounces need: missing, wrong, and right; one clear line, the exit code, and never a password."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from process import Serve, clean_environment, converse

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: gone
      Recipients: [gone@example.com]
      Actions:
        - BounceAction: {SmtpReplyCode: 550, StatusCode: 5.1.1, Message: Mailbox does not exist, Sender: postmaster@example.com}
        - S3Action: {BucketName: mail}
"""
HARMLESS = RULES.replace("Name: gone", "Name: gone\n      Enabled: false")


def serve(folder: Path, rules: str = RULES, **told: str) -> tuple[int, str]:
    """The exit code and the words of a serve that cannot start. Its port stays free."""
    (folder / "rules.yaml").write_text(rules)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        environment = clean_environment() | {"INBOUND_LISTEN": f"127.0.0.1:{port}", "INBOUND_HTTP_LISTEN": "127.0.0.1:0"}
        done = subprocess.run([sys.executable, "-m", "inbound", "serve"], cwd=folder, env=environment | told, capture_output=True, text=True,
                              timeout=60, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_an_enabled_rule_that_bounces_needs_a_smarthost(tmp_path: Path) -> None:
    code, said = serve(tmp_path)
    assert code == 1
    assert said == ("rules.yaml:8:11: RuleSets.default[0].Actions[0].BounceAction: needs a server to send bounces through; set INBOUND_SMARTHOST "
                    "(smtp://mail.example.com:587), or 'Enabled: false' keeps the rule in the file\n")


def test_a_wrong_smarthost(tmp_path: Path) -> None:
    code, said = serve(tmp_path, INBOUND_SMARTHOST="smtp://me:geheim@mail.example.com:port")
    assert code == 2
    assert said.startswith("inbound: INBOUND_SMARTHOST: is not an SMTP URL")
    assert len(said.splitlines()) == 1
    assert "geheim" not in said


@pytest.mark.parametrize(("key", "says"), [
    (None, "cannot read key.pem: No such file or directory"), ("nonsense", "key.pem is not a key to sign with (PEM, RSA or Ed25519): "),
    ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "key.pem is not a key to sign with (PEM, RSA or Ed25519): "),
])
def test_a_wrong_key(key: str | None, says: str, tmp_path: Path) -> None:
    if key is not None:
        (tmp_path / "key.pem").write_text(key)
    code, said = serve(tmp_path, HARMLESS, INBOUND_DKIM_KEY="key.pem", INBOUND_DKIM_SELECTOR="s1", INBOUND_DKIM_DOMAIN="example.com")
    assert code == 2
    assert said.startswith(f"inbound: INBOUND_DKIM_KEY: {says}")
    assert len(said.splitlines()) == 1


def test_a_key_alone(tmp_path: Path) -> None:
    assert serve(tmp_path, INBOUND_DKIM_KEY="key.pem") == (2, (
        "inbound: INBOUND_DKIM_SELECTOR and INBOUND_DKIM_DOMAIN not set; INBOUND_DKIM_KEY, INBOUND_DKIM_SELECTOR, INBOUND_DKIM_DOMAIN go together, "
        "set all or none\n"))


async def test_a_running_service_refuses_a_bounce_without_a_smarthost_and_goes_on(tmp_path: Path) -> None:
    process = Serve(tmp_path, HARMLESS, "http://127.0.0.1:9")
    await process.start()
    try:
        process.rules.write_text(RULES)
        rejected = await process.until(lambda e: e["event"] == "rules.rejected")
        assert "needs a server to send bounces through" in rejected["errors"][0]
        assert (await converse(process.port, b"EHLO x\r\n"))[0].startswith("220 ")
    finally:
        await process.kill(15)


async def test_a_missing_signature_is_a_warning_and_the_password_is_told_nowhere(tmp_path: Path) -> None:
    process = Serve(tmp_path, RULES, "http://127.0.0.1:9", smarthost="smtp://me:geh%65im@127.0.0.1:9", log_level="debug")
    await process.start()
    warning = await process.until(lambda e: e["event"] == "service.warning" and "DKIM" in e["warning"])
    assert warning["warning"].startswith(f"{process.rules}:8:11: RuleSets.default[0].Actions[0].BounceAction: is not DKIM-signed; ")
    assert await process.kill(15) == 0
    assert "geheim" not in f"{process.events}{process.errors}"
