"""deploy/prometheus and deploy/grafana: rules that fire when they should, panels that Grafana can read, and no metric that nobody counts."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import needs, needs_module

from inbound.metrics import ALL, Kind, Labels
from inbound.operate.metrics import BUILD
from inbound.settings import Settings

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "inbound.rules.yaml"
RULES_TEST = ROOT / "tests" / "prometheus" / "rules_test.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "inbound.json"
OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}  # Prometheus' own, and those of its client


def alerts() -> list[dict[str, Any]]:
    """The alert rules."""
    found: list[dict[str, Any]] = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return found


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Every PromQL expression of both."""
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    yield from (re.sub(r"label_values\((\w+),.*", r"\1", variable["query"]) for variable in dashboard()["templating"]["list"]
                if variable["type"] == "query")


def series() -> dict[str, Labels]:
    """The name of every series that can be asked for, with its labels."""
    found: dict[str, Labels] = {BUILD: ("version", "python")}
    for name, metric in ALL.items():
        if metric.kind is Kind.HISTOGRAM:
            found |= {f"{name}_bucket": (*metric.labels, "le"), f"{name}_sum": metric.labels, f"{name}_count": metric.labels}
        else:
            found[name] = metric.labels
    return found


def checked(*command: str) -> None:
    """Run a tool at the top of the repository; its words are the failure."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def promtool() -> str:
    return needs("promtool", why="Debian's package prometheus")


def test_promtool_takes_the_rules() -> None:
    checked(promtool(), "check", "rules", str(RULES))


def test_each_alert_fires_when_it_should_and_none_when_all_is_well() -> None:
    checked(promtool(), "test", "rules", str(RULES_TEST))
    tested = set(re.findall(r'alertname="(\w+)"', RULES_TEST.read_text()))
    assert tested == {rule["alert"] for rule in alerts()}


def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    asked = [expression.replace("$__rate_interval", "5m").replace("$instance", "mx") for expression in expressions()]
    rules = [{"record": f"asked:{number}", "expr": expression} for number, expression in enumerate(asked)]
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    checked(promtool(), "check", "rules", str(tmp_path / "asked.yaml"))


def test_rules_and_dashboard_ask_only_for_what_is_counted_by_labels_that_it_has() -> None:
    known = series()
    for expression in expressions():
        bare = re.sub(r'"[^"]*"', '""', expression)
        names = set(re.findall(r"\b(?:inbound|process)_\w+|\bup\b", bare))
        assert names, expression
        assert names - OTHERS <= set(known), expression
        for name, inner in re.findall(r"(inbound_\w+)\{([^}]*)\}", bare):
            assert set(re.findall(r"(\w+)\s*[!=]", inner)) <= {*known[name], "instance", "job"}, expression
        for grouped in re.findall(r"\b(?:by|without) \(([^)]*)\)", bare):
            labels = {label.strip() for label in grouped.split(",")}
            assert labels <= {"instance", *(label for name in names & set(known) for label in known[name])}, expression


def test_every_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    text = " ".join(expressions())
    assert [name for name in ALL if name not in text] == []


def test_legends_and_words_of_alerts_name_labels_that_are_there() -> None:
    for panel in panels():
        for target in panel["targets"]:
            grouped = {label.strip() for found in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in found.split(",")} | {"instance"}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped, panel["title"]
    for rule in alerts():
        known = {label for name in re.findall(r"inbound_\w+", rule["expr"]) for label in series()[name]} | {"instance"}
        words = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", words)) <= known, rule["alert"]
        assert set(re.findall(r"INBOUND_(\w+)", words)) <= {name.upper() for name in Settings.model_fields}, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "warning")


def test_grafana_knows_every_key_of_the_dashboard() -> None:
    """Its own models, made from its schema, keep all that they know: what is lost on the way through them is no key of Grafana's."""
    models = needs_module("grafana_foundation_sdk.models.dashboard")
    encoder = needs_module("grafana_foundation_sdk.cog.encoder")
    told = dashboard()
    assert json.loads(json.dumps(models.Dashboard.from_json(told), cls=encoder.JSONEncoder)) == Superset(told)


class Superset:
    """Equal to whatever holds at least this."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def __repr__(self) -> str:
        return f"at least {self.part!r}"

    def __eq__(self, whole: object) -> bool:
        return holds(whole, self.part)

    def __hash__(self) -> int:
        return 0


def holds(whole: Any, part: Any) -> bool:
    """Is the part in the whole, whatever else is?"""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and holds(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(holds, whole, part))
    return bool(whole == part)


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    everything = dashboard()["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_asks_the_chosen_data_source(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
