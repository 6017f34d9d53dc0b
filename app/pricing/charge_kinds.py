"""The words of the cost record: how money is known, what a charge pays for, what is counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum

from app.domain.models import UsageBasis


class CostBasis(StrEnum):
    """How an amount of money is known, best first: as its quantity is, or not at all for want of a price."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    ALLOCATED = "allocated"
    UNREPORTED = "unreported"  # the quantity is not known, so neither is the amount
    UNPRICED = "unpriced"  # the quantity may be known, its price is not


_RANK: Mapping[str, int] = {known.value: rank for rank, known in enumerate(CostBasis)}


def worst(first: UsageBasis, *others: UsageBasis) -> UsageBasis:
    """The worst of them: a sum is as well known as its worst part."""
    return max((first, *others), key=_RANK.__getitem__)


def worst_of(knowns: Iterable[CostBasis]) -> CostBasis:
    """The worst of them; `reported` of none, since nothing is missing from an empty sum."""
    return max(knowns, key=_RANK.__getitem__, default=CostBasis.REPORTED)


class Kind(StrEnum):
    """What a charge pays for."""

    MODEL = "model"
    COMPUTE = "compute"
    ORCHESTRATION = "orchestration"


class Mode(StrEnum):
    """How a model call was bought."""

    STANDARD = "standard"
    BATCH = "batch"


class Unit(StrEnum):
    """What is counted. A unit price is for `per` of them."""

    TOKENS = "tokens"
    SECONDS = "seconds"
    WRITES = "writes"
    GB_MONTHS = "GB-months"
    GB = "GB"

    @property
    def per(self) -> Decimal:
        """How many of them one unit price buys."""
        return _PER[self]


_PER = {
    Unit.TOKENS: Decimal(1_000_000),
    Unit.SECONDS: Decimal(1),
    Unit.WRITES: Decimal(1_000_000),
    Unit.GB_MONTHS: Decimal(1),
    Unit.GB: Decimal(1),
}


class Meter(StrEnum):
    """One line of a cost. The kinds of tokens are disjoint: `input` is what was neither read from nor written to the
    provider's cache; reasoning tokens are inside `output`."""

    INPUT = "input"
    CACHED_INPUT = "cached_input"
    CACHE_WRITE = "cache_write"
    OUTPUT = "output"
    COMPUTE = "compute"
    STEP_WRITES = "step_writes"
    RETAINED_BYTES = "retained_bytes"
    LOG_BYTES = "log_bytes"

    @property
    def unit(self) -> Unit:
        """What the line counts."""
        return _UNITS[self]

    @property
    def kind(self) -> Kind:
        """What the line pays for."""
        return _KINDS[self]


TOKEN_LINES = (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE, Meter.OUTPUT)
_UNITS = dict.fromkeys(TOKEN_LINES, Unit.TOKENS) | {
    Meter.COMPUTE: Unit.SECONDS,
    Meter.STEP_WRITES: Unit.WRITES,
    Meter.RETAINED_BYTES: Unit.GB_MONTHS,
    Meter.LOG_BYTES: Unit.GB,
}
_KINDS = dict.fromkeys(TOKEN_LINES, Kind.MODEL) | {
    Meter.COMPUTE: Kind.COMPUTE,
    Meter.STEP_WRITES: Kind.ORCHESTRATION,
    Meter.RETAINED_BYTES: Kind.ORCHESTRATION,
    Meter.LOG_BYTES: Kind.ORCHESTRATION,
}
