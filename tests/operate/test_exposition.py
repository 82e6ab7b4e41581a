"""The numbers as Prometheus reads them, read by its own parsers."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

from inbound import __version__
from inbound.metrics import ALL, COMMITS, DEAD, STEPS, Kind, Metrics
from inbound.operate.metrics import BUILD, render

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
RULE = 'q"uo\\te\nnew'


def counted() -> Metrics:
    numbers = Metrics()
    numbers.count(STEPS, RULE, "S3", "action", "success", by=3)
    numbers.count(DEAD)
    for seconds in (0.0003, 0.002, 0.0021, 100):
        numbers.observe(COMMITS, seconds)
    return numbers


def test_every_metric_is_there_with_its_type_and_help_even_before_anything_was_counted() -> None:
    body, content_type = render({})
    assert content_type.startswith("text/plain; version=0.0.4")
    found = {family.name: family for family in classic(body.decode())}
    for name, metric in ALL.items():
        kind = metric.kind if metric.kind in (Kind.COUNTER, Kind.HISTOGRAM) else "gauge"
        family = found[name.removesuffix("_total") if kind == "counter" else name]
        assert (family.type, family.documentation) == (kind, metric.help)
    assert found[BUILD].samples[0].labels["version"] == __version__
    assert found["process_resident_memory_bytes"].samples[0].value > 1e6


def test_both_formats_tell_the_same() -> None:
    snapshot = counted().snapshot()
    for parse, accept in ((classic, ""), (openmetrics, OPENMETRICS)):
        body, content_type = render(snapshot, accept)
        assert content_type.startswith(accept or "text/plain")
        samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in parse(body.decode()) for s in family.samples}
        labels = (("action", "S3"), ("outcome", "success"), ("part", "action"), ("rule", RULE))
        assert samples["inbound_actions_total", labels] == 3
        assert samples["inbound_dead_letters_total", ()] == 1
        buckets = {labels[0][1]: value for (name, labels), value in samples.items() if name == "inbound_commit_seconds_bucket"}
        assert (buckets["0.0005"], buckets["0.001"], buckets["0.0025"], buckets["60.0"], buckets["+Inf"]) == (1, 1, 3, 3, 4)
        assert samples["inbound_commit_seconds_count", ()] == 4
        assert abs(samples["inbound_commit_seconds_sum", ()] - 100.0044) < 1e-6
