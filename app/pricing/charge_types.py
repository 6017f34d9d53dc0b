"""The values of the cost record: frozen, checked when made, and never zero for what is not known."""

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

# The words of the cost record: how money is known, what a charge pays for, what is counted.


class CostBasis(StrEnum):
    """How an amount of money is known, best first: as its quantity is, or not at all for want of a price."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    UNREPORTED = "unreported"  # the quantity is not known, so neither is the amount
    UNPRICED = "unpriced"  # the quantity may be known, its price is not


_RANK: Mapping[str, int] = {known.value: rank for rank, known in enumerate(CostBasis)}


def worst(first: UsageBasis, *others: UsageBasis) -> UsageBasis:
    """The worst of them: a sum is as well known as its worst part."""
    return max((first, *others), key=_RANK.__getitem__)


def worst_of(knowns: Iterable[CostBasis]) -> CostBasis:
    """The worst of them; `reported` of none, since nothing is missing from an empty sum."""
    return max(knowns, key=_RANK.__getitem__, default=CostBasis.REPORTED)


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
    def kind(self) -> CostKind:
        """What the line pays for."""
        return _KINDS[self]


TOKEN_LINES = (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE, Meter.OUTPUT)
_UNITS = dict.fromkeys(TOKEN_LINES, Unit.TOKENS) | {
    Meter.COMPUTE: Unit.SECONDS,
    Meter.STEP_WRITES: Unit.WRITES,
    Meter.RETAINED_BYTES: Unit.GB_MONTHS,
    Meter.LOG_BYTES: Unit.GB,
}
_KINDS = dict.fromkeys(TOKEN_LINES, CostKind.MODEL) | {
    Meter.COMPUTE: CostKind.COMPUTE,
    Meter.STEP_WRITES: CostKind.ORCHESTRATION,
    Meter.RETAINED_BYTES: CostKind.ORCHESTRATION,
    Meter.LOG_BYTES: CostKind.ORCHESTRATION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """What one model call used, from the provider's answer to journal, record, charges and spans. `None` is "not
    reported", which is not zero. Its counts have names only, since no order of them is everybody's.

    `input_tokens` holds the cached and the cache-written ones, `output_tokens` the reasoning ones, as providers of
    OpenAI's protocol and OpenTelemetry count. Raises ValueError for what cannot be: less than none, or a part that
    is more than its whole.
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
        """The cached tokens for people: of no input none is cached, also where nobody reported it."""
        return 0 if self.input_tokens == 0 else self.cached_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        """Both together, known as the worse of the two; what one of them does not report is not known of the sum."""
        return TokenUsage(
            input_tokens=_sum(self.input_tokens, other.input_tokens),
            output_tokens=_sum(self.output_tokens, other.output_tokens),
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
            basis=worst(self.basis, other.basis),
        )


NOT_REPORTED = TokenUsage(input_tokens=None, output_tokens=None, basis=UsageBasis.UNREPORTED)
# As rows of the journal and the history of a workflow keep it. No stage of ours writes to a provider's cache.
_COUNTS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
USAGE_COLUMNS = (*_COUNTS, "usage_basis")


def usage_columns(usage: TokenUsage) -> dict[str, Any]:
    """The columns of a usage, by name."""
    return {name: getattr(usage, name) for name in _COUNTS} | {"usage_basis": usage.basis.value}


