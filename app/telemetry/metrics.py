"""Prometheus metrics: counted when a task has ended, from its record; gauges are asked for at each look.

They count from the start of the process, as Prometheus expects; what an earlier process counted is in the ledger.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from datetime import timedelta
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase

from app.domain.models import AnsweredBy, CallState
from app.finance.rollup import bucket
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_kinds import Kind
from app.pricing.charges import standing
from app.telemetry.families import Families
from app.telemetry.live import Live, LiveCollector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_OTHERS = "others"
_NOBODY = "nobody"
# Beyond so many different ones, those to come are counted together: a label must not grow without end.
_TENANTS, _MODELS = 200, 100

Labels = tuple[str, ...]


class Metrics:
    """Observes records and renders what was counted."""

    def __init__(self, live: Live | None = None, *, tenants: int = _TENANTS, models: int = _MODELS) -> None:
        """`tenants` and `models` are how many different ones the labels tell apart."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that says when it began
        self._registry = CollectorRegistry()
        self._families = Families(self._registry)
        self._registry.register(LiveCollector(live or Live()))
        ProcessCollector(registry=self._registry)
        self._tenants, self._models = _Few(tenants), _Few(models)
        self._children: dict[Hashable, Any] = {}

    def render(self) -> bytes:
        """All metrics in Prometheus' text format, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def observe(self, record: TaskRecord) -> None:
        """Counts the record of an ended task, once each; one thread."""
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
        """As they stand after corrections, since a counter never goes down."""
        tokens, cost, unknown = (defaultdict[Labels, float](float) for _ in range(3))
        for charge in standing(record.charges):
            kind, known = bucket(charge), charge.money_known.value
            model = self._models.name(charge.model)
            if charge.kind is Kind.MODEL and charge.quantity is not None:
                rerun = "yes" if charge.rerun else "no"
                key = (charge.line.value, charge.known.value, tenant, charge.stage, model, rerun)
                tokens[key] += float(charge.quantity)
            if charge.amount is None or charge.currency is None:
                unknown[(known, kind, charge.stage, model)] += 1
            else:
                cost[(charge.currency, kind, known, tenant, charge.stage, model)] += float(charge.amount)
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
            if call.rerun:
                self._child(families.reruns, call.stage, model).inc()
            if call.retries:
                self._child(families.retries, call.stage, model).inc(call.retries)
        for step in record.steps:
            if step.answered_by is AnsweredBy.JOURNAL:
                self._child(families.journal_answers, step.stage, model_of.get(step.execution_id, "")).inc()

    def _add(self, family: MetricWrapperBase, sums: Mapping[Labels, float]) -> None:
        for labels, value in sums.items():
            self._child(family, *labels).inc(value)

    def _child(self, family: MetricWrapperBase, *labels: str) -> Any:
        """The library looks a child up under a lock, and checks its labels each time; here it is found at once."""
        key = (id(family), labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = family.labels(*labels)
        return child


class _Few:
    """Tells so many names apart, the first that come; all others are one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def name(self, name: str) -> str:
        """The name itself, or the word for the others."""
        if name not in self._known:
            if len(self._known) >= self._limit:
                return _OTHERS
            self._known.add(name)
        return name


def _seconds(length: timedelta) -> float:
    return length.total_seconds()
