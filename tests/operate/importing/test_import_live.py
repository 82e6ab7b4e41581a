"""`inbound import ses --live`, with the real boto3 against a server on loopback that answers in SES's query protocol."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from inbound.decide.load import parse

RULES = """<Rules><member><Name>store</Name><Enabled>true</Enabled><TlsPolicy>Optional</TlsPolicy><ScanEnabled>false</ScanEnabled>
<Recipients><member>example.com</member></Recipients><Actions><member><S3Action><BucketName>mail</BucketName></S3Action></member></Actions></member></Rules>"""


class Ses(ThreadingHTTPServer):
    """Knows the rule sets default (active) and old, one filter, and two pages of identities of which one is pending."""

    daemon_threads = True
    active = True
    refuses = False

    def answer(self, asked: dict[str, str]) -> str:
        match asked["Action"]:
            case "DescribeActiveReceiptRuleSet":
                return self.rule_set("default", RULES) if self.active else ""
            case "DescribeReceiptRuleSet":
                return self.rule_set(asked["RuleSetName"], "<Rules/>")
            case "ListReceiptFilters":
                return ("<Filters><member><Name>f</Name><IpFilter><Policy>Block</Policy><Cidr>10.0.0.1/24</Cidr></IpFilter></member></Filters>")
            case "ListIdentities" if "NextToken" not in asked:
                return "<Identities><member>example.com</member></Identities><NextToken>2</NextToken>"
            case "ListIdentities":
                return "<Identities><member>pending.example</member><member>box@example.org</member></Identities>"
            case _:
                states = {"example.com": "Success", "pending.example": "Pending", "box@example.org": "Success"}
                entries = "".join(f"<entry><key>{name}</key><value><VerificationStatus>{states[name]}</VerificationStatus></value></entry>"
                                  for key, name in asked.items() if key.startswith("Identities."))
                return f"<VerificationAttributes>{entries}</VerificationAttributes>"

    @staticmethod
    def rule_set(name: str, rules: str) -> str:
        return f"<Metadata><Name>{name}</Name><CreatedTimestamp>2016-07-15T16:25:59.607Z</CreatedTimestamp></Metadata>{rules}"


class Handler(BaseHTTPRequestHandler):
    server: Ses

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = {key: values[0] for key, values in parse_qs(body).items()}
        action = asked["Action"]
        space = 'xmlns="http://ses.amazonaws.com/doc/2010-12-01/"'
        if self.server.refuses:
            self.reply(403, f"<ErrorResponse {space}><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to {action}</Message>"
                            "</Error><RequestId>r</RequestId></ErrorResponse>")
            return
        self.reply(200, f"<{action}Response {space}><{action}Result>{self.server.answer(asked)}</{action}Result>"
                        f"<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>")

    def reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def ses() -> Iterator[Ses]:
    with Ses(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(server: Ses, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL_SES": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "test",
           "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
           "AWS_SHARED_CREDENTIALS_FILE": os.devnull, **environment}
    return subprocess.run([sys.executable, "-m", "inbound", "import", "ses", "--live", *arguments], capture_output=True, text=True, check=False,
                          env={key: value for key, value in env.items() if value}, timeout=60)


def test_the_active_rule_set_with_filters_and_verified_identities(ses: Ses) -> None:
    done = run(ses)
    assert done.stderr == "imported from SES: 1 rule set, 1 rule, 1 filter; active: default\nrules.yaml passes inbound check\n"
    assert done.returncode == 0
    found = parse(done.stdout, "r").rule_file
    assert found.Identities == ("example.com", "box@example.org")
    assert [rule.Name for rule in found.RuleSets["default"]] == ["store"]
    assert [each.Name for each in found.Filters] == ["f"]


def test_another_rule_set_is_not_the_active_one(ses: Ses) -> None:
    done = run(ses, "--rule-set", "old")
    assert "attention: in SES the active rule set is default, which is not among these\n" in done.stderr
    both = run(ses, "--rule-set", "old", "--rule-set", "default")
    assert "ActiveRuleSet: default\n" in both.stdout


def test_no_active_rule_set(ses: Ses) -> None:
    ses.active = False
    done = run(ses)
    assert done.returncode == 0
    assert "ActiveRuleSet: null\nRuleSets: {}\n" in done.stdout


def test_aws_says_no(ses: Ses) -> None:
    ses.refuses = True
    done = run(ses)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "inbound: SES, DescribeActiveReceiptRuleSet: AccessDenied: not authorized to DescribeActiveReceiptRuleSet\n"


def test_no_region_and_no_credentials(ses: Ses) -> None:
    region = run(ses, AWS_DEFAULT_REGION="")
    assert (region.returncode, region.stderr) == (2, "inbound: SES: You must specify a region. Give --region, or set AWS_DEFAULT_REGION\n")
    credentials = run(ses, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert (credentials.returncode, credentials.stderr) == (2, "inbound: SES: Unable to locate credentials\n")
