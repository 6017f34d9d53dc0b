"""The metrics that there are: names, units and labels, which `docs/operations.md` lists. Names only; no values.

Every label has few values: a stage, a model, a state, a tenant. None is a task's id, a ticket's or any text.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

PREFIX = "refund_agent"
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
# A person may take days to decide.
TASK_BUCKETS = (1, 2, 5, 10, 30, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY)
CALL_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, _MINUTE, 2 * _MINUTE)
LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 5, 15, _MINUTE, 5 * _MINUTE, _HOUR)


class Families:
    """All metrics that are counted when a task has ended, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, histogram = _makers(registry)
        self.tasks = counter("tasks", "Tasks that have ended.", "tenant", "status", "outcome")
        self.tokens = counter(
            "tokens",
            "Tokens of model calls; the kinds are disjoint, reasoning tokens are inside output.",
            *("kind", "known", "tenant", "stage", "model", "rerun"),
        )
        self.cost = counter(
            "cost",
            "Money, as far as it is known, in units of the currency. A float: the ledger has the exact sums.",
            *("currency", "kind", "known", "tenant", "stage", "model"),
        )
        self.unknown = counter(
            "unknown_charges",
            "Charges without an amount: their quantity was not reported, or there is no price.",
            *("known", "kind", "stage", "model"),
        )
        self.calls = counter("model_calls", "Model calls.", "state", "stage", "model", "answered_by")
        self.reruns = counter("reruns", "Model calls that settled nothing, spent in vain.", "stage", "model")
        self.journal_answers = counter(
            "journal_answers", "Steps executed again whose answer the journal had, paid before.", "stage", "model"
        )
        self.retries = counter(
            "sidecar_retries", "Requests that the sidecar made on its own, allocated to calls.", "stage", "model"
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
