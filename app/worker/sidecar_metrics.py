"""What daprd's metrics page says of model calls that it asked again. Pure.

`dapr_resiliency_activations_total` counts, for policy `retry` and target `Conversation_<component>`, the calls that
daprd asked again at all: once for each call, however often it asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_STARTED = "process_start_time_seconds"
_ACTIVATIONS = "dapr_resiliency_activations_total"
# The page has hundreds of kilobytes; parsing all of it takes a hundred times as long as these lines do.
_WANTED = (f"{_STARTED} ", f"{_ACTIVATIONS}{{")
_TARGET = "Conversation_"


@dataclass(frozen=True)
class Exposition:
    """started: when daprd's process started, in seconds since 1970; None where it does not say. retried: for each
    component, how many calls it has asked again since then; one that is missing has none."""

    started: float | None
    retried: Mapping[str, int]


# Stands for the page of a process that will show none any more: the next one that answers has begun after it.
LOST = Exposition(0.0, {})


def parse(page: str) -> Exposition:
    """Reads a metrics page. Raises ValueError for one that is none."""
    try:
        return _parsed(page)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # the library's own, on some lines
        raise ValueError(f"no metrics page: {type(error).__name__}; check the sidecar's metrics port") from None


def _parsed(page: str) -> Exposition:
    lines = [line for line in page.split("\n") if line.startswith(_WANTED)]
    started, retried = None, Counter[str]()
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name == _STARTED:
                started = sample.value
            elif sample.labels.get("policy") == "retry" and sample.labels.get("target", "").startswith(_TARGET):
                retried[sample.labels["target"].removeprefix(_TARGET)] += int(sample.value)
    return Exposition(started, retried)
