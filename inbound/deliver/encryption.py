"""Client-side encryption of what goes to S3, as SES does it for an S3Action with KmsKeyArn: what Amazon's S3 encryption clients read.

Envelope encryption in the clients' "kms" form: AES-256-GCM under a data key, which KMS made and wrapped; all that a reader needs lies in
the object's metadata. S3 itself can not decrypt it (this is not SSE-KMS).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext, Cipher, algorithms, modes

from inbound.deliver.aws import Body, DataKey

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

NONCE = 12  # octets
TAG = 16
PIECE = 256 * 1024


def context(*, message_id: str, rule: str, key_arn: str) -> dict[str, str]:
    """The encryption context, and the object's material description: message, rule, account, and the key that wraps."""
    return {
        "aws:ses:message-id": message_id,
        "aws:ses:rule-name": rule,
        "aws:ses:source-account": key_arn.split(":")[4],
        "kms_cmk_id": key_arn,
    }


def metadata(key: DataKey, nonce: bytes, described: Mapping[str, str], size: int) -> dict[str, str]:
    """The object's user metadata, without the prefix `x-amz-meta-`; `size` counts the octets before encryption."""
    return {
        "x-amz-key-v2": base64.b64encode(key.wrapped).decode("ascii"),
        "x-amz-iv": base64.b64encode(nonce).decode("ascii"),
        "x-amz-cek-alg": "AES/GCM/NoPadding",
        "x-amz-wrap-alg": "kms",
        "x-amz-tag-len": str(TAG * 8),
        "x-amz-unencrypted-content-length": str(size),
        "x-amz-matdesc": json.dumps(described, separators=(",", ":")),
    }


@dataclass(frozen=True, slots=True)
class Encrypted:
    """A body under AES-256-GCM: ciphertext, then the tag. Large ones are encrypted as they are read.

    Each `open` gives the same octets: a nonce is for one key and one body only.
    """

    plain: Body
    key: bytes
    nonce: bytes

    @property
    def size(self) -> int:
        return self.plain.size + TAG

    def open(self) -> BinaryIO:
        """A new reader; to seek back costs the work again."""
        return cast("BinaryIO", _Reader(self))


class _Reader(io.RawIOBase):
    def __init__(self, body: Encrypted) -> None:
        super().__init__()
        self._body = body
        self._source = body.plain.open()
        self._position = 0  # what the caller has read or sought to
        self._begin()

    def _begin(self) -> None:
        self._source.seek(0)
        self._cipher: AEADEncryptionContext | None = Cipher(algorithms.AES(self._body.key), modes.GCM(self._body.nonce)).encryptor()
        self._ahead = b""  # encrypted and not yet read
        self._made = 0  # where `_ahead` ends in the whole

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._body.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Short only at the end."""
        view = memoryview(buffer).cast("B")
        if self._position < self._made - len(self._ahead):
            self._begin()
        elif self._position > self._made:
            self._ahead = b""
        else:
            self._ahead = self._ahead[self._position - (self._made - len(self._ahead)) :]
        filled = 0
        while filled < len(view) and (self._ahead or self._more()):
            piece = self._ahead[: len(view) - filled]
            view[filled : filled + len(piece)] = piece
            self._ahead = self._ahead[len(piece) :]
            self._position += len(piece)
            filled += len(piece)
        return filled

    def _more(self) -> bool:
        """Encrypt into `_ahead` what stands at the position; False when that is behind the end."""
        while not self._ahead and self._cipher is not None:
            plain = self._source.read(PIECE)
            if plain:
                piece = self._cipher.update(plain)
            else:
                piece = self._cipher.finalize() + self._cipher.tag
                self._cipher = None
            self._ahead = piece[max(0, self._position - self._made) :]
            self._made += len(piece)
        return bool(self._ahead)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()
