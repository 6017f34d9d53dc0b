"""The values of the cost record: usage, work, priced lines, charges and model calls. A value that is not known is None,
never zero."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from app.domain.models import CallState, ToolForm, UsageBasis


class CostBasis(StrEnum):
    """How an amount of money is known, best first: like its quantity, or not at all because there is no price."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    UNREPORTED = "unreported"  # the quantity is unknown, so the amount is too
    UNPRICED = "unpriced"  # there is no price; the quantity may be known


_RANK: Mapping[str, int] = {basis.value: rank for rank, basis in enumerate(CostBasis)}


def worst(first: UsageBasis, *others: UsageBasis) -> UsageBasis:
    """The usage basis of a sum, which is the worst of its parts."""
    return max((first, *others), key=_RANK.__getitem__)


def worst_of(bases: Iterable[CostBasis]) -> CostBasis:
    """The cost basis of a sum, which is the worst of its parts; `reported` for an empty sum."""
    return max(bases, key=_RANK.__getitem__, default=CostBasis.REPORTED)


class CostKind(StrEnum):
    """What a charge pays for."""

    MODEL = "model"
    COMPUTE = "compute"
    ORCHESTRATION = "orchestration"


class Mode(StrEnum):
    """How a model call was bought."""

    STANDARD = "standard"
    BATCH = "batch"


class Unit(StrEnum):
    """The unit of a quantity. A unit price is for `per` units."""

    TOKENS = "tokens"
    SECONDS = "seconds"
    WRITES = "writes"
    GB_MONTHS = "GB-months"
    GB = "GB"

    @property
    def per(self) -> Decimal:
        """The number of units that a unit price is for."""
        return _PER[self]


_PER = {
    Unit.TOKENS: Decimal(1_000_000),
    Unit.SECONDS: Decimal(1),
    Unit.WRITES: Decimal(1_000_000),
    Unit.GB_MONTHS: Decimal(1),
    Unit.GB: Decimal(1),
}


class Meter(StrEnum):
    """What a charge counts. The kinds of tokens are disjoint: `input` has neither the tokens read from the provider's
    cache nor those written to it. Reasoning tokens are part of `output`."""

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
        """The unit of its quantities."""
        return _UNITS[self]

    @property
    def kind(self) -> CostKind:
        """What its charges pay for."""
        return _KINDS[self]


