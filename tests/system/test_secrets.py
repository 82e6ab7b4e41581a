"""Secrets never appear: known ones are planted in every place that holds one, a service at debug level meets successes and failures of every
kind, every command is run, and all that was written and told is searched for them."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
import sink as sinks
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from dns_server import DnsServer
from process import Serve, converse, message
from sink import Sink
from smarthost import smarthost

from inbound.assess.dkim.sign import new_key

ACCOUNT = "000000000000"
RULES = f"""
Identities: [example.com]
RuleSets:
  default:
    - Name: stored
      Recipients: [stored@example.com]
      Actions: [{{S3Action: {{BucketName: mail, TopicArn: "arn:aws:sns:us-east-1:{ACCOUNT}:inbound"}}}}]
    - Name: as-role
      Recipients: [role@example.com]
      Actions: [{{S3Action: {{BucketName: mail, IamRoleArn: "arn:aws:iam::{ACCOUNT}:role/r"}}}}]
    - Name: told
      Recipients: [told@example.com]
      Actions: [{{LambdaAction: {{FunctionArn: "arn:aws:lambda:us-east-1:{ACCOUNT}:function:f", InvocationType: RequestResponse}}}}]
    - Name: bounced
      Recipients: [gone@example.com]
      Actions: [{{BounceAction: {{SmtpReplyCode: "550", StatusCode: 5.1.1, Message: gone, Sender: mailer@example.com}}}}]
    - Name: published
      Recipients: [broken@example.com]
      Actions: [{{SNSAction: {{TopicArn: "arn:aws:sns:us-east-1:{ACCOUNT}:broken"}}}}]
"""
SECRETS = {
    "secret access key": "plantedSecret/AccessKey+0123456789abcdef",
    "session token": "plantedSessionToken//0123456789==",
    "secret of a role": "plantedSecretOfTheRole0123456789",
    "session token of a role": "plantedTokenOfTheRole0123456789",
    "password of the smarthost": "planted/p@ss:word",
    "token of the hook": "plantedHookToken0123456789",
}
ECHO = """<?xml version="1.0"?><ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature does not match.
The Canonical String should have been 'POST /&#10;x-amz-date:20261124T000000Z&#10;x-amz-security-token:{0}&#10;host;x-amz-security-token'</Message>
<StringToSign>AWS4-HMAC-SHA256</StringToSign><CanonicalRequest>PUT x-amz-security-token:{0}</CanonicalRequest></Error></ErrorResponse>"""
SABOTAGE = """
import inbound.deliver.actions.sns as published
async def broken(step, work, ports):
    raise RuntimeError(f"broken on purpose {step!r} {work!r} {ports!r} {vars(work)!r} {vars(ports.bounces)!r} {vars(ports.aws)!r}")
published.ACTION.perform = broken
"""


def forms(secret: str) -> set[str]:
    """How a secret may be written."""
    return {secret, quote(secret, safe=""), quote(secret), base64.b64encode(secret.encode()).decode(), json.dumps(secret)[1:-1], repr(secret)[1:-1]}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "dkim.pem"
    path.write_bytes(new_key())
    return path


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer('example.net TXT "v=spf1 ip4:127.0.0.1 -all"') as server:
        yield server


def planted(key: Path) -> dict[str, set[str]]:
    """Everything that must never appear, by what it is."""
    pem = key.read_bytes()
    other = load_pem_private_key(pem, None).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    lines = {line for text in (pem, other) for line in text.decode().splitlines()[1:-1] if len(line) > 40}
    return {name: forms(secret) for name, secret in SECRETS.items()} | {"signing key": lines}


def found_in(text: str, wanted: dict[str, set[str]]) -> list[str]:
    return [name for name, written in wanted.items() if any(each in text for each in written)]


class Plant:
    """A service that holds every secret; `told` gathers all it and the commands say."""

    def __init__(self, folder: Path, sink: Sink, key: Path, port: int, dns: DnsServer) -> None:
        user = f"smtp://me:{quote(SECRETS['password of the smarthost'], safe='')}@127.0.0.1:{port}?starttls=off"
        self.serve = Serve(folder, RULES, sink.endpoint, log_level="debug", smarthost=user, dkim_key=str(key), dkim_selector="s",
                           dkim_domain="example.com", dns=dns.setting, alert_hook=f"{sink.endpoint}/{SECRETS['token of the hook']}", bounce="dsn",
                           alert_topic=f"arn:aws:sns:us-east-1:{ACCOUNT}:alerts", retry_min="0.1", retry_max="0.2", retry_for="1s", spool_age="1h")
        self.serve.environment |= {"AWS_SECRET_ACCESS_KEY": SECRETS["secret access key"], "AWS_SESSION_TOKEN": SECRETS["session token"],
                                   "PYTHONPATH": str(folder / "sabotage")}
        (folder / "sabotage").mkdir()
        self.told: list[str] = []

    async def command(self, *arguments: str, **environment: str) -> str:
        """What a command prints on both streams."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "inbound", *arguments, env=self.serve.environment | environment, cwd=self.serve.folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output = (await asyncio.wait_for(process.communicate(), 60))[0].decode()
        self.told.append(output)
        return output

    async def commands(self, *each: Sequence[str]) -> None:
        """Some at once."""
        places = asyncio.Semaphore(3)

        async def one(arguments: Sequence[str]) -> None:
            async with places:
                await self.command(*arguments)

        await asyncio.gather(*map(one, each))

    async def get(self, path: str) -> str:
        address = next(e["http"] for e in self.serve.events if e["event"] == "service.started")
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as answer:
            text = await answer.text()
            self.told.append(f"{dict(answer.headers)} {text}")
            return text

    async def send(self, name: str) -> str:
        replies = await converse(self.serve.port, b"EHLO client.test\r\n", *message(f"{name}@example.com", b"Subject: hi\r\n\r\nbody"))
        said = replies[-1]
        assert said.startswith("250 "), replies
        return said.split()[-1]


