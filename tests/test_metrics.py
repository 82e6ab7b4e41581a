"""The closed list of metrics, and that numbers of several processes add up to what one would have counted."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound import metrics
from inbound.metrics import ALL, COMMITS, DEAD, DISK_FREE, ENTRIES, QUEUE_AGE, REFUSED, SESSIONS, STEP_SECONDS, STEPS, Kind, Metrics, merge

PACKAGE = Path(metrics.__file__).parent


def test_names_are_as_prometheus_wants_them() -> None:
    for name, metric in ALL.items():
        assert re.fullmatch(r"inbound_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") is (metric.kind is Kind.COUNTER), name
        assert metric.help.endswith("."), name
        assert bool(metric.buckets) is (metric.kind is Kind.HISTOGRAM), name
        assert list(metric.buckets) == sorted(set(metric.buckets)), name
        assert all(re.fullmatch("[a-z]+", label) and label not in ("le", "quantile") for label in metric.labels), name


def test_no_label_could_hold_what_a_stranger_says() -> None:
    assert {label for metric in ALL.values() for label in metric.labels} == {
        "action", "channel", "code", "disposition", "kind", "outcome", "part", "reason", "rule", "sink", "state", "status", "verdict"}


def uses() -> set[str]:
    """The names of `inbound.metrics` that other modules hold."""
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py") if path.name != "metrics.py"]
    return {alias.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "inbound.metrics"
            for alias in node.names}


def test_every_metric_of_the_list_is_counted_somewhere() -> None:
    listed = {name for name, value in vars(metrics).items() if isinstance(value, metrics.Metric)}
    assert len(listed) == len(ALL)
    assert listed - uses() == set()


def test_counters_without_labels_begin_at_nought_so_that_their_first_increase_is_seen() -> None:
    assert Metrics().snapshot()["inbound_dead_letters_total"] == [[[], 0]]


def test_a_histogram_counts_a_value_into_the_first_bucket_that_holds_it() -> None:
    one = Metrics()
    for value in (0.0005, 0.00051, 60, 61):
        one.observe(COMMITS, value)
    *counts, total = one.get(COMMITS)
    assert (counts[0], counts[1], counts[-2], counts[-1]) == (1, 1, 1, 1)
    assert total == pytest.approx(121.00101)


def test_a_snapshot_does_not_change_when_counting_goes_on() -> None:
    one = Metrics()
    one.observe(COMMITS, 1)
    one.count(DEAD)
    before = one.snapshot()
    kept = json.dumps(before)
    one.observe(COMMITS, 1)
    one.count(DEAD)
    assert json.dumps(before) == kept


def test_gauges_add_up_or_the_worst_of_them_counts() -> None:
    numbers = []
    for sessions, free, age in ((3, 100, 5), (4, 50, 60)):
        one = Metrics()
        one.put(SESSIONS, sessions)
        one.put(DISK_FREE, free)
        one.replace(QUEUE_AGE, {("s3:mail",): age, (f"s3:{age}",): age})
        numbers.append(one.snapshot())
    found = merge(numbers)
    assert found["inbound_sessions"] == [[[], 7]]
    assert found["inbound_disk_free_bytes"] == [[[], 50]]
    assert sorted(found["inbound_queue_oldest_seconds"]) == [[["s3:5"], 5], [["s3:60"], 60], [["s3:mail"], 60]]


def test_a_replaced_gauge_forgets_what_is_not_named() -> None:
    one = Metrics()
    one.replace(ENTRIES, {("dead",): 3})
    one.replace(ENTRIES, {("done",): 1})
    assert one.snapshot()["inbound_spool_messages"] == [[["done"], 1]]


def test_rules_that_left_the_rule_file_are_forgotten_so_that_a_file_that_is_generated_anew_fills_no_memory() -> None:
    one = Metrics()
    for number in range(10_000):
        one.forget("rule", {f"r{number}", "stays"})
        for rule in (f"r{number}", "stays"):
            one.count(STEPS, rule, "S3", "action", "success")
            one.observe(STEP_SECONDS, 0.1, rule, "S3", "action")
    found = one.snapshot()
    assert sorted(found["inbound_actions_total"]) == [[["r9999", "S3", "action", "success"], 1], [["stays", "S3", "action", "success"], 10_000]]
    assert len(found["inbound_action_seconds"]) == 2


def test_the_numbers_of_another_version_are_left_out() -> None:
    assert merge([{"inbound_of_tomorrow_total": [[[], 1]]}]) == {}


Counted = st.lists(st.tuples(st.sampled_from(["a", "b", "ü\n\""]), st.sampled_from(["450", "550"]), st.floats(0, 100)))


@given(st.lists(Counted, max_size=4))
def test_what_processes_count_adds_up_to_what_one_would_have_counted(processes: list[list[tuple[str, str, float]]]) -> None:
    together, snapshots = Metrics(), []
    for counted in processes:
        one = Metrics()
        for reason, code, seconds in counted:
            for each in (one, together):
                each.count(REFUSED, reason, code)
                each.observe(COMMITS, seconds)
        snapshots.append(json.loads(json.dumps(one.snapshot())))
    found, expected = merge(snapshots), together.snapshot()
    assert sorted(found.get("inbound_refusals_total", [])) == sorted(expected.get("inbound_refusals_total", []))
    for (_, ours), (_, theirs) in zip(found.get("inbound_commit_seconds", []), expected.get("inbound_commit_seconds", []), strict=True):
        assert ours[:-1] == theirs[:-1]
        assert ours[-1] == pytest.approx(theirs[-1])
