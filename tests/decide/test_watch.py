"""Hot reload, by what people and Kubernetes do to files. Nothing sleeps: each test waits for the event it causes, or for a later one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import inbound.changes
from inbound.changes import way_to
from inbound.decide.load import Loaded, Problem, RulesError, RulesUnreadableError
from inbound.decide.watch import RuleBook


def rules(name: str) -> str:
    return f"Identities: [example.com]\nRuleSets:\n  {name}:\n    - Name: everything\n      Actions: [{{StopAction: {{Scope: RuleSet}}}}]\n"


BROKEN = "Identities: [example.com\n"


class Looking(RuleBook):
    """Counts the looks at the file, so that a test can wait for one that tells nothing."""

    looks: asyncio.Queue[None]

    async def refresh(self) -> None:
        await super().refresh()
        await self.looks.put(None)


class Book:
    """A rule book that is being watched, and what it told."""

    def __init__(self, path: Path) -> None:
        self.told: asyncio.Queue[str | RulesError] = asyncio.Queue()
        self.refuse: Exception | None = None
        self.during: list[str | None] = []
        self.book = Looking(path, on_load=self._load, on_error=self._error)
        self.book.looks = asyncio.Queue()

    async def _load(self, loaded: Loaded) -> None:
        if self.refuse is not None:
            raise self.refuse
        with contextlib.suppress(RuntimeError):
            self.during.append(self.book.current.rule_set.name)
        await self.told.put(str(loaded.rule_set.name))

    async def _error(self, error: RulesError) -> None:
        await self.told.put(error)

    async def loaded(self) -> str:
        """The name of the set in the next revision taken into use."""
        told = await asyncio.wait_for(self.told.get(), 10)
        assert isinstance(told, str), told
        assert self.book.current.rule_set.name == told
        return told

    async def looked(self) -> None:
        """The next look at the file is over."""
        await asyncio.wait_for(self.book.looks.get(), 10)

    async def failed(self) -> str:
        """The next error told."""
        told = await asyncio.wait_for(self.told.get(), 10)
        assert isinstance(told, RulesError), told
        return str(told)


@contextlib.asynccontextmanager
async def watched(path: Path) -> AsyncIterator[Book]:
    book = Book(path)
    await book.book.read()
    await book.book.adopt()
    assert await book.loaded() == "first"
    task = asyncio.create_task(book.book.watch())
    await book.looked()
    try:
        yield book
        assert not task.done(), task.result()
        assert book.told.empty(), book.told.get_nowait()
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    path = folder / "rules.yaml"
    path.write_text(rules("first"))
    return path


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def rename_over(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def editor_backup(path: Path, text: str) -> None:
    path.rename(path.with_suffix(".yaml~"))
    path.write_text(text)


def folder_replaced(path: Path, text: str) -> None:
    new = path.parent.with_suffix(".new")
    new.mkdir()
    (new / path.name).write_text(text)
    path.parent.rename(path.parent.with_suffix(f".{len(list(path.parent.parent.iterdir()))}"))
    new.rename(path.parent)


@pytest.mark.parametrize("change", [in_place, rename_over, folder_replaced])
async def test_a_changed_file_is_reloaded_every_time(path: Path, change: Callable[[Path, str], None]) -> None:
    async with watched(path) as book:
        for name in ("second", "third", "fourth"):
            change(path, rules(name))
            told = await book.told.get()
            if isinstance(told, RulesUnreadableError):  # between the two renames there was no file
                told = await book.told.get()
            assert told == name
        in_place(path, rules("last"))
        assert await book.loaded() == "last"


async def test_an_editor_that_renames_the_old_file_away(path: Path) -> None:
    async with watched(path) as book:
        editor_backup(path, rules("second"))
        told = await book.told.get()
        if isinstance(told, RulesUnreadableError):
            told = await book.told.get()
        assert told == "second"


def delete(path: Path) -> None:
    path.rmdir() if path.is_dir() else path.unlink()


def touch(path: Path) -> None:
    path.touch()


def make_folder(path: Path) -> None:
    path.mkdir()


def kubernetes(folder: Path, version: str, text: str) -> None:
    """What the kubelet does: a new folder, `..data_tmp` to it, renamed over `..data`; the old folder removed."""
    (folder / version).mkdir()
    (folder / version / "rules.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(version)
    old = (folder / "..data").readlink() if (folder / "..data").is_symlink() else None
    (folder / "..data_tmp").rename(folder / "..data")
    if old is not None:
        (folder / old / "rules.yaml").unlink()
        (folder / old).rmdir()


async def test_kubernetes_swaps_its_data_symlink(tmp_path: Path) -> None:
    kubernetes(tmp_path, "..2026_01", rules("first"))
    (tmp_path / "rules.yaml").symlink_to("..data/rules.yaml")
    async with watched(tmp_path / "rules.yaml") as book:
        for number in range(2, 6):
            kubernetes(tmp_path, f"..2026_0{number}", rules(f"set{number}"))
            assert await book.loaded() == f"set{number}"


async def test_the_target_of_a_symlink_elsewhere_changes(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "elsewhere" / "rules.yaml"
    link.parent.mkdir()
    link.symlink_to(path)
    async with watched(link) as book:
        in_place(path, rules("second"))
        assert await book.loaded() == "second"
        rename_over(path, rules("third"))
        assert await book.loaded() == "third"


async def test_a_symlink_in_the_folders_is_turned(tmp_path: Path) -> None:
    for release in ("first", "second"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "rules.yaml").write_text(rules(release))
    (tmp_path / "current").symlink_to(tmp_path / "first")
    async with watched(tmp_path / "current" / ".." / "current" / "rules.yaml") as book:
        (tmp_path / "new").symlink_to(tmp_path / "second")
        (tmp_path / "new").rename(tmp_path / "current")
        assert await book.loaded() == "second"
        in_place(tmp_path / "second" / "rules.yaml", rules("third"))
        assert await book.loaded() == "third"


async def test_deleted_and_created_anew(path: Path) -> None:
    async with watched(path) as book:
        delete(path)
        assert await book.failed() == f"{path}: no such file"
        assert book.book.current.rule_set.name == "first"
        in_place(path, rules("second"))
        assert await book.loaded() == "second"


async def test_the_folder_deleted_and_created_anew(path: Path) -> None:
    async with watched(path) as book:
        delete(path)
        delete(path.parent)
        assert await book.failed() == f"{path}: no such file"
        make_folder(path.parent)
        rename_over(path, rules("second"))
        assert await book.loaded() == "second"
        in_place(path, rules("third"))
        assert await book.loaded() == "third"


async def test_a_folder_that_comes_back_with_the_inode_it_had_is_watched_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems give the number of what was deleted to what is made next."""
    monkeypatch.setattr(inbound.changes, "_identity", lambda entry: (1, 1) if os.path.lexists(entry) else None)
    async with watched(path) as book:
        delete(path)
        delete(path.parent)
        make_folder(path.parent)
        rename_over(path, rules("second"))
        assert await book.loaded() == "second"
        in_place(path, rules("third"))
        assert await book.loaded() == "third"


