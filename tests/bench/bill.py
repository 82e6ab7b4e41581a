"""What a message costs, from the SMTP session to the answers of its sinks: PYTHONPATH=tests python tests/bench/bill.py

A real `inbound serve` takes DKIM-signed mail from Postfix's smtp-source (20 sessions, a connection a message), judges it against a DNS
server on loopback (SPF, DKIM and DMARC pass), puts it into S3, publishes the notification of that, and publishes the message itself by an
SNSAction. S3 and SNS are bill_sink.py. What is measured ends when the log says that the last message is done. Counted is the CPU time, user
and system, of the service with its children; not that of sender, sinks and DNS. All of them share the machine's cores, so the rate is less
than the service alone would reach. "10 MB" has no SNSAction, which takes 150 KB at most, and 4 sessions; its memory is the peak of the
process above what it held before the first of them, after warm-up mail of 4 KB.

`--profile FILE` writes a profile of the service by perf (with Python's frames from 3.12 on).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dns_server import DnsServer

from inbound.assess.dkim.sign import key_record, sign

DOMAIN = "sender.example"
ACCOUNT = "us-east-1:123456789012"
HEADER = f"""\
From: Joe SixPack <joe@{DOMAIN}>
To: Suzie Q <suzie@receiver.example>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2025 21:00:37 -0700
Message-ID: <20250712040037.46341.5F8J@{DOMAIN}>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
List-Unsubscribe: <https://{DOMAIN}/unsubscribe>

"""
LINE = "Lorem ipsum dolor sit amet, consetetur sadipscing elitr, sed diam.\n"
STORE = {"S3Action": {"BucketName": "mail", "ObjectKeyPrefix": "in/", "TopicArn": f"arn:aws:sns:{ACCOUNT}:stored"}}
PUBLISH = {"SNSAction": {"TopicArn": f"arn:aws:sns:{ACCOUNT}:mail", "Encoding": "UTF-8"}}
RULES = {"Identities": ["receiver.example"], "ActiveRuleSet": "default", "RuleSets": {"default": [
    {"Name": "all", "Recipients": ["suzie@receiver.example"], "Actions": [STORE, PUBLISH]},
    {"Name": "large", "Recipients": ["large@receiver.example"], "Actions": [STORE]},
]}}
TICKS = os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    """One run: CPU milliseconds a message, messages a second, peak growth of resident memory in MB, messages published per request."""

    cpu: float
    rate: float
    growth: float
    batch: float


def message(octets: int, key: bytes) -> bytes:
    """A signed message of about so many octets, with LF, as smtp-source wants it."""
    bare = (HEADER + LINE * ((octets - 1000) // len(LINE) + 1)).encode().replace(b"\n", b"\r\n")
    signed: bytes = sign(bare, domain=DOMAIN, selector="s", key_pem=key)
    whole = signed if signed.endswith(bare) else signed + bare
    return whole.replace(b"\r\n", b"\n")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its children (living or reaped) included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu_seconds(int(child)) for child in children)


def resident(pid: int, field: str) -> float:
    """VmRSS or VmHWM of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


class Service:
    """`inbound serve` and its log."""

    def __init__(self, folder: Path, endpoint: str, dns: str, settings: dict[str, str]) -> None:
        self._log_path = folder / "log"
        rules = folder / "rules.yaml"
        rules.write_text(json.dumps(RULES))
        steered = ("INBOUND_", "AWS_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(steered)} | {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1", "INBOUND_RULES": str(rules), "INBOUND_DATA": str(folder / "data"),
            "INBOUND_LISTEN": "127.0.0.1:0", "INBOUND_HTTP_LISTEN": "127.0.0.1:0", "INBOUND_HOSTNAME": "mx.receiver.example",
            "INBOUND_LOG": "json", "INBOUND_DNS": dns, "INBOUND_MAX_CONNECTIONS_PER_CLIENT": "1000", **settings}
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "inbound", "serve"], env=environment, stdout=log, cwd=folder)
        self._log = self._log_path.open("rb")
        self._partial = b""
        self.done = 0
        self.address = ""
        while not self.address:
            for line in self._lines():
                if b"service.started" in line:
                    self.address = json.loads(line)["smtp"][0]
            if self.process.poll() is not None:
                raise SystemExit(self._log_path.read_text())
            time.sleep(0.01)

    def _lines(self) -> list[bytes]:
        *lines, self._partial = (self._partial + self._log.read()).split(b"\n")
        self.done += sum(b'"message.done"' in line for line in lines)
        return lines

    def until(self, done: int, seconds: float = 300.0) -> None:
        """Wait until so many messages are done in all."""
        end = time.monotonic() + seconds
        while self.done < done:
            time.sleep(0.005)
            for line in self._lines():
                if b'"level":"error"' in line or b'"level":"warning"' in line:
                    print(line.decode()[:500], file=sys.stderr)  # noqa: T201  # a command prints
            if time.monotonic() > end:
                raise SystemExit(f"only {self.done} of {done} messages are done")


