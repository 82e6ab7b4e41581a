"""Trying rules on verdicts with `inbound dev` and `inbound send`, with no scanner and no DNS but a local one."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from letters_with_attachments import letter
from local_dev import ANY_PORTS, Dev, client, run
from needs import needs_module
from scanners import free_port

from inbound.assess.dkim.sign import key_record, new_key, sign

RULES = """
Identities: [example.com]
RuleSets:
  default:
    - Name: all
      ScanEnabled: true
      Actions: [{S3Action: {BucketName: mail}}]
"""
KEY = new_key()
RECORD = " ".join(f'"{part}"' for part in (key_record(KEY)[:250], key_record(KEY)[250:]))
ZONE = f"""
    sender.example               TXT  "v=spf1 ip4:127.0.0.1 -all"
    _dmarc.sender.example        TXT  "v=DMARC1; p=quarantine"
    r._domainkey.sender.example  TXT  {RECORD}
"""
NAMES = ("spf", "dkim", "dmarc", "spam", "virus")
TO = ("--to", "support@example.com")


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    needs_module("ministack", why="the local AWS, pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("dev")
    (folder / "rules.yaml").write_text(RULES)
    with DnsServer(ZONE) as dns:
        running = Dev(folder, *ANY_PORTS, environment={"INBOUND_DNS": dns.setting})
        try:
            running.ready()
            yield running
        finally:
            running.stop()


def sent(dev: Dev, *options: str) -> dict[str, Any]:
    """The route of a message that was sent."""
    done = run(dev.folder, "send", *TO, "--json", *options)
    assert done.returncode == 0, done.stderr
    route: dict[str, Any] = json.loads(done.stdout)["route"]
    return route


def statuses(route: dict[str, Any]) -> list[str]:
    return [route["verdicts"][name]["status"] for name in NAMES]


def stored(dev: Dev, route: dict[str, Any]) -> bytes:
    octets: bytes = client(dev.ready(), "s3").get_object(Bucket="mail", Key=route["id"])["Body"].read()
    return octets


def test_the_plain_test_message(dev: Dev) -> None:
    assert statuses(sent(dev)) == ["PASS", "GRAY", "PASS", "PASS", "PASS"]


def test_the_test_strings(dev: Dev) -> None:
    assert statuses(sent(dev, "--eicar"))[3:] == ["PASS", "FAIL"]
    assert statuses(sent(dev, "--gtube"))[3:] == ["FAIL", "PASS"]
    assert b"\r\nX-SES-Spam-Verdict: FAIL\r\nX-SES-Virus-Verdict: FAIL\r\n" in stored(dev, sent(dev, "--eicar", "--gtube"))


def test_a_signature_of_any_domain(dev: Dev) -> None:
    assert statuses(sent(dev, "--sign")) == ["PASS"] * 5
    route = sent(dev, "--sign", "--from", "ann@unknown.example")
    assert statuses(route)[:3] == ["GRAY", "PASS", "GRAY"]
    assert b" dkim=pass header.i=@unknown.example;" in stored(dev, route)


def test_verdicts_to_order(dev: Dev) -> None:
    route = sent(dev, "--verdict", "spf=fail", "--verdict", "DMARC=FAIL", "--verdict", "virus=processing_failed")
    assert statuses(route) == ["FAIL", "GRAY", "FAIL", "PASS", "PROCESSING_FAILED"]
    assert route["verdicts"]["dmarc_policy"] == "reject"
    assert re.search(rb"^ dmarc=fail header\.from=example\.net;\r$", stored(dev, route), re.MULTILINE)
    assert b"order" not in stored(dev, route).replace(b"ordered by inbound send", b""), "nothing of the order is in the message"
    assert statuses(sent(dev)) == ["PASS", "GRAY", "PASS", "PASS", "PASS"], "the next message is judged as ever"


def test_a_message_signed_elsewhere_passes_and_one_byte_changed_fails_with_the_reason(dev: Dev) -> None:
    good = sign(letter(), domain="sender.example", selector="r", key_pem=KEY) + letter()
    (dev.folder / "good.eml").write_bytes(good)
    (dev.folder / "bad.eml").write_bytes(good.replace(b"how are", b"who are"))
    sender = ("--from", "ann@sender.example", "--eml")
    assert statuses(sent(dev, *sender, "good.eml"))[:3] == ["PASS"] * 3
    told = run(dev.folder, "send", *TO, *sender, "bad.eml").stdout
    assert "verdicts    spf PASS, dkim FAIL, dmarc PASS, spam PASS, virus PASS\n" in told
    assert "    dkim: sender.example: body hash did not verify: the body is not the one that was signed\n" in told


def test_a_file_can_be_sent_with_verdicts_and_a_signature(dev: Dev) -> None:
    (dev.folder / "plain.eml").write_bytes(letter().removesuffix(b"\r\n").replace(b"\r\n", b"\n"))
    assert statuses(sent(dev, "--eml", "plain.eml", "--sign", "--verdict", "spam=GRAY"))[1:4] == ["PASS", "PASS", "GRAY"]


@pytest.mark.parametrize(("options", "said", "code"), [
    (["--verdict", "spf"], "'spf' is not NAME=STATUS", 2), (["--verdict", "arc=PASS"], "'arc=PASS' is not NAME=STATUS", 2),
    (["--verdict", "spf=DISABLED"], "is not NAME=STATUS", 2), (["--eicar", "--eml", "rules.yaml"], "inbound: --eicar and --gtube make the test", 2),
    (["--sign", "--eml", "rules.yaml"], "inbound: --sign signs for the From domain of a message: it has no From field", 1),
])
def test_what_cannot_be_sent_is_told(dev: Dev, options: list[str], said: str, code: int) -> None:
    done = run(dev.folder, "send", *TO, *options)
    assert done.returncode == code
    assert said in done.stderr


def test_orders_need_a_dev(tmp_path: Path) -> None:
    done = run(tmp_path, "send", *TO, "--verdict", "spf=FAIL", "--http", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stderr.startswith("inbound: --sign and --verdict need a running 'inbound dev', and none answers at http://127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("body", "kind"), [
    (b'{"sha256":"x","verdicts":{"spf":"FAIL"},"records":{}}', "text/plain"), (b"not JSON", "application/json"), (b"[]", "application/json"),
    (b'{"sha256":"x","verdicts":{"spf":"BAD"},"records":{}}', "application/json"), (b'{"sha256":"x","verdicts":[],"records":{}}', "application/json"),
])
def test_an_order_that_is_none_is_refused(dev: Dev, body: bytes, kind: str) -> None:
    request = urllib.request.Request(f"http://{dev.ready()['http']}/dev/orders", body, {"Content-Type": kind})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code in (400, 415)
    refused.value.close()