async def test_a_broken_file_changes_nothing_is_told_once_and_heals(path: Path) -> None:
    async with watched(path) as book:
        first = book.book.current
        in_place(path, BROKEN)
        assert await book.failed() == f"{path}:2:1: not YAML: ',' or ']' is missing (in what begins at line 1)"
        assert book.book.current is first
        touch(path)
        await book.looked()
        rename_over(path, BROKEN)
        await book.looked()
        in_place(path, BROKEN.replace("[", "{"))
        assert await book.failed() == f"{path}:2:1: not YAML: ',' or '}}' is missing (in what begins at line 1)"
        assert book.book.current is first
        in_place(path, rules("first"))
        assert await book.loaded() == "first"


async def test_a_broken_file_that_breaks_again_after_it_healed_is_told_again(path: Path) -> None:
    async with watched(path) as book:
        for _ in range(2):
            in_place(path, BROKEN)
            await book.failed()
            in_place(path, rules("first"))
            await book.loaded()


async def test_the_same_content_is_no_event(path: Path) -> None:
    async with watched(path) as book:
        touch(path)
        await book.looked()
        rename_over(path, rules("first"))
        await book.looked()
        in_place(path, rules("second"))
        assert await book.loaded() == "second"


@pytest.mark.parametrize("refusal", [ValueError("bucket mail cannot be created"), RulesError([Problem("x", 0, 0, "no")])])
async def test_a_revision_may_be_refused_and_is_tried_again_at_the_next_change(path: Path, refusal: Exception) -> None:
    async with watched(path) as book:
        book.refuse = refusal
        in_place(path, rules("second"))
        assert await book.failed() in (f"{path}: not taken into use: bucket mail cannot be created", "x: no")
        assert book.book.current.rule_set.name == "first"
        await book.looked()
        touch(path)  # refused again, and told once
        await book.looked()
        book.refuse = None
        touch(path)
        assert await book.loaded() == "second"


async def test_the_caller_is_asked_before_the_swap(path: Path) -> None:
    async with watched(path) as book:
        in_place(path, rules("second"))
        await book.loaded()
        assert book.during == ["first"]


async def test_a_fifo_a_folder_and_a_loop_in_its_place_do_not_block(path: Path) -> None:
    async with watched(path) as book:
        delete(path)
        os.mkfifo(path.with_suffix(".fifo"))
        path.with_suffix(".fifo").rename(path)
        told = await book.failed()
        if told.endswith("no such file"):
            told = await book.failed()
        assert told == f"{path}: is not a regular file"
        path.with_suffix(".loop").symlink_to(path)
        path.with_suffix(".loop").rename(path)
        assert await book.failed() == f"{path}: is a symbolic link that leads back to itself"
        delete(path)
        make_folder(path)
        told = await book.failed()
        if told.endswith("no such file"):
            told = await book.failed()
        assert told == f"{path}: is a directory"
        delete(path)
        assert await book.failed() == f"{path}: no such file"
        in_place(path, rules("second"))
        assert await book.loaded() == "second"


