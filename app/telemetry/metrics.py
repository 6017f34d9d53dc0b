"""Prometheus metrics. Counters and histograms come from the records of ended tasks; gauges are read at each scrape.

They count from the start of the process, as Prometheus expects; the ledger has the totals of earlier processes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.domain.models import AnsweredBy, CallState
from app.finance.rollup import bucket
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import CostKind
from app.pricing.formula import effective_charges

log = logging.getLogger(__name__)


# The names and labels of the metrics, as listed in `docs/operations.md`.
#
# Every label has few values: a stage, a model, a state, a tenant. None is an id of a task or ticket, or a text.

PREFIX = "refund_agent"
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
# A person may take days to decide.
TASK_BUCKETS = (1, 2, 5, 10, 30, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY)
CALL_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, _MINUTE, 2 * _MINUTE)
LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 15, _MINUTE, 5 * _MINUTE, _HOUR)


class Families:
    """The metrics that are counted when a task has ended, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, histogram = _makers(registry)
        self.tasks = counter("tasks", "Tasks that have ended.", "tenant", "status", "outcome")
        self.tokens = counter(
            "tokens",
            "Tokens of model calls; the kinds are disjoint, reasoning tokens are inside output.",
            *("kind", "basis", "tenant", "stage", "model", "wasted"),
        )
        self.cost = counter(
            "cost",
            "Money, as far as it is known, in units of the currency. A float: the ledger has the exact sums.",
            *("currency", "kind", "basis", "tenant", "stage", "model"),
        )
        self.unknown = counter(
            "unknown_charges",
            "Charges without an amount: their quantity was not reported, or there is no price.",
            *("basis", "kind", "stage", "model"),
        )
        self.calls = counter("model_calls", "Model calls.", "state", "stage", "model", "answered_by")
        self.wasted_calls = counter("wasted_calls", "Model calls that brought no result.", "stage", "model")
        self.journal_answers = counter(
            "journal_answers", "Steps executed again whose answer the journal had, paid before.", "stage", "model"
        )
        self.part_seconds = counter("task_part_seconds", "What ended tasks spent their time on.", "part")
        self.task_seconds = histogram("task_seconds", "From a task's start to its end.", TASK_BUCKETS, "outcome")
        self.call_seconds = histogram(
            "model_call_seconds", "From a model call's start to its end.", CALL_BUCKETS, "state", "stage", "model"
        )
        self.lag_seconds = histogram("projection_lag_seconds", "From a task's end to its record.", LAG_BUCKETS)


def _makers(registry: CollectorRegistry) -> tuple[Callable[..., Counter], Callable[..., Histogram]]:
    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

    def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=registry, buckets=buckets)

    return counter, histogram


# Metrics that are read at each scrape: the load of the worker, and what waits.


@dataclass(frozen=True)
class Live:
    """The functions that give the current values. They must return without waiting, in any thread; None if this process
    does not have the part."""

    activities_running: Callable[[], int] | None = None
    activities_waiting: Callable[[], int] | None = None  # for a slot in the worker
    tasks_to_record: Callable[[], int] | None = None
    tasks_not_traced: Callable[[], int] | None = None  # tasks whose spans were dropped, since the start
    turns_set_aside: Callable[[], int] | None = None  # workflow turns that did not return, since the start
    turns_broken: Callable[[], int] | None = None  # workflow turns whose code raised or did not match the history
    tasks_pending: Callable[[], int] | None = None  # accepted by Dapr and not started
    sidecar_counted: Callable[[], int] | None = None  # 1 while the sidecar's metrics can be read, else 0
    histories_tampered: Callable[[], int] | None = None  # histories that do not verify, since the start


