"""The reserve of memory: given up once, had again as far as there is room, and mail is taken again in any case."""

from __future__ import annotations

import mmap

import pytest

from inbound.memory import CALM, LEAST, RESERVE, Reserve


class Clock:
    """Seconds that tests choose."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Room:
    """Stands in for the address space: a mapping of more than `octets` fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.octets = 1 << 40
        self._real = mmap.mmap
        monkeypatch.setattr("inbound.memory.mmap.mmap", self._map)

    def _map(self, fd: int, length: int, **options: int) -> mmap.mmap:
        if length > self.octets:
            raise OSError(12, "Cannot allocate memory")
        return self._real(fd, length, **options)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


def test_it_is_given_up_at_the_first_sign_and_told_of_once() -> None:
    reserve, told = Reserve(), []
    reserve.on_short = (lambda: told.append("a"), lambda: told.append("b"))
    assert (reserve.octets, reserve.is_short) == (RESERVE, False)
    reserve.note(OSError(12, "of another kind"))
    assert (reserve.octets, told) == (RESERVE, [])
    reserve.note(MemoryError())
    reserve.spend()
    assert (reserve.octets, reserve.is_short, told) == (0, True, ["a", "b"])


def test_a_sign_among_the_troubles_of_a_group_is_one() -> None:
    reserve = Reserve()
    reserve.note(ExceptionGroup("of a watch", [ValueError("odd")]))
    assert not reserve.is_short
    reserve.note(ExceptionGroup("of a watch", [ValueError("odd"), MemoryError()]))
    assert reserve.is_short


def test_who_is_told_may_be_out_of_memory_too() -> None:
    def starve() -> None:
        raise MemoryError

    reserve, told = Reserve(), []
    reserve.on_short = (starve, lambda: told.append("b"))
    reserve.spend()
    assert told == ["b"]


def test_it_is_had_again_as_far_as_there_is_room(room: Room) -> None:
    reserve = Reserve()
    reserve.spend()
    room.octets = LEAST - 1
    reserve.renew()
    assert (reserve.octets, reserve.is_short) == (0, True)
    room.octets = 3 * LEAST
    reserve.renew()
    assert (reserve.octets, reserve.is_short) == (2 * LEAST, False)
    room.octets = RESERVE
    reserve.renew()
    assert reserve.octets == RESERVE


def test_without_room_mail_is_taken_again_after_a_calm(room: Room) -> None:
    """The allocator keeps what was freed: it is room for messages, and none for a mapping."""
    clock = Clock()
    reserve = Reserve(clock=clock)
    reserve.spend()
    room.octets = 0
    clock.now += CALM
    reserve.renew()
    assert reserve.is_short
    reserve.spend()  # another sign: the calm begins anew
    clock.now += CALM + 0.1
    reserve.renew()
    assert not reserve.is_short