TOKEN_METERS = (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE, Meter.OUTPUT)
_UNITS = dict.fromkeys(TOKEN_METERS, Unit.TOKENS) | {
    Meter.COMPUTE: Unit.SECONDS,
    Meter.STEP_WRITES: Unit.WRITES,
    Meter.RETAINED_BYTES: Unit.GB_MONTHS,
    Meter.LOG_BYTES: Unit.GB,
}
_KINDS = dict.fromkeys(TOKEN_METERS, CostKind.MODEL) | {
    Meter.COMPUTE: CostKind.COMPUTE,
    Meter.STEP_WRITES: CostKind.ORCHESTRATION,
    Meter.RETAINED_BYTES: CostKind.ORCHESTRATION,
    Meter.LOG_BYTES: CostKind.ORCHESTRATION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """The tokens that one model call used. `None` means not reported, which is not zero.

    `input_tokens` includes the cached and the cache-written tokens, `output_tokens` the reasoning tokens, as OpenAI's
    protocol and OpenTelemetry count them. Raises ValueError if a count is negative or a part exceeds its whole.
    """

    input_tokens: int | None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None
    reasoning_tokens: int | None = None
    basis: UsageBasis = UsageBasis.REPORTED

    def __post_init__(self) -> None:
        parts = (self.cached_tokens or 0) + (self.cache_write_tokens or 0)
        counts = (self.input_tokens, self.output_tokens, self.cached_tokens, self.cache_write_tokens)
        if any(count is not None and count < 0 for count in (*counts, self.reasoning_tokens)):
            raise ValueError(f"impossible usage {self}: a count is below zero; take it as not reported")
        if self.input_tokens is not None and parts > self.input_tokens:
            raise ValueError(f"impossible usage {self}: cached tokens exceed the input; take them as not reported")
        if self.output_tokens is not None and (self.reasoning_tokens or 0) > self.output_tokens:
            raise ValueError(f"impossible usage {self}: reasoning exceeds the output; take it as not reported")

    @property
    def cached(self) -> int | None:
        """The cached tokens, for people: 0 if there was no input, even if they were not reported."""
        return 0 if self.input_tokens == 0 else self.cached_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """The sum, with the worse basis of the two. A count that one of them does not report is None in the sum."""
        return TokenUsage(
            input_tokens=_sum(self.input_tokens, other.input_tokens),
            output_tokens=_sum(self.output_tokens, other.output_tokens),
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
            basis=worst(self.basis, other.basis),
        )


NOT_REPORTED = TokenUsage(input_tokens=None, output_tokens=None, basis=UsageBasis.UNREPORTED)
# The counts that the journal and workflow histories store. No stage of ours writes to a provider's cache.
_COUNTS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
USAGE_COLUMNS = (*_COUNTS, "usage_basis")


def usage_columns(usage: TokenUsage) -> dict[str, Any]:
    """A usage as columns, by name (`USAGE_COLUMNS`)."""
    return {name: getattr(usage, name) for name in _COUNTS} | {"usage_basis": usage.basis.value}


def usage_of(columns: Mapping[Any, Any]) -> TokenUsage:
    """The usage from the columns of a row, which may have others too. A row with impossible counts gives
    `NOT_REPORTED`."""
    counts = {name: columns[name] for name in _COUNTS}
    try:
        return TokenUsage(**counts, basis=UsageBasis(columns["usage_basis"]))
    except ValueError:
        return NOT_REPORTED


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity and how it is known. `value` is None if and only if `basis` is `unreported`. Raises ValueError for any
    other combination and for a negative value."""

    value: Decimal | None
    basis: UsageBasis = UsageBasis.REPORTED

    def __post_init__(self) -> None:
        if (self.value is None) != (self.basis is UsageBasis.UNREPORTED):
            raise ValueError(
                f"quantity {self.value} cannot be {self.basis}; give None for an unreported quantity, and only for one"
            )
        if self.value is not None and not (self.value.is_finite() and self.value >= 0):
            raise ValueError(f"quantity {self.value} is negative or not a number; give a finite one of 0 or more")


UNREPORTED = Quantity(None, UsageBasis.UNREPORTED)


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a task or step besides its model calls.

    A part without any work is `Quantity(Decimal(0))`; a part that was not measured is `UNREPORTED`. `None` means that
    the part is charged elsewhere, and gives no line.
    """

    active_seconds: Quantity | None = None
    step_writes: Quantity | None = None
    retained_bytes: Quantity | None = None
    log_bytes: Quantity | None = None


@dataclass(frozen=True, slots=True)
class PricedLine:
    """One line of a price calculation. `contracted_cost` is exactly `consumed_quantity` x `contracted_unit_price` /
    `meter.unit.per`, and None if one of them is None."""

    meter: Meter
    consumed_quantity: Decimal | None
    usage_basis: UsageBasis
    contracted_unit_price: Decimal | None = None
    contracted_cost: Decimal | None = None
    list_unit_price: Decimal | None = None
    list_cost: Decimal | None = None

    @property
    def cost_basis(self) -> CostBasis:
        """How the cost is known."""
        return _cost_basis(self.contracted_unit_price, self.usage_basis)


def _cost_basis(unit_price: Decimal | None, basis: UsageBasis) -> CostBasis:
    return CostBasis.UNPRICED if unit_price is None else CostBasis(basis.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a cost is attributed to. `provider` is a component type (`conversation.openai`) or a provider id (`openai`).
    `at` is converted to UTC; raises ValueError if it has no zone."""

    task_id: str
    tenant: str
    agent: str
    workflow: str
    at: datetime
    stage: str = ""
    step: str = ""
    tool: str = ""
    execution_id: str = ""
    turn: int = 0
    number: int = 0
    model: str = ""
    provider: str = ""
    component: str = ""
    outcome: str = ""

    def __post_init__(self) -> None:
        if self.at.tzinfo is not UTC:
            object.__setattr__(self, "at", utc(self.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge(Origin):
    """One priced line with its attribution. `contracted_cost` is None if its quantity or price is not known.

    A charge is never changed. A wrong one is taken back by a correction (`correction` 1) with the opposite quantity and
    cost, and replaced by the next (2). If that is wrong too, 3 and 4 follow, and so on.
    """

    kind: CostKind
    meter: Meter
    consumed_quantity: Decimal | None
    unit: Unit
    usage_basis: UsageBasis
    contracted_unit_price: Decimal | None
    contracted_cost: Decimal | None
    list_unit_price: Decimal | None
    list_cost: Decimal | None
    currency: str | None
    price_id: str | None
    book_digest: str
    mode: Mode = Mode.STANDARD
    wasted: bool = False
    correction: int = 0

    @property
    def cost_basis(self) -> CostBasis:
        """How the cost is known."""
        return _cost_basis(self.contracted_unit_price, self.usage_basis)

    @property
    def takes_back(self) -> bool:
        """Whether this correction takes back the charge before it."""
        return self.correction % 2 == 1

    @property
    def correction_of(self) -> str | None:
        """The id of the charge that this one corrects; None if it is no correction."""
        return replace(self, correction=self.correction - 1).id if self.correction else None

    @property
    def id(self) -> str:
        """The charge's id, a digest of what it is for. Charging the same line of the same attempt again gives the same
        id."""
        return hashlib.sha256(json.dumps([str(getattr(self, name)) for name in _IDENTITY]).encode()).hexdigest()[:32]


_IDENTITY = ("task_id", "execution_id", "stage", "step", "turn", "number", "meter", "wasted", "correction")
ORIGIN_FIELDS = tuple(field.name for field in fields(Origin))


def utc(at: datetime) -> datetime:
    """The same instant in UTC. Raises ValueError for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError(f"time {at.isoformat()} has no zone; give it in UTC")
    return at if at.tzinfo is UTC else at.astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One model call: a row of the journal.

    number: 1 for the first call of a step's turn, higher for repeats after a failure or a crash. provider: the Dapr
    component's type (`conversation.openai`). model: as in the provider's answer. Without an answer, as in other answers
    of the component; empty if there are none.
    usage: reported by the provider. Without an answer, our estimate, or not known.
    started_at, ended_at: in UTC; `ended_at` is None while the call runs, and if its worker died.
    """

    call_id: str
    task_id: str
    tenant: str
    execution_id: str
    stage: str
    turn: int
    number: int
    worker: str
    component: str
    provider: str
    model: str
    prompt_version: str
    request_digest: str
    state: CallState
    started_at: datetime
    ended_at: datetime | None
    reserve_input: int
    reserve_output: int
    usage: TokenUsage
    finish_reason: str = ""
    error: str = ""
    tool_form: ToolForm | None = None

    @property
    def wasted(self) -> bool:
        """Whether its cost is wasted, because it settled no turn: it failed, or its worker died."""
        return self.state in (CallState.FAILED, CallState.INTERRUPTED)
