"""What the doctor says of DNS, against a DNS server that answers as told."""

from __future__ import annotations

import pytest
from dns_server import DnsServer

from inbound.assess.dns import Resolver
from inbound.decide.rules import RuleFile
from inbound.deliver.aws.client import AwsClient
from inbound.operate.doctor import examine
from inbound.settings import Settings

BOUNCE = {"BounceAction": {"SmtpReplyCode": "550", "Message": "no", "Sender": "postmaster@example.com"}}
RULES = RuleFile.model_validate({"RuleSets": {"default": [{"Name": "b", "Recipients": ["example.com"], "Actions": [BOUNCE]}]}}).active()
GOOD = """
example.com. 300 IN MX 10 mx.example.com.
example.com. 300 IN TXT "v=spf1 a:mx.example.com -all"
mx.example.com. 300 IN A 192.0.2.1
1.2.0.192.in-addr.arpa. 300 IN PTR mx.example.com.
"""


async def told(zone: str, hostname: str = "mx.example.com") -> dict[str, tuple[bool, str]]:
    with DnsServer(zone) as server:
        resolver, aws = Resolver([server.address]), AwsClient()
        try:
            findings = await examine(Settings(hostname=hostname), RULES, aws, resolver)
        finally:
            await aws.close()
            await resolver.close()
    return {finding.what: (finding.ok, finding.detail) for finding in findings}


async def test_records_that_are_right() -> None:
    found = await told(GOOD)
    assert found["SPF of example.com"] == (True, "v=spf1 a:mx.example.com -all")
    assert found["MX of example.com"] == (True, "names mx.example.com")
    assert found["address of mx.example.com"] == (True, "192.0.2.1")


@pytest.mark.parametrize(("gone", "instead", "what", "said"), [
    ('TXT "v=spf1 a:mx.example.com -all"', 'TXT "other"', "SPF of example.com", "0 SPF records"),
    ("MX 10 mx.example.com.", "MX 10 elsewhere.example.net.", "MX of example.com", "names elsewhere.example.net, not mx.example.com"),
    ("PTR mx.example.com.", "PTR other.example.com.", "address of mx.example.com", "has no PTR record that says mx.example.com"),
    ("mx.example.com. 300 IN A 192.0.2.1", "", "address of mx.example.com", "public name that MX records name"),
])
async def test_records_that_are_wrong(gone: str, instead: str, what: str, said: str) -> None:
    assert gone in GOOD
    ok, detail = (await told(GOOD.replace(gone, instead)))[what]
    assert not ok
    assert said in detail


async def test_no_record_with_a_name_that_is_not_public_is_advised() -> None:
    found = await told("example.com. 300 IN A 192.0.2.1", hostname="laptop")
    assert found["MX of example.com"][1].endswith("publish an MX record with the name of this host; INBOUND_HOSTNAME is the public name that "
                                                  "MX records name")
