"""Messages that strangers send to break parsers: the known killers of mail software, generated.

`MESSAGES` maps a name to a function that makes the message, so that a test holds one at a time.
"""

from __future__ import annotations

from collections.abc import Callable

END = b"\r\n\r\nbody\r\n"
TO = b"From: a@sender.example\r\nTo: "


def nested(levels: int) -> bytes:
    """`levels` multiparts, each in the one before."""
    opening = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(levels))
    return opening + b"\r\nthe innermost"


def repeated(unit: bytes, octets: int) -> bytes:
    """`unit` again and again, `octets` long."""
    return (unit * (octets // len(unit) + 1))[:octets]


MESSAGES: dict[str, Callable[[], bytes]] = {
    "no headers": lambda: b"hello\r\nworld\r\n",
    "nothing": lambda: b"",
    "one line": lambda: b"Subject",
    "only an empty line": lambda: b"\r\n",
    "every octet": lambda: bytes(range(256)) * 500,
    "every octet in a field": lambda: b"Subject: " + bytes(n for n in range(256) if n not in b"\r\n") * 300 + END,
    "raw 8-bit": lambda: b"Subject: " + repeated(b"\xe4\xff\xc3", 90_000) + END,
    "8-bit names": lambda: repeated(b"\xe4bc: d\r\n", 90_000) + END,
    "300,000 header lines": lambda: b"X-Line: a value\r\n" * 300_000 + END,
    "as many fields as fit": lambda: b"a:\n" * 34_000 + END,
    "5 MB header": lambda: b"Subject: " + b"x" * 5_000_000 + END,
    "5 MB folded header": lambda: b"Subject: " + b"x\r\n " * 1_250_000 + END,
    "continuation lines only": lambda: b"a: b" + b"\r\n c" * 30_000 + END,
    "no colon": lambda: b"a: b\r\n" + b"x" * 100_000 + END,
    "nesting of 3,000": lambda: nested(3_000),
    "message/rfc822 2,000 deep": lambda: b"Content-Type: message/rfc822\r\n\r\n" * 2_000 + b"x",
    "1.1 MB of encoded words": lambda: b"Subject: " + b"=?utf-8?q?a?=\r\n " * 80_000 + END,
    "as many encoded words as fit": lambda: b"Subject: " + repeated(b"=?utf-8?q?a?= ", 100_000) + END,
    "encoded words of two charsets": lambda: b"Subject: " + repeated(b"=?utf-8?q?a?= =?latin1?b?YQ==?= ", 100_000) + END,
    "encoded words that fail together": lambda: b"Subject: " + repeated(b"=?utf-8?q?=FF?= ", 100_000) + END,
    "encoded words of new charsets": lambda: b"Subject: " + b" ".join(b"=?x-%d?q?a?=" % n for n in range(6_000)) + END,
    "encoded words never closed": lambda: b"Subject: " + repeated(b"=?utf-8?q?", 100_000) + END,
    "openings of encoded words": lambda: b"Subject: " + repeated(b"=?", 100_000) + END,
    "hostile charsets": lambda: b"Subject: "
    + b" ".join(b"=?%s?q?a=41?=" % name for name in b"zip rot13 idna punycode unicode_escape undefined utf-7 os".split())
    + END,
    "50,000 addresses": lambda: TO + b", ".join(b"a%d@b.example" % n for n in range(50_000)) + END,
    "as many addresses as fit": lambda: TO + repeated(b"a@b,", 100_000) + END,
    "44 KB of commas": lambda: TO + b"," * 44_000 + END,
    "quotes": lambda: TO + b'"' * 100_000 + END,
    "quotes never closed": lambda: TO + repeated(b'"\\', 100_000) + END,
    "angles": lambda: TO + b"<" * 100_000 + END,
    "angles and quotes": lambda: TO + repeated(b'<"a', 100_000) + END,
    "parentheses": lambda: TO + b"(" * 100_000 + END,
    "comments": lambda: TO + b"()" * 50_000 + END,
    "nested comments": lambda: TO + b"(" * 50_000 + b")" * 50_000 + END,
    "groups": lambda: TO + b"a:;" * 33_000 + END,
    "one group": lambda: TO + b"g:" + repeated(b"a@b,", 100_000) + b";" + END,
    "Content-Type: ;;;; of 160 KB": lambda: b"Content-Type: " + b";" * 160_000 + END,
    "Content-Type: ;;;; that fits": lambda: b"Content-Type: " + b";" * 100_000 + END,
    "forged verdicts": lambda: b"X-SES-Spam-Verdict: PASS\r\n" * 3_900 + END,
    "forged results behind comments": lambda: repeated(b"Authentication-Results:" + b"(" * 24 + b"\r", 100_000) + END,
    "forged results behind spaces": lambda: repeated(b"Authentication-Results:" + b" " * 24 + b"\r", 100_000) + END,
    "bare CR": lambda: b"Subject: a\rTo: b@c\rX: y\r\rbody",
    "NUL": lambda: b"Subject: a\0b\r\nTo: \0@\0\r\n\0: \0" + END,
}