def usage_of(columns: Mapping[Any, Any]) -> TokenUsage:
    """The usage in such columns, among others. What an impossible count says is not believed: it is not reported."""
    counts = {name: columns[name] for name in _COUNTS}
    try:
        return TokenUsage(**counts, basis=UsageBasis(columns["usage_basis"]))
    except ValueError:
        return NOT_REPORTED


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and how it is known; `None` goes with `unreported`, and only with it."""

    value: Decimal | None
    basis: UsageBasis = UsageBasis.REPORTED

    def __post_init__(self) -> None:
        if (self.value is None) != (self.basis is UsageBasis.UNREPORTED):
            raise ValueError(f"quantity {self.value} cannot be {self.basis}: only what is not known has no value")
        if self.value is not None and not (self.value.is_finite() and self.value >= 0):
            raise ValueError(f"quantity {self.value} is below zero or no number")


UNREPORTED = Quantity(None, UsageBasis.UNREPORTED)


@dataclass(frozen=True, slots=True)
class Work:
    """What a task or a step did next to its model calls.

    A part that the work has none of is `Quantity(Decimal(0))`; one that was not measured is `UNREPORTED`. `None`
    says that the part is charged elsewhere, and gives no line.
    """

    active_seconds: Quantity | None = None
    step_writes: Quantity | None = None
    retained_bytes: Quantity | None = None
    log_bytes: Quantity | None = None


@dataclass(frozen=True, slots=True)
class PricedLine:
    """One line: `contracted_cost` is exactly `consumed_quantity` x `contracted_unit_price` / `line.unit.per`, and
    `None` when one of them is."""

    meter: Meter
    consumed_quantity: Decimal | None
    usage_basis: UsageBasis
    contracted_unit_price: Decimal | None = None
    contracted_cost: Decimal | None = None
    list_unit_price: Decimal | None = None
    list_cost: Decimal | None = None

    @property
    def cost_basis(self) -> CostBasis:
        """How the amount is known."""
        return _cost_basis(self.contracted_unit_price, self.usage_basis)


def _cost_basis(unit_price: Decimal | None, known: UsageBasis) -> CostBasis:
    return CostBasis.UNPRICED if unit_price is None else CostBasis(known.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a cost arises. `provider` is a component type (`conversation.openai`) or a provider id (`openai`)."""

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
    """One priced line with all that it is attributed by. `contracted_cost` is `None` while a quantity or a price is not
    known.

    A charge is never changed. One that turns out to be wrong is taken back by a correcting line, `correction` 1, with
    the opposite quantity and amount, and booked anew by the next, 2; should that be wrong as well, 3 and 4 follow.
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
        """How the amount is known."""
        return _cost_basis(self.contracted_unit_price, self.usage_basis)

    @property
    def takes_back(self) -> bool:
        """Whether it takes back the line before it."""
        return self.correction % 2 == 1

    @property
    def correction_of(self) -> str | None:
        """The id of the line that this one corrects; None for a first line."""
        return replace(self, correction=self.correction - 1).id if self.correction else None

    @property
    def id(self) -> str:
        """Names the charge by what it is for: charging the same line of the same attempt again gives the same id."""
        return hashlib.sha256(json.dumps([str(getattr(self, name)) for name in _IDENTITY]).encode()).hexdigest()[:32]


_IDENTITY = ("task_id", "execution_id", "stage", "step", "turn", "number", "meter", "wasted", "correction")
ORIGIN_FIELDS = tuple(field.name for field in fields(Origin))


def utc(at: datetime) -> datetime:
    """The same instant in UTC. Raises ValueError for a time without a zone, which names no instant."""
    if at.tzinfo is None:
        raise ValueError(f"time {at.isoformat()} has no zone; give it in UTC")
    return at if at.tzinfo is UTC else at.astimezone(UTC)


# One model call as the record knows it: who asked, in which state it is, and what it used.


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One row of the journal.

    number: 1 for the first call of a step's turn, more for those that repeat it after a failure or a crash.
    provider: the Dapr component's type (`conversation.openai`). model: as the provider answered; as the component
    answers elsewhere when this call never did; empty when nobody knows.
    usage: what it used, and how that is known; that of a call without an answer is our estimate, or not known.
    started_at, ended_at: UTC; `ended_at` None while it runs, or when its worker went away.
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
        """Whether what it cost was spent in vain: its answer, if one came, settled nothing."""
        return self.state in (CallState.FAILED, CallState.INTERRUPTED)
