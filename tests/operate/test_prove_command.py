"""`inbound prove`: equal where SES and we agree, and each difference told with both values, by whose doing it is."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from dns_server import DnsServer, Fault
from operate.ses_objects import ID, MESSAGE, RECORD, TOPIC, ZONE, Mail

from inbound.operate.cli import cli
from inbound.operate.proof.difference import Tally
from inbound.operate.proof.report import KEPT, Report

RULES = f"""
Identities: [example.com]
RuleSets:
  default:
    - Name: store
      Recipients: [support@example.com]
      ScanEnabled: true
      Actions:
        - S3Action: {{BucketName: mail, ObjectKeyPrefix: in/, TopicArn: "{TOPIC}"}}
"""


@pytest.fixture(scope="module")
def zone() -> Iterator[str]:
    with DnsServer(ZONE) as dns:
        yield dns.setting


class Prove:
    def __init__(self, folder: Path, dns: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "mail"
        self.folder.mkdir()
        self._monkeypatch = monkeypatch
        self.ask(dns)

    def ask(self, dns: str) -> None:
        self._monkeypatch.setenv("INBOUND_DNS", dns)

    def put(self, name: str, content: bytes | Any) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def put_both(self, mail: Mail, prefix: str = "") -> None:
        """The object and the notification of one message."""
        self.put(f"{prefix}{mail.id}", mail.object())
        self.put("n.json", mail.notification())

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["prove", str(self.folder), *arguments])

    def told(self, *arguments: str) -> dict[str, Any]:
        result = self.run("--json", *arguments)
        found: dict[str, Any] = json.loads(result.stdout)
        assert result.exit_code == int(any(each["whose"] == "ours" for each in found["differences"])), result.stderr
        return found


@pytest.fixture
def prove(tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch) -> Prove:
    for name in ("INBOUND_RSPAMD", "INBOUND_CLAMD"):
        monkeypatch.delenv(name, raising=False)
    return Prove(tmp_path, zone, monkeypatch)


def differences(found: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    return [(each["whose"], each["field"], each["ses"], each["inbound"]) for each in found["differences"]]


# --- equal ---


def test_an_object_and_its_notification_equal_in_every_field(prove: Prove) -> None:
    mail = Mail()
    prove.put(f"in/{mail.id}", mail.object())
    prove.put("dump.json", mail.sns())
    found = prove.told()
    assert found["differences"] == []
    assert (found["messages"], found["identical"], found["skipped"]) == (1, 1, [])
    assert found["fields"]["compared"] == found["fields"]["equal"] > 40
    assert found["not_compared"] == ["spam verdict: no scanner is configured", "virus verdict: no scanner is configured"]
    assert prove.run().stdout == (
        "1 message judged, 1 equal in every field\n"
        f"{found['fields']['compared']} fields compared, {found['fields']['equal']} equal\n"
        "not compared: spam verdict: no scanner is configured\nnot compared: virus verdict: no scanner is configured\n")


def test_a_message_that_sns_carried_itself(prove: Prove) -> None:
    mail = Mail()
    action = {"type": "SNS", "topicArn": TOPIC, "encoding": "BASE64"}
    prove.put("sqs.json", {"Messages": [{"MessageId": "1", "Body": json.dumps(mail.sns(
        action=action, content=base64.b64encode(mail.object()).decode()))}]})
    prove.put("lines.jsonl", b"\n".join(json.dumps(mail.notification(action={**action, "encoding": "UTF8"}, content=mail.object().decode())).encode()
                                        for _ in range(2)))
    found = prove.told()
    assert (found["messages"], found["differences"]) == (3, [])


def test_a_lambda_event(prove: Prove) -> None:
    mail = Mail(scanned=False)
    told = mail.notification(action={"type": "Lambda", "functionArn": "arn:aws:lambda:eu-west-1:123456789012:function:f", "invocationType": "Event"})
    del told["notificationType"]
    prove.put(mail.id, mail.object())
    prove.put("event.json", {"Records": [{"eventSource": "aws:ses", "eventVersion": "1.0", "ses": told}]})
    found = prove.told()
    assert (found["messages"], found["differences"]) == (1, [])


def test_a_message_without_spf_signature_or_policy(prove: Prove) -> None:
    mail = Mail(content=MESSAGE.replace(b"ann@sender.example", b"ann@plain.example"), spf="none", sender="ann@plain.example",
                why="192.0.2.10 is neither permitted nor denied by domain of plain.example", said=("dmarc=none header.from=plain.example;",))
    prove.put(mail.id, mail.object())
    assert prove.told()["differences"] == []


def test_lines_that_an_editor_or_git_ended_with_lf(prove: Prove) -> None:
    prove.put("x.eml", Mail().object().replace(b"\r\n", b"\n"))
    found = prove.told()
    assert (found["messages"], found["differences"]) == (1, [])


def test_headers_that_ses_cut(prove: Prove) -> None:
    """10 KB of names and values, SES's receipt and signature among them."""
    mail = Mail(content=b"".join(b"X-%d: %s\r\n" % (number, b"x" * 90) for number in range(120)) + MESSAGE)
    told = mail.notification()
    room, kept = 10_240, []
    for each in told["mail"]["headers"]:
        room -= len(each["name"]) + len(each["value"].encode())
        if room < 0:
            break
        kept.append(each)
    told["mail"]["headers"], told["mail"]["headersTruncated"] = kept, True
    assert len(kept) > 50
    prove.put(mail.id, mail.object())
    prove.put("n.json", told)
    assert prove.told()["differences"] == []


