"""Messages that strangers send to break parsers: the known killers of mail software, generated.

`MESSAGES` maps a name to a function that makes the message, so that a test holds one at a time; `ARCHIVES` those that carry archives to
blow up in a scanner. None begins a line with a dot, and none has `X-Forged-` in it.
"""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from collections.abc import Callable

END = b"\r\n\r\nbody\r\n"
TO = b"From: a@sender.example\r\nTo: "
DATES = (
    b"Tue, 99 Foo 99999999999999999999 99:99:99 +9999", b"1" * 9_000, b"Tue, 24 Nov 2026 05:48:29 " + b"(" * 9_000, b"\0", b"-0001", b"=?u?q?=00?=",
)


def nested(levels: int) -> bytes:
    """`levels` multiparts, each in the one before."""
    opening = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(levels))
    return opening + b"\r\nthe innermost"


def repeated(unit: bytes, octets: int) -> bytes:
    """`unit` again and again, `octets` long."""
    return (unit * (octets // len(unit) + 1))[:octets]


def parts(count: int) -> bytes:
    """A multipart of so many small parts."""
    return b'From: a@sender.example\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"--b\r\n\r\nx\r\n" * count + b"--b--\r\n"


def attached(octets: bytes, name: bytes = b"file.zip") -> bytes:
    """A message with an attachment of this name in base64."""
    return (
        b'From: a@sender.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: application/zip\r\n'
        b'Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename="%b"\r\n\r\n%b\r\n--b--\r\n'
        % (name, base64.encodebytes(octets).replace(b"\n", b"\r\n"))
    )


def encoded(how: bytes, unit: bytes) -> bytes:
    """A body that says how it is encoded, and is 400 KB of `unit`."""
    return b"Content-Transfer-Encoding: " + how + b"\r\n\r\n" + repeated(unit, 400_000) + b"\r\n"


def archive(*files: tuple[str, bytes]) -> bytes:
    """A ZIP archive."""
    octets = io.BytesIO()
    with zipfile.ZipFile(octets, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files:
            file.writestr(name, content)
    return octets.getvalue()


def zips_in_zips(levels: int, copies: int, octets: int) -> bytes:
    """An archive of `copies` archives, and so on, `levels` deep; the innermost hold so many octets of one kind."""
    found = archive(*((f"{n}.bin", bytes(octets)) for n in range(copies)))
    for _ in range(levels):
        found = archive(*((f"{n}.zip", found) for n in range(copies)))
    return found


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "zips in zips, 16 GB unfolded": lambda: attached(zips_in_zips(3, 8, 4_000_000)),
    "200 MB of gzip": lambda: attached(gzip.compress(bytes(200_000_000)), b"file.gz"),
    "an archive of names that lead out": lambda: attached(archive(("../../../../tmp/slip", b"x"), ("/etc/cron.d/slip", b"x"), ("C:\\slip", b"x"))),
    "a ZIP of 20,000 names": lambda: attached(archive(*((f"{n}", b"") for n in range(20_000)))),
    "a broken ZIP": lambda: attached(archive(("a", b"x" * 1_000))[:-30]),
}

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
    "nesting of 100": lambda: nested(100),
    "100,000 parts": lambda: parts(100_000),
    "a boundary of 60 KB": lambda: b'Content-Type: multipart/mixed; boundary="' + b"b" * 60_000 + b'"\r\n\r\n--' + b"b" * 60_000 + END,
    "boundaries that begin like one another": lambda: b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"--bb\r\n" * 30_000,
    "an empty boundary": lambda: b'Content-Type: multipart/mixed; boundary=""\r\n\r\n' + b"--\r\n" * 30_000,
    "RFC 2231, 10,000 continuations": lambda: b"Content-Type: text/plain" + b"".join(b";\r\n x*%d=a" % n for n in range(7_000)) + END,
    "RFC 2231, a huge index": lambda: b"Content-Disposition: attachment; filename*9999999999999999999999=a; filename*" + b"9" * 5_000 + b"*=b" + END,
    "RFC 2231, charsets": lambda: b"Content-Disposition: attachment; filename*=zip''%50%4B; filename*0*=" + b"x" * 9_000 + b"''%FF" + END,
    "a parameter with an unclosed quote": lambda: b'Content-Type: text/plain; charset="' + b'\\"' * 45_000 + END,
    "comments in Content-Type": lambda: b"Content-Type: text/" + b"(" * 40_000 + b")" * 40_000 + b"plain" + END,
    "ARC, 1,000 sets": lambda: b"".join(
        b"ARC-Seal: i=%d; a=rsa-sha256; cv=pass; d=x.example; s=s; b=YQ==\r\nARC-Authentication-Results: i=%d; mx.test; dmarc=pass\r\n" % (n, n)
        for n in range(1, 1_001)) + b"From: a@sender.example" + END,
    "DKIM, 500 signatures": lambda: b"".join(
        b"DKIM-Signature: v=1; a=rsa-sha256; d=d%d.example; s=s; h=from; bh=YWFh; b=YWFh\r\n" % n for n in range(500)) + b"From: a@b.example" + END,
    "Received, as many as go": lambda: b"Received: from a by b; Tue, 24 Nov 2026 05:48:29 +0000\r\n" * 40 + b"Subject: x" + END,
    "dates": lambda: b"".join(b"Date: %b\r\n" % date for date in DATES * 4) + b"Message-ID: <" + b"a" * 20_000 + END,
    "a Message-ID that is none": lambda: b"Message-ID: <>\r\nMessage-ID: <@\r\nMessage-ID: [" + END,
    "uuencode that leads out": lambda: b"\r\nbegin 644 ../../../../tmp/slip\r\n" + (b"M" + b"!" * 60 + b"\r\n") * 9_000 + b"`\r\nend\r\n",
    "base64 that is none": lambda: encoded(b"base64", b"=A==\xff!=\r\n"),
    "quoted-printable that is none": lambda: encoded(b"quoted-printable", b"=\xff=Z=\r\n=="),
    "a charset that is none": lambda: b"Content-Type: text/plain; charset=" + b"x" * 9_000 + b"\r\nContent-Transfer-Encoding: 8bit" + END,
    "HTML, nested 30,000 deep": lambda: b"Content-Type: text/html\r\n\r\n" + b"<div>" * 30_000 + b"\r\n",
    "an address of 90 KB": lambda: b"From: " + b"a" * 45_000 + b"@" + b"b." * 22_000 + b"example" + END,
    "a domain of 90 KB in U-labels": lambda: b"From: a@" + "ü".encode() * 45_000 + b".example" + END,
    "display names that are addresses": lambda: b"From: " + repeated(b'"a@b.example" <c@d.example>, ', 90_000) + END,
    "one line of 3 MB": lambda: b"Subject: x\r\n\r\n" + b"x" * 3_000_000 + b"\r\n",
    "1,000,000 empty lines": lambda: b"Subject: x\r\n\r\n" + b"\r\n" * 1_000_000,
    "bare CR": lambda: b"Subject: a\rTo: b@c\rX: y\r\rbody",
    "NUL": lambda: b"Subject: a\0b\r\nTo: \0@\0\r\n\0: \0" + END,
}