def told(endpoint: str, path: str) -> dict[str, Any]:
    """What the sink tells of itself."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{endpoint}/{path}") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@contextmanager
def sink() -> Iterator[str]:
    """The endpoint of a running sink."""
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("bill_sink.py"))], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


def send(service: Service, file: Path, count: int, *, sessions: int, recipient: str) -> None:
    """Send the message so often."""
    source = shutil.which("smtp-source", path=f"{os.environ['PATH']}:/usr/sbin")
    if source is None:
        raise SystemExit("smtp-source is not installed (Debian: postfix)")
    subprocess.run([source, "-4", "-s", str(sessions), "-m", str(count), "-F", str(file), "-f", f"joe@{DOMAIN}", "-t", recipient,
                    "-M", f"a.{DOMAIN}", service.address], check=True)


def run(service: Service, endpoint: str, file: Path, count: int, *, sessions: int, recipient: str) -> Run:
    """Send `count` messages, wait until all are done, and say what that took."""
    pid = service.process.pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM begins anew
    before, held, had, start, done = told(endpoint, "counts"), resident(pid, "VmRSS"), cpu_seconds(pid), time.monotonic(), service.done
    send(service, file, count, sessions=sessions, recipient=recipient)
    service.until(done + count)
    seconds = time.monotonic() - start
    after = told(endpoint, "counts")
    requests = after["requests"] - before["requests"] - (after["objects"] - before["objects"])
    return Run((cpu_seconds(pid) - had) / count * 1000, count / seconds, resident(pid, "VmHWM") - held,
               (after["published"] - before["published"]) / max(requests, 1))


def show(name: str, runs: list[Run]) -> None:
    cpu, rate, growth, batch = (statistics.median(column) for column in zip(*runs, strict=True))
    spread = f"{min(r.cpu for r in runs):.2f}-{max(r.cpu for r in runs):.2f}"
    print(f"{name:>6}  {cpu:8.2f} ms CPU a message [{spread}]  {rate:7.1f} messages/s  "  # noqa: T201
          f"peak memory {growth:+6.1f} MB  {batch:.1f} messages a publish", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=3000, help="of 4 KB, a round")
    parser.add_argument("--large", type=int, default=20, help="of 10 MB, a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--profile", type=Path, help="where to write perf's data")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for the service")
    options = parser.parse_args()
    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    zone = f"""
        {DOMAIN}                TXT "v=spf1 ip4:127.0.0.1 -all"
        s._domainkey.{DOMAIN}   TXT {" ".join(f'"{part}"' for part in halves(key_record(key)))}
        _dmarc.{DOMAIN}         TXT "v=DMARC1; p=reject"
        1.0.0.127.in-addr.arpa  PTR a.{DOMAIN}
        a.{DOMAIN}              A   127.0.0.1
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        small, large = folder / "small", folder / "large"
        small.write_bytes(message(4096, key))
        large.write_bytes(message(10 * 1024 * 1024, key))
        server = stack.enter_context(DnsServer(zone))
        endpoint = stack.enter_context(sink())
        settings = dict(setting.split("=", 1) for setting in options.set)
        service = Service(folder, endpoint, server.setting, settings)
        stack.callback(service.process.wait)
        stack.callback(service.process.terminate)
        print(f"idle: {resident(service.process.pid, 'VmRSS'):.0f} MB resident")  # noqa: T201
        run(service, endpoint, small, 300, sessions=options.sessions, recipient="suzie@receiver.example")
        body = json.loads(next(texts[0] for name, texts in parse_qs(told(endpoint, "first")["body"]).items() if name.endswith("Message")))
        verdicts = {name: body["receipt"][f"{name}Verdict"]["status"] for name in ("spf", "dkim", "dmarc")}
        print(f"verdicts: {verdicts}, {small.stat().st_size} octets; after warm-up {resident(service.process.pid, 'VmRSS'):.0f} MB resident")  # noqa: T201
        if options.profile:
            perf = subprocess.Popen(["perf", "record", "-q", "-g", "-p", str(service.process.pid), "-o", str(options.profile)])
            stack.callback(perf.wait)
            stack.callback(perf.terminate)
        if options.messages:
            show("4 KB", [run(service, endpoint, small, options.messages, sessions=options.sessions, recipient="suzie@receiver.example")
                          for _ in range(options.rounds)])
        if options.large:
            show("10 MB", [run(service, endpoint, large, options.large, sessions=4, recipient="large@receiver.example")
                           for _ in range(options.rounds)])


def halves(text: str) -> list[str]:
    """Strings of a TXT record."""
    return [text[at : at + 200] for at in range(0, len(text), 200)]


if __name__ == "__main__":
    main()
