"""Form encoding of what is published, pure: the standard library's goes octet by octet and takes half a millisecond for 10 KB."""

from __future__ import annotations

from collections.abc import Iterable

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_FIRST = (0x25, 0x2B)  # `%` and `+`, before the escapes of others bring them in
_REST = tuple(octet for octet in range(128) if octet not in _PLAIN and octet not in _FIRST)
_ASCII = tuple((bytes((octet,)), b"+" if octet == 0x20 else b"%%%02X" % octet) for octet in (*_FIRST, *_REST))
_BEYOND = tuple((bytes((octet,)), b"%%%02X" % octet) for octet in range(128, 256))


def form(fields: Iterable[tuple[bytes, str | bytes]]) -> bytes:
    """`application/x-www-form-urlencoded` in UTF-8, as browsers and boto3 write it. The names must need no escape."""
    return b"&".join(name + b"=" + escape(value.encode("utf-8", "replace") if isinstance(value, str) else value) for name, value in fields)


def escape(value: bytes) -> bytes:
    """Percent-encoded but for letters, digits and `-._~`; a space is `+`. A look for each octet there is beats a look at each octet."""
    for octet, escaped in _ASCII if value.isascii() else (*_ASCII, *_BEYOND):
        if octet in value:
            value = value.replace(octet, escaped)
    return value

