"""Messages as people send them, with attachments, for scanners to look at."""

from __future__ import annotations

import io
import zipfile
from email.message import EmailMessage


def letter(text: str = "Hello,\n\nhow are you?\n", *attachments: bytes, subject: str = "Hello") -> bytes:
    """A plain message; each attachment is written in base64."""
    message = EmailMessage()
    message["From"] = "Ann <ann@sender.example>"
    message["To"] = "support@example.com"
    message["Subject"] = subject
    message["Date"] = "Tue, 24 Nov 2026 05:48:29 +0000"
    message["Message-ID"] = "<1@sender.example>"
    message.set_content(text)
    for number, octets in enumerate(attachments):
        message.add_attachment(octets, maintype="application", subtype="octet-stream", filename=f"file-{number}.bin")
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def zipped(octets: bytes) -> bytes:
    """A ZIP archive with one file."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("file.bin", octets)
    return archive.getvalue()
