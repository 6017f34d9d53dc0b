"""Reads the number of model calls that daprd repeated from its metrics.

`dapr_resiliency_activations_total`, for policy `retry` and target `Conversation_<component>`, counts the calls that
daprd 1.18 repeated: one for each call whose first request failed. If the policy allows one repeat, the count is the
number of further requests; if it allows more, a lower bound. A repeat is counted even if the breaker opened in the
pause before it and refused to send it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

_STARTED = "process_start_time_seconds"
_ACTIVATIONS = "dapr_resiliency_activations_total"
# The page has hundreds of kilobytes; parsing all of it takes a hundred times as long as parsing these lines.
_WANTED = (f"{_STARTED} ", f"{_ACTIVATIONS}{{")
_TARGET = "Conversation_"
# Linux reports a process's start relative to a boot time that moves by up to a second.
_SAME_START_SECONDS = 1.5
# The counts of this long before a worker's death may be unwritten: the time of two readings and a margin.
_UNWRITTEN = timedelta(seconds=6)


@dataclass(frozen=True)
class Reading:
    """One reading of the metrics.

    started: when daprd's process started, in seconds since 1970; None if the page does not have it.
    retried: number of calls repeated since then, by component; a missing component has none.
    """

    at: datetime
    started: float | None
    retried: Mapping[str, int]


@dataclass(frozen=True)
class Repeated:
    """The number of a component's calls that daprd repeated between two readings."""

    component: str
    from_at: datetime
    to_at: datetime
    count: int


@dataclass(frozen=True)
class Gap:
    """A time whose counts are lost. `predecessors`: whether these are the counts for workers before this one, as far
    as those wrote no rows."""

    from_at: datetime
    to_at: datetime
    predecessors: bool = False


def parse(page: str, at: datetime) -> Reading:
    """Parses a metrics page. Raises ValueError if the text is none."""
    lines = [line for line in page.split("\n") if line.startswith(_WANTED)]
    started, retried = None, Counter[str]()
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if sample.name == _STARTED:
                    started = sample.value
                elif sample.labels.get("policy") == "retry" and sample.labels.get("target", "").startswith(_TARGET):
                    retried[sample.labels["target"].removeprefix(_TARGET)] += int(sample.value)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # the library raises these for bad lines
        raise ValueError(f"not a metrics page: {type(error).__name__}; check the sidecar's metrics port") from None
    return Reading(at, started, retried)


def gaps_at_start(reading: Reading) -> list[Repeated | Gap]:
    """The gap that a worker's first reading shows. What the sidecar has counted so far was for earlier workers, and a
    worker or sidecar that was killed may not have written its last counts."""
    start = reading.at if reading.started is None else datetime.fromtimestamp(reading.started, UTC)
    return [Gap(start - _UNWRITTEN, reading.at if any(reading.retried.values()) else start, predecessors=True)]


def changes_between(earlier: Reading, later: Reading) -> list[Repeated | Gap]:
    """The repeats between two readings, by component; none for a component without a repeat. A restarted daprd counts
    from zero, and the counts of the previous one since the earlier reading are lost, so there is a gap as well."""
    restarted = _has_restarted(earlier, later)
    before = {} if restarted else earlier.retried
    counts = {name: count - before.get(name, 0) for name, count in sorted(later.retried.items())}
    repeated = [Repeated(name, earlier.at, later.at, count) for name, count in counts.items() if count]
    return [Gap(earlier.at, later.at), *repeated] if restarted else [*repeated]


def changes_without_metrics(
    earlier: Reading | None, began: datetime, at: datetime
) -> tuple[Reading, list[Repeated | Gap]]:
    """For a sidecar that has lost its metrics until its restart: an empty reading, which differs from any later one,
    and the gap since the earlier reading. Without an earlier one, the gap starts when the worker `began`, and there is
    one more for the workers before it."""
    gaps = [Gap(earlier.at, at)] if earlier else [Gap(began - _UNWRITTEN, at, predecessors=True), Gap(began, at)]
    return Reading(at, 0.0, {}), [*gaps]


def _has_restarted(earlier: Reading, later: Reading) -> bool:
    if any(later.retried.get(name, 0) < count for name, count in earlier.retried.items()):
        return True
    if earlier.started is None or later.started is None:
        return False
    return abs(later.started - earlier.started) > _SAME_START_SECONDS