async def test_a_change_before_the_watch_stands_is_not_lost(path: Path) -> None:
    book = Book(path)
    await book.book.read()
    await book.book.adopt()
    assert await book.loaded() == "first"
    in_place(path, rules("second"))
    task = asyncio.create_task(book.book.watch())
    assert await book.loaded() == "second"
    task.cancel()
    await asyncio.wait([task])


async def test_a_file_changed_by_another_name_of_it(tmp_path: Path, path: Path) -> None:
    """As with a file that is mounted alone into a container: its folder sees nothing."""
    other = tmp_path / "other.yaml"
    os.link(path, other)
    async with watched(path) as book:
        in_place(other, rules("second"))
        assert await book.loaded() == "second"


async def test_the_watch_stands_before_the_first_look(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    async def stands(*_paths: str, **_options: object) -> AsyncIterator[set[object]]:
        done.append("watches")
        await asyncio.Event().wait()
        yield set()

    class Noting(RuleBook):
        async def refresh(self) -> None:
            done.append("looks")
            looked.set()

    looked = asyncio.Event()
    monkeypatch.setattr(inbound.changes, "awatch", stands)
    book = Book(path)
    task = asyncio.create_task(Noting(path, on_load=book._load, on_error=book._error).watch())
    await asyncio.wait_for(looked.wait(), 10)
    assert done == ["watches", "looks"]
    task.cancel()
    await asyncio.wait([task])


async def test_a_folder_that_goes_away_while_the_watch_is_set_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = inbound.changes.awatch
    watches = 0

    def gone_at_first(*paths: str, **options: object) -> object:
        nonlocal watches
        watches += 1
        if watches == 1:
            raise FileNotFoundError
        return real(*paths, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(inbound.changes, "awatch", gone_at_first)
    async with watched(path) as book:
        rename_over(path, rules("second"))
        assert await book.loaded() == "second"
    assert watches >= 2, "it is watched, not polled"


async def test_where_the_system_cannot_watch_files_are_polled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more_watches(*_paths: str, **_options: object) -> object:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(inbound.changes, "awatch", no_more_watches)
    async with watched(path) as book:
        rename_over(path, rules("second"))
        assert await book.loaded() == "second"


async def test_broken_at_the_start_is_the_callers_to_deal_with(path: Path) -> None:
    in_place(path, BROKEN)
    book = Book(path)
    with pytest.raises(RulesError):
        await book.book.read()
    with pytest.raises(RuntimeError):
        _ = book.book.current


async def test_what_requires_tls_is_refused_without_a_certificate(path: Path) -> None:
    in_place(path, rules("first").replace("Actions", "TlsPolicy: Require\n      Actions"))

    async def never(_: object) -> None:
        raise AssertionError

    with pytest.raises(RulesError, match="needs a certificate"):
        await RuleBook(path, on_load=never, on_error=never, tls=False).read()


async def test_what_bounces_is_refused_without_a_smarthost_at_the_start_and_later(path: Path) -> None:
    bounces = rules("second").replace("StopAction: {Scope: RuleSet}", "BounceAction: {SmtpReplyCode: 550, Message: gone, Sender: a@example.com}")
    loaded: list[str] = []
    refused: list[str] = []

    async def load(found: Loaded) -> None:
        loaded.append(found.rule_set.name or "")

    async def refuse(error: RulesError) -> None:
        refused.append(str(error))

    book = RuleBook(path, on_load=load, on_error=refuse, smarthost=False)
    in_place(path, rules("first"))
    await book.read()
    await book.adopt()
    in_place(path, bounces)
    await book.refresh()
    assert loaded == ["first"]
    assert ["BounceAction: needs a server to send bounces through" in error for error in refused] == [True]
    with pytest.raises(RulesError, match="needs a server"):
        await RuleBook(path, on_load=load, on_error=refuse, smarthost=False).read()


def test_no_thread_outlives_the_watch(path: Path) -> None:
    before = set(threading.enumerate())

    async def run() -> None:
        async with watched(path) as book:
            in_place(path, rules("second"))
            assert await book.loaded() == "second"

    asyncio.run(run())
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread


def test_the_way_to_a_file_names_every_entry(tmp_path: Path) -> None:
    tmp_path = tmp_path.resolve()
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "rules.yaml").touch()
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "rules.yaml").symlink_to("..data/rules.yaml")
    names = [name for name, _ in way_to(tmp_path / "rules.yaml")]
    assert names[-4:] == [str(tmp_path / part) for part in ("rules.yaml", "..data", "..1", "..1/rules.yaml")]


def test_a_way_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert {Path(name).name for name, _ in way_to(tmp_path / "a")} >= {"a", "b"}