async def ended(plant: Plant, message_id: str) -> str:
    event = await plant.serve.until(lambda e: e.get("id") == message_id and e["event"] in ("message.done", "message.dead"))
    return str(event["event"])


@pytest.mark.timeout(400)
async def test_no_secret_appears_anywhere(tmp_path: Path, key: Path, dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "ASSUMED", sinks.ASSUMED.replace(
        "<SecretAccessKey>s<", f"<SecretAccessKey>{SECRETS['secret of a role']}<").replace("token{0}", SECRETS["session token of a role"]))
    wanted = planted(key)
    async with Sink() as sink, smarthost(login=True) as host:
        plant = Plant(tmp_path, sink, key, host.port, dns)
        (tmp_path / "sabotage" / "sitecustomize.py").write_text(SABOTAGE)
        serve = plant.serve
        await in_text(plant)
        await serve.start()
        assert [await ended(plant, await plant.send(name)) for name in ("stored", "role", "told")] == ["message.done"] * 3
        waiting = [await plant.send("gone"), await plant.send("broken")]  # the smarthost refuses the password; a defect of ours
        sink.always = (403, {"Content-Type": "application/xml"}, ECHO.format(SECRETS["session token"]))
        waiting += [await plant.send(name) for name in ("stored", "role", "told")]
        (tmp_path / "rules.yaml").write_text("Identities: [\n")
        await serve.until(lambda e: e["event"] == "rules.rejected")
        assert [await ended(plant, each) for each in waiting] == ["message.dead"] * 5
        for path in ("/healthz", "/readyz", "/metrics", "/nothing", "/messages/none", *(f"/messages/{each}" for each in waiting)):
            await plant.get(path)
        await plant.commands(*(("queue", "show", each) for each in waiting), *(("queue", "show", each, "--json") for each in waiting[:2]),
                             ("queue", "list"), ("queue", "list", "--json"), ("doctor",), ("check",))
        (tmp_path / "rules.yaml").write_text(RULES)
        await serve.until(lambda e: e["event"] == "rules.loaded", after=len(serve.events) - 1)
        await plant.commands(("doctor",), ("doctor", "--json"), ("policy",), ("dns",), ("check", "--json"))
        assert await serve.kill(signal.SIGTERM) == 0
        plant.told += [json.dumps(event) for event in serve.events] + [serve.errors]
        await bad_settings(plant, tmp_path)
    everything = "\n".join(plant.told)
    assert "broken on purpose" in everything, "the traceback of a defect was seen"
    assert "Traceback" in everything
    assert "SignatureDoesNotMatch" in everything
    assert found_in(everything, wanted) == []
    assert found_in("".join(str(each) for each in (sink.published, sink.invoked, sink.objects, sink.metadata)), wanted) == []
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and found_in(path.read_bytes().decode("latin1"), wanted)]
    assert kept == []


async def in_text(plant: Plant) -> None:
    """The log for people, of a service that is told to end as soon as it runs."""
    environment = plant.serve.environment | {"INBOUND_LOG": "text"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "inbound", "serve", env=environment, cwd=plant.serve.folder,
                                                   stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    while b"service.started" not in (line := await process.stdout.readline()):
        assert line
        plant.told.append(line.decode())
    process.send_signal(signal.SIGTERM)
    plant.told.append((await process.communicate())[0].decode())


async def bad_settings(plant: Plant, folder: Path) -> None:
    """Settings that are wrong, with secrets in them: what is said of them names the setting alone."""
    password, hook = SECRETS["password of the smarthost"], SECRETS["token of the hook"]
    (folder / "garbage.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{SECRETS['secret access key']}\n-----END PRIVATE KEY-----\n")
    for name, value in (
        ("SMARTHOST", f"smtp://me:{password}@host:99999"), ("SMARTHOST", f"smtp://me:{password}"), ("SMARTHOST", f"ftp://me:{quote(password)}@h"),
        ("SMARTHOST", f"smtp://{password}@[::1"), ("ALERT_HOOK", f"ftp://x/{hook}"), ("ALERT_HOOK", hook), ("ALERT_HOOK", f"https:///{hook}"),
        ("DKIM_KEY", str(folder / "garbage.pem")), ("DKIM_KEY", str(folder)),
    ):
        said = await plant.command("serve", **{f"INBOUND_{name}": value})
        assert f"INBOUND_{name}" in said, said
    await plant.command("serve", INBOUND_TLS_CERT=str(folder / "garbage.pem"), INBOUND_TLS_KEY=str(folder / "garbage.pem"))
