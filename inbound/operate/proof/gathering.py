"""From files to cases: messages and JSON are told apart, and what SES told of one message is put beside the object that it stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from inbound.operate.proof import stored, told
from inbound.operate.proof.judging import Case
from inbound.operate.proof.sources import Item, Source, SourceError
from inbound.operate.proof.stored import NotStored
from inbound.operate.proof.told import Told

SETUP = "AMAZON_SES_SETUP_NOTIFICATION"
Skip = Callable[[str, str], None]


class Gathering:
    """Makes cases of what is fetched. `skip` hears of what is none: where it is, and why."""

    def __init__(self, skip: Skip) -> None:
        self._skip = skip
        self._told: dict[str, list[Told]] = {}

    async def cases(self, source: Source, item: Item) -> list[Case]:
        """The cases in one file or object. JSON without the message waits for its message, so JSON is to come first."""
        try:
            octets = await source.fetch(item)
        except SourceError as error:
            self._skip(item.where, str(error))
            return []
        if item.key.rpartition("/")[2] == SETUP:
            self._skip(item.where, "the setup notification of SES")
            return []
        if item.json or octets.lstrip()[:1] in (b"{", b"["):
            return self._read_json(octets, item)
        case = self._case(octets, item.where, (), key=item.key)
        return [] if case is None else [case]

    def rest(self) -> None:
        """Tell of what waits in vain, once everything was there."""
        for waiting in self._told.values():
            for each in waiting:
                self._skip(each.where, "JSON without the message, whose object is not here")

    def _read_json(self, octets: bytes, item: Item) -> list[Case]:
        try:
            found = told.read(octets.decode("utf-8-sig"), item.where)
        except ValueError:
            self._skip(item.where, "begins like JSON, and is not")
            return []
        if not found:
            self._skip(item.where, "JSON without a notification or event of SES")
        return list(self._with_content(found))

    def _with_content(self, found: Sequence[Told]) -> Iterator[Case]:
        for each in found:
            content = each.content
            if each.message_id == SETUP:
                self._skip(each.where, "the setup notification of SES")
            elif content is None:
                self._told.setdefault(each.message_id, []).append(each)
            elif (case := self._case(content, each.where, [each])) is not None:
                yield case

    def _case(self, octets: bytes, where: str, beside: Sequence[Told], *, key: str = "") -> Case | None:
        wire = octets if b"\r\n" in octets else octets.replace(b"\n", b"\r\n")
        try:
            found = stored.read(wire)
        except NotStored as error:
            self._skip(where, str(error))
            return None
        everything = [*beside, *(self._told.pop(found.id, ()) if key else ())]
        return Case(where, _with_recipients(found, everything), everything, key)


def _with_recipients(found: stored.Stored, beside: Sequence[Told]) -> stored.Stored:
    """The recipients that JSON tells, which Received does not when there were several."""
    recipients = dict.fromkeys(each for one in beside for each in one.recipients)
    if not found.envelope.forward_paths and len(recipients) > 1:
        return replace(found, envelope=replace(found.envelope, forward_paths=tuple(recipients)))
    return found