def test_rules_that_do_the_same(prove: Prove, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    prove.put_both(Mail(), "in/")
    found = prove.told("--rules", str(tmp_path / "rules.yaml"))
    assert found["differences"] == []
    without = prove.told()["fields"]["compared"]
    assert found["fields"]["compared"] == without + 2


# --- differences of ours ---


def test_what_was_tampered_with_is_told_with_both_values(prove: Prove) -> None:
    mail = Mail()
    prove.put(mail.id, mail.object())
    told = mail.notification()
    told["mail"]["commonHeaders"]["subject"] = "Cafe"
    told["mail"]["headers"][2] = {"name": "X-SES-Spam-Verdict", "value": "GRAY"}
    told["receipt"]["dkimVerdict"] = {"status": "GRAY"}
    told["receipt"]["action"]["objectKey"] = "elsewhere"
    told["receipt"]["surprise"] = 1
    prove.put("n.json", told)
    found = prove.told()
    assert sorted(differences(found), key=str) == sorted([
        ("ours", "mail.commonHeaders.subject", "Cafe", "Café"),
        ("ours", "mail.headers X-SES-Spam-Verdict", ["X-SES-Spam-Verdict", "GRAY"], ["X-SES-Spam-Verdict", "PASS"]),
        ("ours", "receipt.dkimVerdict", "GRAY", "PASS"),
        ("ours", "receipt.action.objectKey", "elsewhere", f"in/{ID}"),
        ("ours", "receipt.surprise", 1, None),
    ], key=str)
    shown = prove.run().stdout
    assert "ours: 5 differences\n" in shown
    assert ("  1 x receipt.dkimVerdict: another status for the same result\n"
            f"      {prove.folder}/{ID}\n        SES      GRAY\n        inbound  PASS\n") in shown


def test_a_field_that_is_written_otherwise(prove: Prove) -> None:
    octets = Mail().object().replace(b"helo=mail.sender.example;\r\nAuth", b"helo=other.example;\r\nAuth")
    prove.put("x", octets)
    (found,) = differences(prove.told())
    assert found[:2] == ("ours", "Received-SPF as written")
    assert "helo=other.example" in found[2]


def test_octets_that_are_folded_otherwise(prove: Prove) -> None:
    prove.put("x", Mail().object().replace(b"example.com;\r\n ", b"example.com; ", 1))
    (found,) = differences(prove.told())
    assert found[:2] == ("ours", "object")


def test_a_body_that_was_changed_is_no_matter_of_dns(prove: Prove) -> None:
    prove.put("x", Mail().object().replace(b"Hello", b"Hallo"))
    found = prove.told()
    assert ("ours", "Authentication-Results dkim", ["pass sender.example"], ["fail sender.example"]) in differences(found)
    assert "body hash did not verify" in found["differences"][0]["cause"]


def test_rules_that_do_something_else(prove: Prove, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES.replace("in/", "other/"))
    prove.put_both(Mail(), "in/")
    found = prove.told("--rules", str(tmp_path / "rules.yaml"))
    assert [each[1] for each in differences(found)] == ["rules: action", "rules: object key"]
    assert [each["count"] for each in found["causes"]] == [1, 1]
    assert found["differences"][1]["inbound"] == [f"other/{ID}"]


def test_helo_that_is_the_other_name_of_the_client(prove: Prove) -> None:
    """Seen in public: SES names in helo= now the client's reverse name, now what it said in EHLO."""
    prove.put("x", Mail().object().replace(b"helo=mail.sender.example;", b"helo=other.example;"))
    found = prove.told()
    assert sorted(each["field"] for each in found["differences"]) == ["Authentication-Results as written", "Received-SPF as written"]
    assert {each["cause"] for each in found["differences"]} == {
        "helo= is another name of the client: what it said in EHLO, or what DNS calls it"}


# --- DNS has changed since ---


def zone_without(old: str, new: str = "") -> str:
    assert old in ZONE
    return ZONE.replace(old, new)


@pytest.mark.parametrize(("changed", "fields", "cause"), [
    (zone_without(f"s._domainkey.sender.example  TXT  {RECORD}"), {"Authentication-Results dkim", "receipt.dkimVerdict"},
     "the key s._domainkey.sender.example is gone from DNS"),
    (zone_without("ip4:192.0.2.10", "ip4:192.0.2.99"), {"Authentication-Results spf", "receipt.spfVerdict"},
     "the SPF record of sender.example gives this client another result now"),
    (zone_without('sender.example               TXT  "v=spf1 ip4:192.0.2.10 -all"'), {"Authentication-Results spf", "receipt.spfVerdict"},
     "sender.example publishes no SPF record now"),
    (zone_without('_dmarc.sender.example        TXT  "v=DMARC1; p=quarantine"'), {"Authentication-Results dmarc", "receipt.dmarcVerdict"},
     "sender.example publishes no DMARC record now"),
])
def test_dns_that_has_changed_since_is_told_apart(prove: Prove, changed: str, fields: set[str], cause: str) -> None:
    prove.put_both(Mail())
    with DnsServer(changed) as dns:
        prove.ask(dns.setting)
        found = prove.told()
    assert {each["field"] for each in found["differences"]} == fields
    assert {(each["whose"], each["cause"]) for each in found["differences"]} == {("DNS since then", cause)}


def test_a_changed_record_does_not_count_again_in_dmarc(prove: Prove) -> None:
    """SPF and DKIM both fail now, so DMARC does, too; by SES's own results of both it would pass."""
    prove.put_both(Mail())
    with DnsServer('_dmarc.sender.example TXT "v=DMARC1; p=reject"') as dns:
        prove.ask(dns.setting)
        found = prove.told()
    assert {each["whose"] for each in found["differences"]} == {"DNS since then"}
    assert {each["field"] for each in found["differences"]} == {
        "Authentication-Results spf", "Authentication-Results dkim", "Authentication-Results dmarc", "receipt.spfVerdict", "receipt.dkimVerdict",
        "receipt.dmarcVerdict"}


def test_a_look_up_without_an_answer_is_not_ours(prove: Prove) -> None:
    prove.put(ID, Mail().object())
    faults = dict.fromkeys(("sender.example", "s._domainkey.sender.example", "_dmarc.sender.example"), Fault.SERVFAIL)
    with DnsServer(ZONE, faults=faults) as dns:
        prove.ask(dns.setting)
        found = prove.told()
    assert {each["whose"] for each in found["differences"]} == {"DNS since then"}
    assert {each["cause"].partition(" for ")[0] for each in found["differences"]} == {"DNS did not answer"}


def test_a_wrong_mapping_does_not_hide_behind_dns(prove: Prove) -> None:
    """SES had spf=pass and called it FAIL: no record that changed since explains that."""
    mail = Mail()
    told = mail.notification()
    told["receipt"]["spfVerdict"] = {"status": "FAIL"}
    prove.put(ID, mail.object())
    prove.put("n.json", told)
    with DnsServer(zone_without("ip4:192.0.2.10 -all", "?all")) as dns:
        prove.ask(dns.setting)
        found = prove.told()
    assert ("ours", "receipt.spfVerdict", "FAIL", "GRAY") in differences(found)
    assert ("DNS since then", "Authentication-Results spf", "pass", "neutral") in differences(found)


# --- neither ours nor of DNS ---


def test_forged_fields_are_renamed_by_design(prove: Prove) -> None:
    mail = Mail(content=b"X-SES-Spam-Verdict: PASS\r\n" + MESSAGE)
    prove.put(ID, mail.object())
    prove.put("n.json", mail.notification())
    found = prove.told()
    assert {each["whose"] for each in found["differences"]} == {"by design"}
    assert {each["field"] for each in found["differences"]} == {"object", "mail.headers X-SES-Spam-Verdict"}


def test_the_included_domain_that_ses_named_in_earlier_years(prove: Prove) -> None:
    prove.put("x", Mail(why="domain of _spf.sender.example designates 192.0.2.10 as permitted sender").object())
    found = prove.told()
    assert [(each["whose"], each["field"]) for each in found["differences"]] == [("by design", "Received-SPF explanation")]


def test_octets_that_sns_replaced(prove: Prove) -> None:
    mail = Mail(content=MESSAGE.replace(b"Hello", b"H\xe9llo"))
    action = {"type": "SNS", "topicArn": TOPIC, "encoding": "UTF8"}
    prove.put("n.json", mail.notification(action=action, content=mail.object().decode("utf-8", "replace")))
    found = prove.told()
    assert {(each["whose"], each["field"]) for each in found["differences"]} == {
        ("the copy is not the original", "Authentication-Results dkim"), ("the copy is not the original", "receipt.dkimVerdict")}


def test_another_scanner(prove: Prove, monkeypatch: pytest.MonkeyPatch, rspamd: int) -> None:
    monkeypatch.setenv("INBOUND_RSPAMD", f"127.0.0.1:{rspamd}")
    gtube = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-" + b"ANTI-UBE-TEST-EMAIL*C.34X"
    prove.put("x", Mail(content=MESSAGE.replace(b"Hello", gtube)).object())
    found = prove.told()
    assert differences(found) == [("another scanner", "spam verdict", "PASS", "FAIL")]
    assert found["not_compared"] == ["virus verdict: no scanner is configured"]


# --- what is none ---


def test_what_is_not_judged_is_told(prove: Prove) -> None:
    prove.put("in/AMAZON_SES_SETUP_NOTIFICATION", b"From: aws\r\n\r\nHello")
    prove.put("in/photo.jpg", b"\xff\xd8\xff\xe0")
    prove.put("in/plain.eml", MESSAGE)
    prove.put("in/empty", b"")
    prove.put("other.json", {"Records": [{"s3": {}}]})
    prove.put("broken.json", b"{")
    prove.put("alone.json", Mail(id="0" * 40).notification())
    prove.put("binary.json", b"\xff\xfe")
    prove.put(ID, Mail().object())
    found = prove.told()
    assert found["messages"] == 1
    assert {each["where"].rpartition("/")[2]: each["why"] for each in found["skipped"]} == {
        "AMAZON_SES_SETUP_NOTIFICATION": "the setup notification of SES",
        "photo.jpg": "its topmost Received field is not one that SES writes", "plain.eml": "its topmost Received field is not one that SES writes",
        "empty": "its topmost Received field is not one that SES writes", "other.json": "JSON without a notification or event of SES",
        "broken.json": "begins like JSON, and is not", "binary.json": "begins like JSON, and is not",
        "alone.json": "JSON without the message, whose object is not here"}


def test_the_limit(prove: Prove) -> None:
    for number in range(5):
        prove.put(str(number), Mail().object())
    assert prove.told("--limit", "2")["messages"] == 2


def test_nothing_to_judge(prove: Prove, tmp_path: Path) -> None:
    result = prove.run()
    assert (result.exit_code, result.stderr) == (2, "inbound: no message of SES was found there\n")
    missing = CliRunner().invoke(cli, ["prove", str(tmp_path / "none")])
    assert (missing.exit_code, missing.stderr) == (2, f"inbound: {tmp_path}/none: no such file or folder\n")
    assert CliRunner().invoke(cli, ["prove", "s3://"]).stderr == "inbound: s3://: names no bucket (s3://BUCKET/PREFIX)\n"
    assert CliRunner().invoke(cli, ["prove"]).exit_code == 2


def test_where_nothing_is_a_message_of_ses_one_line_says_so_and_why(prove: Prove) -> None:
    """Zeros of everything came before it."""
    prove.put("rules.yaml", RULES.encode())
    result = prove.run()
    assert (result.exit_code, result.stdout) == (2, "")
    why = "its topmost Received field is not one that SES writes"
    assert result.stderr == f"inbound: no message of SES was found there: {prove.folder}/rules.yaml: {why}\n"
    prove.put("settings.yaml", b"a: b\n")
    prove.put("x.json", b"{")
    result = prove.run()
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert f" and 1 more: {why}" in result.stderr
    assert f"{prove.folder}/x.json: begins like JSON, and is not" in result.stderr
    told = prove.run("--json")
    assert (told.exit_code, json.loads(told.stdout)["messages"]) == (2, 0)


@pytest.mark.parametrize("hostile", [
    b"Received: from a (b [999.0.0.1]) by h with SMTP id " + b"a" * 40 + b"; Wed, 13 Aug 2025 17:16:06 +0000 (UTC)\r\n\r\n",
    b"Received: from a (b [192.0.2.1]) by h with SMTP id " + b"a" * 40 + b"; yesterday\r\n\r\n",
    b"Received: from a (b [192.0.2.1]) by h with SMTP id " + b"a" * 40 + b"; Wed, 13 Aug 99999 17:16:06 +0000 (UTC)\r\n\r\n",
    b"Received: " + b"(" * 50_000, b"[" * 100_000, b"{" * 10, b"Received: from " + b"a " * 60_000 + b"\r\n\r\n",
])
def test_hostile_objects_are_passed_by(prove: Prove, hostile: bytes) -> None:
    prove.put("x", hostile)
    prove.put(ID, Mail().object())
    found = prove.told()
    assert (found["messages"], len(found["skipped"])) == (1, 1)


@pytest.mark.parametrize("receipt", [{}, {"action": {"type": ["S3"]}}, {"action": {"type": "Connect"}}, {"recipients": 5}, {"spamVerdict": "PASS"},
                                     {"action": {"type": "S3"}}, {"action": None}, {"recipients": [{}, None]}])
def test_json_of_another_shape_is_a_difference(prove: Prove, receipt: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    mail = Mail()
    told = mail.notification()
    told["receipt"] = {**told["receipt"], **receipt} if receipt else {}
    prove.put(ID, mail.object())
    prove.put("n.json", told)
    found = prove.told("--rules", str(tmp_path / "rules.yaml"))
    assert found["messages"] == 1
    assert found["differences"]


def test_a_cause_is_counted_beyond_the_messages_that_are_kept() -> None:
    report = Report()
    for number in range(KEPT + 5):
        tally = Tally()
        tally.compare("f", "a", "b")
        report.add(str(number), tally)
    told = report.to_json()
    assert (told["causes"][0]["count"], len(told["differences"]), report.ours) == (KEPT + 5, KEPT, KEPT + 5)
    assert f"  {KEPT + 5} x f: another value for the same message" in list(report.told())
