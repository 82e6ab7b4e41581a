"""The numbers of `inbound.metrics` as Prometheus reads them, with those of the process itself beside them."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from inbound import __version__
from inbound.metrics import ALL, Kind, Labels, Metric, Snapshot, series_of

Numbers = list[tuple[Labels, Any]]
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

BUILD = "inbound_build_info"
"""The one metric that is not counted: what this is."""


def render(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The exposition of the numbers, in the format that the Accept header asks for, and its content type."""
    registry = CollectorRegistry()
    registry.register(_Numbers(snapshot))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Numbers(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        """Every metric of the list, those without a number too, so that all can be seen to exist."""
        yield _build()
        series: dict[Metric, Numbers] = {metric: [] for metric in ALL.values()}
        for metric, labels, value in series_of(self._snapshot):
            series[metric].append((labels, value))
        for metric, numbers in series.items():
            yield _family(metric, numbers)

    def describe(self) -> Iterable[Family]:
        """Nothing, so that to register costs nothing."""
        return ()


def _build() -> GaugeMetricFamily:
    build = GaugeMetricFamily(BUILD, "Version of inbound and of Python.", labels=("version", "python"))
    build.add_metric((__version__, platform.python_version()), 1)
    return build


def _family(metric: Metric, numbers: Numbers) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in numbers:
            *counts, total = value
            histogram.add_metric(labels, _cumulative(metric, counts), total)
        return histogram
    family = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    simple = family(metric.name, metric.help, labels=metric.labels)
    for labels, value in numbers:
        simple.add_metric(labels, value)
    return simple


def _cumulative(metric: Metric, counts: list[float]) -> list[tuple[str, float]]:
    return list(zip((*map(floatToGoString, metric.buckets), "+Inf"), itertools.accumulate(counts), strict=True))
