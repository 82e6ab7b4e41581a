"""Objects, notifications and events in SES's documented forms, written out here so that they do not come from the code under test."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from inbound.assess.dkim.sign import key_record, new_key, sign

KEY = new_key()
RECORD = " ".join(f'"{part}"' for part in (key_record(KEY)[:250], key_record(KEY)[250:]))
ZONE = f"""
    sender.example               TXT  "v=spf1 ip4:192.0.2.10 -all"
    _dmarc.sender.example        TXT  "v=DMARC1; p=quarantine"
    s._domainkey.sender.example  TXT  {RECORD}
"""
MESSAGE = b"""\
Received: from laptop by mail.sender.example; Wed, 13 Aug 2025 17:16:00 +0000
From: Ann <ann@sender.example>
To: Support <support@example.com>
Cc: "Doe, John" <john@example.net>
Subject: =?utf-8?q?Caf=C3=A9?=
Date: Wed, 13 Aug 2025 17:16:00 +0000
Message-ID: <1@sender.example>

Hello
""".replace(b"\n", b"\r\n")
ID = "795hue2ttd6ie60k15ji41vbso3q721dlq9g6f81"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:mail"
SIGNED = ("X-SES-RECEIPT: AEFBQUFBQUFBQUFGUlFC\r\n"
          "X-SES-DKIM-SIGNATURE: a=rsa-sha256; q=dns/txt; b=AAAA; c=relaxed/simple; s=x; d=amazonses.com; t=1755105367; v=1; bh=AAAA; h=From:To;\r\n")


@dataclass
class Mail:
    """One message and what SES said of it. `said` are the clauses after the SPF clause."""

    content: bytes = MESSAGE
    spf: str = "pass"
    why: str = "domain of sender.example designates 192.0.2.10 as permitted sender"
    said: tuple[str, ...] = ("dkim=pass header.i=@sender.example;", "dmarc=pass header.from=sender.example;")
    scanned: bool = True
    statuses: dict[str, str] = field(default_factory=lambda: {"spam": "PASS", "virus": "PASS", "spf": "PASS", "dkim": "PASS", "dmarc": "PASS"})
    id: str = ID
    sender: str = "ann@sender.example"

    def __post_init__(self) -> None:
        if "dkim=pass" in self.said[0]:
            self.content = signed(self.content)
        self.at = datetime.now(UTC)  # after the signature, which says when it was made

    def fields(self) -> list[tuple[str, str]]:
        """SES's own, folded where SES folds."""
        spf = (f"{self.spf} (spfCheck: {self.why}) client-ip=192.0.2.10; envelope-from={self.sender}; helo=mail.sender.example;")
        received = ("from mail.sender.example (mail.sender.example [192.0.2.10])\r\n by inbound-smtp.eu-west-1.amazonaws.com with SMTP "
                    f"id {self.id}\r\n for support@example.com;\r\n {format_datetime(self.at)} (UTC)")
        return [
            ("Return-Path", f"<{self.sender}>"),
            ("Received", received),
            *([("X-SES-Spam-Verdict", "PASS"), ("X-SES-Virus-Verdict", "PASS")] if self.scanned else []),
            ("Received-SPF", spf),
            ("Authentication-Results", "\r\n ".join(["amazonses.com;", f"spf={spf}", *self.said])),
        ]

    def object(self) -> bytes:
        return "".join(f"{name}: {value}\r\n" for name, value in self.fields()).encode() + SIGNED.encode() + self.content

    def notification(self, action: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        stamp = self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        headers = [{"name": name, "value": value.replace("\r\n ", " ")} for name, value in self.fields()]
        headers += [{"name": name, "value": value} for name, _, value in (line.partition(": ") for line in SIGNED.splitlines())]
        block = self.content.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
        for line in re.sub(r"\r\n[ \t]+", " ", block).split("\r\n"):
            name, _, value = line.partition(": ")
            headers.append({"name": name, "value": "Café" if name == "Subject" else value})
        statuses = {name: status if self.scanned or name not in ("spam", "virus") else "DISABLED" for name, status in self.statuses.items()}
        return {
            "notificationType": "Received",
            "mail": {
                "timestamp": stamp, "source": self.sender, "messageId": self.id,
                "destination": ["support@example.com", "john@example.net"], "headersTruncated": False, "headers": headers,
                "commonHeaders": {"returnPath": self.sender, "from": ["Ann <ann@sender.example>"], "date": "Wed, 13 Aug 2025 17:16:00 +0000",
                                  "to": ["Support <support@example.com>"], "cc": ['"Doe, John" <john@example.net>'],
                                  "messageId": "<1@sender.example>", "subject": "Café"},
            },
            "receipt": {
                "timestamp": stamp, "processingTimeMillis": 512, "recipients": ["support@example.com"],
                **{f"{name}Verdict": {"status": status} for name, status in statuses.items()},
                "action": action or {"type": "S3", "topicArn": TOPIC, "bucketName": "mail", "objectKeyPrefix": "in/", "objectKey": f"in/{self.id}"},
            },
            **more,
        }

    def sns(self, **more: Any) -> dict[str, Any]:
        """As SNS delivers it."""
        return {"Type": "Notification", "MessageId": "1", "TopicArn": TOPIC, "Subject": "Amazon SES Email Receipt Notification",
                "Message": json.dumps(self.notification(**more))}


def signed(content: bytes) -> bytes:
    return sign(content, domain="sender.example", selector="s", key_pem=KEY) + content
