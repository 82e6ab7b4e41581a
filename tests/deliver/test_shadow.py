"""The shadow beside the worker: what it judges, by which answers of functions; and that no trouble of its own reaches a message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from worker_bench import EVENT, FUNCTION, MESSAGE, REQUEST, S3, STOP, Bench, rule, rule_set

from inbound import mishap
from inbound.accept.spool import SpoolError, State, Tally
from inbound.accept.spool.memory import Fault
from inbound.accept.spool.replays import Replay
from inbound.decide import routes
from inbound.decide.engine import StopScope
from inbound.decide.session_bounce import Certain
from inbound.deliver import shadow as module
from inbound.deliver.shadow_state import ShadowState, ShadowStateError, read_state, read_trouble, write_state
from inbound.deliver.sinks import MessageFailed, MessageRefused
from inbound.log import silent

OTHER = {"S3Action": {"BucketName": "other"}}


class Tried(Bench):
    """A bench with a candidate beside its rules."""

    async def tries(self, *rules: dict[str, object], run: str = "run") -> None:
        assert self.shadow_state is not None
        file = self.shadow_state.with_name("candidate.yaml")
        file.write_text(json.dumps({"RuleSets": {"default": rules}}))
        write_state(self.shadow_state, ShadowState(run, str(file), file.read_text(), self.now))
        await self.shadow.look()
        assert self.shadow.candidate is not None
        assert self.shadow.candidate.rules == rule_set(*rules).rules

    async def tries_nothing(self, *rules: dict[str, object]) -> None:
        with pytest.raises(AssertionError):
            await self.tries(*rules)
        assert self.shadow.candidate is None

    async def counted(self, run: str = "run") -> list[Tally]:
        return [tally for tally in await self.spool.tallies(run) if tally.messages]

    async def only(self) -> Tally:
        (tally,) = await self.counted()
        return tally


@pytest.fixture
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tried]:
    async with Tried(*request.param, shadow=tmp_path / "shadow.json") as bench:
        yield bench
        await bench.shadow._leave()


def under(*rules: dict[str, object]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bench", [rules], indirect=True)


@under(rule("one", S3, STOP))
async def test_a_message_is_judged_when_all_is_done_and_the_candidate_acts_on_nothing(bench: Tried) -> None:
    await bench.send()
    await bench.tries(rule("one", OTHER, STOP))
    message = await bench.send()
    assert bench.aws.calls == ["s3:mail", "s3:mail"]
    tally = await bench.only()
    assert tally.messages == 1
    assert json.loads(tally.told)["added"] == [{"Rule": "one", "S3Action": {"BucketName": "other"}}]
    assert [entry.id for entry, _ in await bench.spool.counted("run", tally.revision, tally.kind, 9)] == [message]
    await bench.tries(rule("one", S3, STOP), run="next")
    await bench.send()
    (tally,) = await bench.counted("next")
    assert (tally.kind, tally.messages) == ("", 1)


@under(rule("one", S3))
async def test_a_dead_letter_is_judged_as_if_it_had_gone_on_and_once_only(bench: Tried) -> None:
    await bench.tries(rule("one", OTHER))
    bench.aws.faults["s3:mail"] = [MessageRefused("no")]
    message = await bench.send()
    assert await bench.state(message) is State.DEAD
    assert (await bench.only()).kind
    await bench.spool.retry([message], bench.now)
    assert (await bench.only()).messages == 1
    await bench.later(0)
    assert await bench.state(message) is State.DONE
    assert (await bench.only()).messages == 1


@under(rule("one", S3))
async def test_a_watch_that_failed_follows_the_candidate_again_when_it_begins_again(bench: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mishap, "AGAIN", 0.0)
    await bench.tries(rule("one", OTHER))
    troubles = [MemoryError()]

    async def follow(look: Callable[[], Awaitable[None]], *_: Path) -> None:
        if troubles:
            raise troubles.pop()
        await look()
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "follow", follow)
    watching = asyncio.create_task(mishap.keep_going(bench.shadow.watch, silent()))
    try:
        async with asyncio.timeout(5):
            while troubles or bench.shadow._following is None:  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0)
        assert bench.shadow.candidate is not None
    finally:
        watching.cancel()
        await asyncio.wait((watching,))
    await bench.send()
    assert (await bench.only()).messages == 1, "what is in hand at the end is still judged"


@under(rule("one", S3))
async def test_what_waits_is_not_judged_yet(bench: Tried) -> None:
    await bench.tries(rule("one", OTHER))
    bench.aws.faults["s3:mail"] = [MessageFailed("not now")]
    message = await bench.send()
    assert await bench.state(message) is State.DEFERRED
    assert not await bench.counted()
    await bench.later(900)
    assert (await bench.only()).messages == 1


@under(rule("one", REQUEST, S3))
@pytest.mark.parametrize("answer", ["CONTINUE", "STOP_RULE", "STOP_RULE_SET"])
async def test_a_function_answers_the_candidate_as_it_answered_the_message(bench: Tried, answer: str) -> None:
    """The same step by its record; a step of another place by the answer of the same function."""
    bench.aws.answers[FUNCTION] = lambda _: json.dumps({"disposition": answer}).encode()
    await bench.tries(rule("one", REQUEST, S3))
    await bench.send()
    assert (await bench.only()).kind == ""
    await bench.tries(rule("zero", REQUEST, S3), rule("one", OTHER), run="next")
    await bench.send()
    (tally,) = await bench.counted("next")
    told = json.loads(tally.told)
    added = [f"{step['Rule']} {next(key for key in step if key != 'Rule')}" for step in told["added"]]
    assert added == ["zero LambdaAction", *["zero S3Action"] * (answer == "CONTINUE"), *["one S3Action"] * (answer != "STOP_RULE_SET")]
    assert not [note for note in told["notes"] if "supposes" in note]


@under(rule("one", S3))
async def test_a_function_that_nobody_asked_is_supposed_to_let_go_on_and_that_is_told(bench: Tried) -> None:
    await bench.tries(rule("one", S3, REQUEST, EVENT))
    await bench.send()
    assert f"supposes that {FUNCTION} answers CONTINUE" in json.loads((await bench.only()).told)["notes"]
    assert bench.aws.calls == ["s3:mail"]


@under(rule("one", S3))
async def test_a_replay_is_no_message_that_was_received(bench: Tried) -> None:
    """What was counted of it when it was received stays."""
    await bench.tries(rule("one", OTHER))
    message = await bench.send()
    other = rule_set(rule("one", OTHER))
    assert await bench.spool.replay(message, bench.now, Replay(other.revision, other.text, content=MESSAGE))
    await bench.later(0)
    assert (await bench.state(message), len(bench.aws.calls)) == (State.DONE, 2)
    tally = await bench.only()
    assert (tally.messages, bool(tally.kind)) == (1, True)


@under(rule("one", S3))
async def test_a_candidate_that_is_stopped_judges_nothing_more(bench: Tried, tmp_path: Path) -> None:
    await bench.tries(rule("one", OTHER))
    await bench.send()
    state = read_state(tmp_path / "shadow.json")
    assert state is not None
    write_state(tmp_path / "shadow.json", replace(state, stopped=bench.now))
    await bench.shadow.look()
    await bench.send()
    assert (await bench.only()).messages == 1


@under(rule("one", S3))
async def test_a_bounce_that_is_said_in_the_session_is_a_recipient_refused(bench: Tried, tmp_path: Path) -> None:
    await bench.tries(rule("one", {"BounceAction": {"SmtpReplyCode": "550", "Message": "gone", "Sender": "p@example.com"}}))
    await bench.send()
    assert not [note for note in json.loads((await bench.only()).told)["notes"] if "refused" in note]
    bench.shadow._certain_of = lambda rules: Certain(rules, StopScope.RECIPIENTS)
    message = await bench.send()
    refusing = [tally for tally in await bench.counted() if "refused" in tally.told]
    assert json.loads(refusing[0].told)["notes"] == ["a recipient is refused: nothing but a rule's bounce would come of it"]
    ((entry, refused),) = await bench.spool.counted("run", refusing[0].revision, refusing[0].kind, 9)
    assert (entry.id, refused) == (message, ("u@example.com",))


@under(rule("one", S3))
async def test_a_candidate_that_cannot_be_read_for_a_reason_nobody_foresaw_stops_no_start(bench: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("inbound.decide.watch.parse", broken)
        await bench.tries_nothing(rule("one", OTHER))
    assert await bench.state(await bench.send()) is State.DONE


@under(rule("one", S3))
async def test_trouble_in_the_shadow_is_no_trouble_of_the_message(bench: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.tries(rule("one", OTHER))

    def broken(*_: object) -> routes.Route:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "route", broken)
    message = await bench.send()
    assert await bench.state(message) is State.DONE
    assert not await bench.counted()


@under(rule("one", S3))
async def test_a_spool_that_fails_for_a_while_loses_neither_message_nor_count(bench: Tried) -> None:
    await bench.tries(rule("one", OTHER))
    bench.spool.faults.update = Fault(SpoolError("disk"), times=2)
    message = await bench.send()
    assert await bench.state(message) is State.DONE
    assert (await bench.only()).messages == 1


@under(rule("one", S3))
async def test_without_a_candidate_nothing_is_routed_twice(bench: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(module, "route", lambda *given: asked.append(given))
    await bench.send()
    await bench.shadow.look()
    await bench.send()
    assert asked == []


@under(rule("one", S3))
async def test_a_start_without_the_file_goes_on_with_the_last_revision_then_with_the_text_of_the_beginning(bench: Tried, tmp_path: Path) -> None:
    await bench.tries(rule("one", OTHER))
    (tmp_path / "candidate.yaml").write_text(json.dumps({"RuleSets": {"default": [rule("two", OTHER)]}}))
    bench.now += 1
    await bench.tries(rule("two", OTHER))
    (tmp_path / "candidate.yaml").unlink()
    await bench.shadow._leave()
    await bench.crash()
    await bench.shadow.look()
    assert bench.shadow.candidate == rule_set(rule("two", OTHER))
    state = read_state(tmp_path / "shadow.json")
    assert state is not None
    write_state(tmp_path / "shadow.json", ShadowState("new run", state.file, state.text, bench.now))
    await bench.shadow.look()
    assert bench.shadow.candidate == rule_set(rule("two", OTHER)), "nothing was counted in this run, so its text is all there is"


@under(rule("one", S3))
async def test_what_keeps_the_service_from_the_file_is_left_for_the_command_which_may_see_another_one(bench: Tried, tmp_path: Path) -> None:
    path, candidate = tmp_path / "shadow.json", tmp_path / "candidate.yaml"
    write_state(path, ShadowState("run", str(candidate), '{"RuleSets": {"default": []}}', bench.now))
    await bench.shadow.look()
    assert read_trouble(path, "run") == f"{candidate}: no such file"
    assert read_trouble(path, "another run") == ""
    await bench.tries(rule("one", OTHER), run="another run")
    assert read_trouble(path, "another run") == read_trouble(path, "run") == "", "all is well"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 1}', '{"run": "a", "file": "b", "text": 7, "started": 1.0}', "\xff"])
@under(rule("one", S3))
async def test_a_damaged_state_file_is_told_of_and_stops_nothing(bench: Tried, tmp_path: Path, text: str) -> None:
    path = tmp_path / "shadow.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ShadowStateError, match=r"is damaged: begin anew with inbound shadow FILE"):
        read_state(path)
    await bench.shadow.look()
    assert await bench.state(await bench.send()) is State.DONE


def test_the_state_is_for_its_owner_only_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "shadow.json"
    assert read_state(path) is None
    state = ShadowState("run", "/etc/rules.yaml", "text", 1.5)
    write_state(path, state)
    assert read_state(path) == state
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["shadow.json"]
