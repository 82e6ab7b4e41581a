"""Encoded words of header fields (RFC 2047), decoded to Unicode as SES shows them.

Time and memory are linear in the text, where the standard library's decoder takes gigabytes; and the name of a charset never makes Python
look for a module of that name.
"""

from __future__ import annotations

import binascii
import re
from encodings.aliases import aliases
from itertools import pairwise
from typing import NamedTuple

PATTERN = r"=\?[^?\s]*+\?[BbQq]\?[^?]*+\?="

_WORD = re.compile(r"=\?([^?\s]*+)\?([BbQq])\?([^?]*+)\?=")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]++={0,3})?")
_QUOTED_PRINTABLE = re.compile(r"(?:[^=]|=[0-9A-Fa-f]{2})*+")
_SEPARATORS = re.compile(r"[^a-z0-9]+")

_CHARSETS = frozenset(
    """
    ascii utf_8 utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le latin_1
    iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10 iso8859_11 iso8859_13 iso8859_14
    iso8859_15 iso8859_16 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258
    cp437 cp720 cp737 cp775 cp850 cp852 cp855 cp857 cp858 cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 cp874 cp1125
    koi8_r koi8_t koi8_u kz1048 ptcp154 tis_620 mac_cyrillic mac_greek mac_iceland mac_latin2 mac_roman mac_turkish
    gb18030 hz big5 big5hkscs cp950 cp932 euc_jp euc_jis_2004 euc_jisx0213 shift_jis_2004 shift_jisx0213 johab cp949
    iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_2004 iso2022_jp_3 iso2022_jp_ext iso2022_kr
    """.split()  # noqa: SIM905  # a list of ninety quoted names is harder to read
)
_WIDER = {  # what mailers write, and the charset they mean: a superset of it
    "gb2312": "gb18030", "gbk": "gb18030", "x_gbk": "gb18030", "cp936": "gb18030",
    "euc_kr": "cp949", "shift_jis": "cp932", "x_sjis": "cp932",
    "iso_8859_8_i": "iso8859_8", "iso_8859_8_e": "iso8859_8", "windows_874": "cp874",
}  # fmt: skip


class _Word(NamedTuple):
    written: str
    charset: str
    octets: bytes


def decode(text: str) -> str:
    """Every encoded word of `text` decoded, wherever it stands (RFC 2047, and the places where mailers put them against it).

    White space between two decoded words goes, and a character split between two words of one charset is made whole. A word that cannot
    be decoded stays as written. What was encoded may hold line breaks and NUL: harmless in JSON, not in a header field.
    """
    if "=?" not in text:
        return text
    words, gaps = _split(text)
    decoded: list[str | None] = []
    for run in _runs(words, gaps):
        decoded += _decode_run(run)
    result = [gaps[0]]
    for position, word in enumerate(words):
        result.append(word.written if (here := decoded[position]) is None else here)
        between = position + 1 < len(words) and here is not None and decoded[position + 1] is not None
        result.append("" if between and _blank(gaps[position + 1]) else gaps[position + 1])
    return "".join(result)


def _split(text: str) -> tuple[list[_Word], list[str]]:
    words, gaps, end = [], [], 0
    for match in _WORD.finditer(text):
        charset = _charset(match[1])
        octets = _octets(match[2], match[3]) if charset else None
        if charset and octets is not None:
            words.append(_Word(match[0], charset, octets))
            gaps.append(text[end : match.start()])
            end = match.end()
    return words, [*gaps, text[end:]]


def _runs(words: list[_Word], gaps: list[str]) -> list[list[_Word]]:
    runs = [words[:1]]
    for position, (before, word) in enumerate(pairwise(words), start=1):
        if before.charset == word.charset and _blank(gaps[position]):
            runs[-1].append(word)
        else:
            runs.append([word])
    return runs


def _decode_run(run: list[_Word]) -> list[str | None]:
    if len(run) > 1:
        whole = _text(b"".join(word.octets for word in run), run[0].charset)
        if whole is not None:
            return [whole, *[""] * (len(run) - 1)]
    return [_text(word.octets, word.charset) for word in run]


def _text(octets: bytes, charset: str) -> str | None:
    try:
        return octets.decode(charset)
    except UnicodeError:
        return None


def _octets(encoding: str, text: str) -> bytes | None:
    if not text.isascii():
        return None
    if encoding in "Qq":
        return binascii.a2b_qp(text, header=True) if _QUOTED_PRINTABLE.fullmatch(text) else None
    data = "".join(text.split())
    if not _BASE64.fullmatch(data):
        return None
    data = data.rstrip("=")
    return None if len(data) % 4 == 1 else binascii.a2b_base64(data + "=" * (-len(data) % 4))


def _charset(name: str) -> str | None:
    """The codec for a charset's name, without the language RFC 2231 §5 allows after it; None unless it is one that mail is written in."""
    plain = _SEPARATORS.sub("_", name.partition("*")[0].lower())
    codec = aliases.get(plain, plain)
    codec = _WIDER.get(plain) or _WIDER.get(codec) or codec
    return codec if codec in _CHARSETS else None


def _blank(gap: str) -> bool:
    return not gap or gap.isspace()
