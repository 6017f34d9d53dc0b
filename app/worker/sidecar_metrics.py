"""How many model calls daprd repeated between two readings of its metrics, or that this is not known. Pure.

`dapr_resiliency_activations_total`, for policy `retry` and target `Conversation_<component>`, counts the calls that
daprd 1.18 asked again: once for each call, when its first request failed. So the count is the number of further
requests where the policy allows one, a lower bound where it allows more. It counts a repeat also when the breaker,
opened during the pause before it, then refused to send it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

_STARTED = "process_start_time_seconds"
_ACTIVATIONS = "dapr_resiliency_activations_total"
# The page has hundreds of kilobytes; parsing all of it takes a hundred times as long as these lines do.
_WANTED = (f"{_STARTED} ", f"{_ACTIVATIONS}{{")
_TARGET = "Conversation_"
# Linux tells a process's start relative to a boot time that moves by up to a second.
_SAME_START_SECONDS = 1.5
# A worker that was killed may not have written what its sidecar counted this long before: two readings, and some.
_UNWRITTEN = timedelta(seconds=6)


@dataclass(frozen=True)
class Reading:
    """One look at the metrics. started: when daprd's process started, in seconds since 1970; None where it does not
    say. retried: for each component, how many calls it has repeated since then; a missing one has none."""

    at: datetime
    started: float | None
    retried: Mapping[str, int]


@dataclass(frozen=True)
class Repeated:
    """How many calls of a component daprd repeated between two readings."""

    component: str
    from_at: datetime
    to_at: datetime
    count: int


@dataclass(frozen=True)
class Gap:
    """A time whose counts are lost. `predecessors`: of workers before this one, as far as they wrote no rows."""

    from_at: datetime
    to_at: datetime
    predecessors: bool = False


def parse(page: str, at: datetime) -> Reading:
    """Reads a metrics page. Raises ValueError for a text that is none."""
    lines = [line for line in page.split("\n") if line.startswith(_WANTED)]
    started, retried = None, Counter[str]()
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if sample.name == _STARTED:
                    started = sample.value
                elif sample.labels.get("policy") == "retry" and sample.labels.get("target", "").startswith(_TARGET):
                    retried[sample.labels["target"].removeprefix(_TARGET)] += int(sample.value)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # the library's own, on some lines
        raise ValueError(f"no metrics page: {type(error).__name__}; check the sidecar's metrics port") from None
    return Reading(at, started, retried)


def first(reading: Reading) -> list[Repeated | Gap]:
    """What the first reading says: what the sidecar has counted was for workers before this one, and the last counts
    of a worker or a sidecar that was killed may not have been written."""
    start = reading.at if reading.started is None else datetime.fromtimestamp(reading.started, UTC)
    return [Gap(start - _UNWRITTEN, reading.at if any(reading.retried.values()) else start, predecessors=True)]


def between(earlier: Reading, later: Reading) -> list[Repeated | Gap]:
    """What happened between two readings; nothing for a component without a retry. A restarted daprd counts from
    zero, and what the one before it counted since the earlier reading is lost."""
    restarted = _restarted(earlier, later)
    before = {} if restarted else earlier.retried
    counts = {name: count - before.get(name, 0) for name, count in sorted(later.retried.items())}
    found = [Repeated(name, earlier.at, later.at, count) for name, count in counts.items() if count]
    return [Gap(earlier.at, later.at), *found] if restarted else [*found]


def lost(earlier: Reading | None, began: datetime, at: datetime) -> tuple[Reading, list[Repeated | Gap]]:
    """What a sidecar says that shows no metrics until it is started again: a reading that the next one differs from,
    and a gap since the earlier one; without one, since the worker `began`, and of workers before it."""
    gaps = [Gap(earlier.at, at)] if earlier else [Gap(began - _UNWRITTEN, at, predecessors=True), Gap(began, at)]
    return Reading(at, 0.0, {}), [*gaps]


def _restarted(earlier: Reading, later: Reading) -> bool:
    if any(later.retried.get(name, 0) < count for name, count in earlier.retried.items()):
        return True
    if earlier.started is None or later.started is None:
        return False
    return abs(later.started - earlier.started) > _SAME_START_SECONDS