class LiveCollector(Collector):
    """Reads the current values at each scrape. A value that cannot be read is left out and logged."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def collect(self) -> Iterable[Metric]:
        """The current values as metrics."""
        live = self._live
        yield from _live_metric(GaugeMetricFamily, "activities_running", "Steps at work now.", live.activities_running)
        yield from _live_metric(
            GaugeMetricFamily, "activities_waiting", "Steps that wait for a free slot.", live.activities_waiting
        )
        yield from _live_metric(
            GaugeMetricFamily, "tasks_to_record", "Tasks still to be recorded.", live.tasks_to_record
        )
        yield from _live_metric(
            CounterMetricFamily, "tasks_not_traced", "Tasks whose spans no collector took.", live.tasks_not_traced
        )
        yield from _live_metric(
            CounterMetricFamily, "turns_broken", "Workflow turns whose code raised an error.", live.turns_broken
        )
        yield from _live_metric(
            CounterMetricFamily, "turns_set_aside", "Workflow turns that did not return.", live.turns_set_aside
        )
        yield from _live_metric(
            GaugeMetricFamily, "tasks_pending", "Tasks that Dapr has accepted and not started.", live.tasks_pending
        )
        yield from _live_metric(
            GaugeMetricFamily, "sidecar_counted", "Whether the sidecar's metrics can be read.", live.sidecar_counted
        )
        yield from _live_metric(
            CounterMetricFamily, "histories_tampered", "Histories that do not verify.", live.histories_tampered
        )


def _live_metric(
    family: type[GaugeMetricFamily] | type[CounterMetricFamily], name: str, text: str, read: Callable[[], int] | None
) -> Iterator[Metric]:
    if read is None:
        return
    try:
        yield family(f"{PREFIX}_{name}", text, value=float(read()))
    except Exception as error:  # a missing value must not prevent the others
        log.warning("metric %s_%s cannot be read: %s", PREFIX, name, type(error).__name__)


CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_OTHERS = "others"
_NOBODY = "nobody"
# The most values of a label. Further values are counted together, so that the number of series stays bounded.
_TENANTS, _MODELS = 200, 100

Labels = tuple[str, ...]


class Metrics:
    """Counts the records of ended tasks and renders all metrics."""

    def __init__(self, live: Live | None = None, *, tenants: int = _TENANTS, models: int = _MODELS) -> None:
        """`tenants` and `models` are the most different values of these labels."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, with its start time
        self._registry = CollectorRegistry()
        self._families = Families(self._registry)
        self._registry.register(LiveCollector(live or Live()))
        ProcessCollector(registry=self._registry)
        self._tenants, self._models = _LabelValues(tenants), _LabelValues(models)
        self._children: dict[Hashable, Any] = {}

    def render(self) -> bytes:
        """All metrics in Prometheus' text format, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def observe(self, record: TaskRecord) -> None:
        """Counts the record of an ended task. Call it once for each task, always from the same thread."""
        families, tenant = self._families, self._tenants.name(record.tenant)
        outcome = record.outcome.value if record.outcome else "none"
        self._child(families.tasks, tenant, record.status.value, outcome).inc()
        if record.ended_at is not None:
            self._child(families.task_seconds, outcome).observe(_seconds(record.ended_at - record.started_at))
            families.lag_seconds.observe(max(0.0, _seconds(record.projected_at - record.ended_at)))
        for part, length in record.parts.items():
            if length:
                self._child(families.part_seconds, part.value).inc(_seconds(length))
        self._count_charges(record, tenant)
        self._count_calls(record)

    def _count_charges(self, record: TaskRecord, tenant: str) -> None:
        """Counts the charges after their corrections, since a counter must never decrease."""
        tokens, cost, unknown = (defaultdict[Labels, float](float) for _ in range(3))
        for charge in effective_charges(record.charges):
            kind, known = bucket(charge), charge.cost_basis.value
            model = self._models.name(charge.model)
            if charge.kind is CostKind.MODEL and charge.consumed_quantity is not None:
                wasted = "yes" if charge.wasted else "no"
                key = (charge.meter.value, charge.usage_basis.value, tenant, charge.stage, model, wasted)
                tokens[key] += float(charge.consumed_quantity)
            if charge.contracted_cost is None or charge.currency is None:
                unknown[(known, kind, charge.stage, model)] += 1
            else:
                cost[(charge.currency, kind, known, tenant, charge.stage, model)] += float(charge.contracted_cost)
        self._add(self._families.tokens, tokens)
        self._add(self._families.cost, cost)
        self._add(self._families.unknown, unknown)

    def _count_calls(self, record: TaskRecord) -> None:
        families = self._families
        model_of: dict[str, str] = {}
        for call in record.calls:
            model = model_of[call.execution_id] = self._models.name(call.model)
            answered = call.state is CallState.SETTLED or bool(call.finish_reason)
            by = AnsweredBy.PROVIDER.value if answered else _NOBODY
            self._child(families.calls, call.state.value, call.stage, model, by).inc()
            if call.ended_at is not None:
                seconds = max(0.0, _seconds(call.ended_at - call.started_at))
                self._child(families.call_seconds, call.state.value, call.stage, model).observe(seconds)
            if call.wasted:
                self._child(families.wasted_calls, call.stage, model).inc()
        for step in record.steps:
            if step.answered_by is AnsweredBy.JOURNAL:
                self._child(families.journal_answers, step.stage, model_of.get(step.execution_id, "")).inc()

    def _add(self, family: MetricWrapperBase, sums: Mapping[Labels, float]) -> None:
        for labels, value in sums.items():
            self._child(family, *labels).inc(value)

    def _child(self, family: MetricWrapperBase, *labels: str) -> Any:
        """The series of a metric with these labels, cached since the library locks and validates on each access."""
        key = (id(family), labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = family.labels(*labels)
        return child


class _LabelValues:
    """Limits the values of a label: keeps the first ones, and counts all further ones under one name."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def name(self, name: str) -> str:
        """The label value for `name`: the name itself, or `others`."""
        if name not in self._known:
            if len(self._known) >= self._limit:
                return _OTHERS
            self._known.add(name)
        return name


def _seconds(length: timedelta) -> float:
    return length.total_seconds()
