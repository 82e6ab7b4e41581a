"""Spam: rspamd is asked over HTTP (POST /checkv2), the message streamed to it with what the session told.

https://docs.rspamd.com/developers/protocol/ names the request's header fields and the actions of the answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp

from inbound.accept.envelope import Envelope
from inbound.accept.spool import Content
from inbound.assess.scanning import ScannerDown, pieces
from inbound.assess.verdicts import Status, Verdict

_ANSWER_LIMIT = 1024 * 1024  # octets
_SYMBOLS_SHOWN = 8
_MESSAGE_REFUSED = frozenset({400, 413})
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_STATUS = {
    "no action": Status.PASS,
    "greylist": Status.GRAY,
    "soft reject": Status.GRAY,
    "add header": Status.FAIL,
    "rewrite subject": Status.FAIL,
    "reject": Status.FAIL,
    "quarantine": Status.FAIL,
    "discard": Status.FAIL,
}


class Rspamd:
    """rspamd's normal worker at `url`; an answer may take `timeout` seconds.

    A message of more than `limit` octets is not sent: rspamd closes the connection, as if it were down, on more than its max_message.
    """

    def __init__(self, url: str, *, limit: int, timeout: float) -> None:
        self._url = url.rstrip("/") + "/checkv2"
        self._limit = limit
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self.name = f"rspamd:{url.partition('://')[2].rstrip('/')}"

    async def scan(self, envelope: Envelope, content: Content) -> Verdict:
        """PASS, GRAY or FAIL by rspamd's action; PROCESSING_FAILED for a message that it will not take. Raises ScannerDown."""
        if content.size > self._limit:
            return Verdict(Status.PROCESSING_FAILED, f"not scanned: it has {content.size} octets, and rspamd gets {self._limit} at most")
        headers = [*_facts(envelope).items(), ("Content-Length", str(content.size))]
        told = [("Rcpt", _word(path)) for path in envelope.forward_paths]
        try:
            async with asyncio.timeout(self._timeout), self._client().post(self._url, data=pieces(content), headers=[*headers, *told]) as response:
                return _verdict(response.status, await _body(response))
        except TimeoutError:
            raise ScannerDown(f"no answer in {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ScannerDown(str(error) or type(error).__name__) from None

    async def close(self) -> None:
        """Close the connections that are kept for the next message."""
        if self._session:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, raise_for_status=False)
        return self._session


def _facts(envelope: Envelope) -> dict[str, str]:
    """The session in rspamd's words; what is not known is not said."""
    peer = envelope.peer
    tls = {"TLS-Version": envelope.tls.version, "TLS-Cipher": envelope.tls.cipher} if envelope.tls else {}
    told = {"IP": peer.address, "Hostname": peer.reverse_name, "Helo": envelope.helo, "From": envelope.reverse_path or "<>",
            "Queue-Id": envelope.message_id, **tls}
    return {name: _word(value) for name, value in told.items() if value}


def _word(text: str) -> str:
    return _UNFIT.sub("?", text)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The answer, or ValueError for one that is no answer of rspamd's by its length."""
    octets = bytearray()
    async for piece in response.content.iter_chunked(65_536):
        octets += piece
        if len(octets) > _ANSWER_LIMIT:
            raise ValueError("the answer does not end")
    return bytes(octets)


def _verdict(status: int, body: bytes) -> Verdict:
    """Raises ValueError for what rspamd would not say."""
    if status in _MESSAGE_REFUSED:
        return Verdict(Status.PROCESSING_FAILED, f"rspamd would not take the message: HTTP {status}")
    if status != 200:
        raise ValueError(f"rspamd answers HTTP {status}")
    told = json.loads(body)
    if not isinstance(told, dict) or not isinstance(told.get("action"), str):
        raise ValueError("the answer is not rspamd's")
    action = told["action"]
    return Verdict(_STATUS.get(action, Status.GRAY), f"rspamd: {action}{_score(told)}{_symbols(told)}")


def _score(told: dict[str, Any]) -> str:
    score, required = told.get("score"), told.get("required_score")
    return f", score {score:.1f} of {required:.1f}" if isinstance(score, int | float) and isinstance(required, int | float) else ""


def _symbols(told: dict[str, Any]) -> str:
    """The names of what weighed most, the heaviest first."""
    found = told.get("symbols")
    weights = {str(name): each["score"] for name, each in found.items()
               if isinstance(each, dict) and isinstance(each.get("score"), int | float) and each["score"]} if isinstance(found, dict) else {}
    heaviest = sorted(weights, key=lambda name: -abs(weights[name]))[:_SYMBOLS_SHOWN]
    return f" ({', '.join(name[:40] for name in heaviest)})" if heaviest else ""
