"""The actions are found by lying in their folder."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator

import pytest

from inbound.decide.rules import S3
from inbound.deliver import actions


@pytest.fixture(autouse=True)
def as_at_start() -> Iterator[None]:
    actions.known.cache_clear()
    yield
    actions.known.cache_clear()


def test_a_folder_that_could_not_be_read_once_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without_descriptors:
        without_descriptors.setattr(pkgutil, "iter_modules", lambda _: iter(()))
        with pytest.raises(RuntimeError, match="no actions are found"):
            actions.known()
    assert S3 in actions.known()
