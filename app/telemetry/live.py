"""Metrics that are asked for at the moment of a look, as callables: how full the worker is, what waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.telemetry.families import PREFIX

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Live:
    """What is asked. Each must answer at once, from any thread; None is a part that this process does not have."""

    activities_running: Callable[[], int] | None = None
    activities_waiting: Callable[[], int] | None = None  # for a slot in the worker
    tasks_to_record: Callable[[], int] | None = None
    tasks_not_traced: Callable[[], int] | None = None  # given up, since the start
    turns_set_aside: Callable[[], int] | None = None  # workflow turns that did not come back, since the start
    turns_broken: Callable[[], int] | None = None  # workflow turns whose code raised, or fitted no history
    tasks_pending: Callable[[], int] | None = None  # taken in by Dapr and not begun
    sidecar_counted: Callable[[], int] | None = None  # 1 while the sidecar's metrics can be read, else 0
    histories_tampered: Callable[[], int] | None = None  # that do not verify, since the start


class LiveCollector(Collector):
    """Asks at each look. What cannot answer is left out, and logged."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def collect(self) -> Iterable[Metric]:
        """What there is at this moment."""
        live = self._live
        yield from _asked(GaugeMetricFamily, "activities_running", "Steps at work now.", live.activities_running)
        yield from _asked(
            GaugeMetricFamily, "activities_waiting", "Steps that wait for a free slot.", live.activities_waiting
        )
        yield from _asked(GaugeMetricFamily, "tasks_to_record", "Tasks still to be recorded.", live.tasks_to_record)
        yield from _asked(
            CounterMetricFamily, "tasks_not_traced", "Tasks whose spans no collector took.", live.tasks_not_traced
        )
        yield from _asked(
            CounterMetricFamily, "turns_broken", "Workflow turns whose code raised an error.", live.turns_broken
        )
        yield from _asked(
            CounterMetricFamily, "turns_set_aside", "Workflow turns that did not come back.", live.turns_set_aside
        )
        yield from _asked(
            GaugeMetricFamily, "tasks_pending", "Tasks that Dapr has taken in and not begun.", live.tasks_pending
        )
        yield from _asked(
            GaugeMetricFamily, "sidecar_counted", "Whether the sidecar's metrics can be read.", live.sidecar_counted
        )
        yield from _asked(
            CounterMetricFamily, "histories_tampered", "Histories that do not verify.", live.histories_tampered
        )


def _asked(
    family: type[GaugeMetricFamily] | type[CounterMetricFamily], name: str, text: str, ask: Callable[[], int] | None
) -> Iterator[Metric]:
    if ask is None:
        return
    try:
        yield family(f"{PREFIX}_{name}", text, value=float(ask()))
    except Exception as error:  # one number that is missing must not take the others with it
        log.warning("metric %s_%s cannot be read: %s", PREFIX, name, type(error).__name__)
