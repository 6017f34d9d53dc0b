"""The cost formula: what a model call, and the work around it, costs at its price; lines sum to the total exactly.

A line stands for each kind of token that is reported, also when it is reported as zero; a kind that is not reported
has no line. Where its price differs, the input that holds it can only be priced as if it were all plain input, so
that line is `estimated`, and the call names the kind under `unsplit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from app.domain.errors import FailureCause
from app.domain.models import UsageBasis
from app.domain.money import amount_of, product, total
from app.pricing.book import PriceBook
from app.pricing.charge_types import (
    ORIGIN_FIELDS,
    CallRecord,
    Charge,
    CostBasis,
    Meter,
    Mode,
    Origin,
    PricedLine,
    Quantity,
    TokenUsage,
    Work,
    utc,
    worst,
    worst_of,
)
from app.pricing.price_file import NAME
from app.pricing.schedule import BASE, NoPrice, Price, Schedule, step_at

_GB = Decimal(1).scaleb(-9)


@dataclass(frozen=True, slots=True)
class Priced:
    """Lines at their price. `contracted_cost` is the sum of what is known of them, `None` when nothing is."""

    lines: tuple[PricedLine, ...]
    currency: str
    price_id: str
    book_digest: str

    @property
    def contracted_cost(self) -> Decimal | None:
        """What is paid, as far as it is known; `cost_basis` says how far that is."""
        return _sum(line.contracted_cost for line in self.lines)

    @property
    def list_cost(self) -> Decimal | None:
        """What it would cost at list prices."""
        return _sum(line.list_cost for line in self.lines)

    @property
    def cost_basis(self) -> CostBasis:
        """The worst of the lines."""
        return worst_of(line.cost_basis for line in self.lines)


@dataclass(frozen=True, slots=True)
class CallPrice(Priced):
    """What one model call costs. `tier` is the input size above which its prices hold, `None` for the base.

    `unsplit` names the kinds of input that have a price of their own, but were not reported.
    """

    provider: str
    model: str
    at: datetime
    mode: Mode
    tier: int | None
    unsplit: tuple[Meter, ...]


@dataclass(frozen=True, slots=True)
class Unpriced:
    """There is no price: no amount, not even zero. Its lines keep the quantities; the remedy makes a price."""

    lines: tuple[PricedLine, ...]
    book_digest: str
    reason: str
    remedy: str
    provider: str = ""
    model: str = ""

    @property
    def cost_basis(self) -> CostBasis:
        """Unpriced, whatever the quantities are."""
        return CostBasis.UNPRICED

    def __str__(self) -> str:
        return f"unpriced: {self.reason}; {self.remedy}"


def price_call(
    book: PriceBook, usage: TokenUsage, *, at: datetime, model: str, provider: str, mode: Mode = Mode.STANDARD
) -> CallPrice | Unpriced:
    """Prices one call. `provider` is a Dapr component type or a provider id, `at` the time it was made."""
    price = book.find(provider, model, at, mode)
    if isinstance(price, NoPrice):
        lines = tuple(PricedLine(line, quantity.value, quantity.basis) for line, quantity in _quantities(usage, ()))
        return Unpriced(lines, book.digest, price.reason, price.remedy, provider, model)
    unsplit = _unsplit(usage, price)
    tier = _tier(price, usage)
    return CallPrice(
        lines=tuple(_token_line(price, line, quantity, usage) for line, quantity in _quantities(usage, unsplit)),
        currency=price.currency,
        price_id=price.id if tier is None else f"{price.id}>{tier}",
        book_digest=book.digest,
        provider=price.provider,
        model=model,
        at=utc(at),
        mode=mode,
        tier=tier,
        unsplit=unsplit,
    )


def price_work(book: PriceBook, work: Work, *, at: datetime) -> Priced | Unpriced:
    """Prices compute, persisted writes, retained bytes and log bytes at the infrastructure's prices of that time."""
    return price_quantities(book, tuple(_work(work, book.file.retention_months)), at=at)


def price_quantities(
    book: PriceBook, quantities: Sequence[tuple[Meter, Quantity]], *, at: datetime
) -> Priced | Unpriced:
    """Prices lines of work that are in the units of their lines already."""
    tariff = book.infrastructure(at)
    if tariff is None:
        lines = tuple(PricedLine(line, quantity.value, quantity.basis) for line, quantity in quantities)
        reason = f"no infrastructure price holds at {utc(at):%Y-%m-%d %H:%M} UTC"
        return Unpriced(lines, book.digest, reason, f"add one under `infrastructure:` in config/{NAME}")
    # No list is published for what our own cloud costs: the list price is the price.
    lines = tuple(_at_cost(line, quantity, tariff.rate(line)) for line, quantity in quantities)
    return Priced(lines, tariff.currency, f"{NAME}/{tariff.id}", book.digest)


def _quantities(usage: TokenUsage, unsplit: tuple[Meter, ...]) -> Iterator[tuple[Meter, Quantity]]:
    """The tokens of each kind, each token in exactly one of them."""
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    known = worst(usage.basis, UsageBasis.ESTIMATED) if unsplit else usage.basis
    plain = None if usage.input_tokens is None else usage.input_tokens - (cached or 0) - (written or 0)
    yield Meter.INPUT, _counted(plain, known)
    if cached is not None:
        yield Meter.CACHED_INPUT, _counted(cached, usage.basis)
    if written is not None:
        yield Meter.CACHE_WRITE, _counted(written, usage.basis)
    yield Meter.OUTPUT, _counted(usage.output_tokens, usage.basis)


def _counted(tokens: int | None, known: UsageBasis) -> Quantity:
    """Tokens that nobody vouches for are not known, whatever their number says."""
    if tokens is None or known is UsageBasis.UNREPORTED:
        return Quantity(None, UsageBasis.UNREPORTED)
    return Quantity(Decimal(tokens), known)


def _unsplit(usage: TokenUsage, price: Price) -> tuple[Meter, ...]:
    """The kinds of input with a price of their own of which it is not known how many tokens there are."""
    missing = [
        line
        for line, count in ((Meter.CACHED_INPUT, usage.cached_tokens), (Meter.CACHE_WRITE, usage.cache_write_tokens))
        if count is None and price.contracted.get(line) not in (None, price.contracted[Meter.INPUT])
    ]
    rest = (usage.input_tokens or 0) - (usage.cached_tokens or 0) - (usage.cache_write_tokens or 0)
    return tuple(missing) if rest > 0 else ()


def _tier(price: Price, usage: TokenUsage) -> int | None:
    """The highest start among the steps that the request is on."""
    reached = max(step_at(steps, usage.input_tokens or 0)[0] for steps in price.contracted.values())
    return None if reached == BASE else reached


def _token_line(price: Price, line: Meter, quantity: Quantity, usage: TokenUsage) -> PricedLine:
    contracted = _unit_price(price.contracted, line, usage)
    listed = _unit_price(price.listed, line, usage)
    listed = contracted if listed is None else listed  # a list without that price has nothing to compare with
    if usage.input_tokens is None and len(price.contracted[Meter.INPUT]) > 1 and quantity.value is not None:
        quantity = Quantity(quantity.value, worst(quantity.basis, UsageBasis.ESTIMATED))  # of which tier, is not known
    return _line(line, quantity, contracted, listed)


def _unit_price(schedule: Schedule, line: Meter, usage: TokenUsage) -> Decimal | None:
    """Cached and cache-written input without a price of its own costs as plain input does."""
    steps = schedule.get(line)
    if steps is None and line is Meter.OUTPUT:
        return None
    return step_at(steps or schedule[Meter.INPUT], usage.input_tokens or 0)[1]


def _line(line: Meter, quantity: Quantity, unit_price: Decimal | None, list_price: Decimal | None) -> PricedLine:
    per, value = line.unit.per, quantity.value
    amount = None if value is None or unit_price is None else amount_of(value, unit_price, per)
    listed = amount  # mostly, the list price is the price: reckoned once
    if list_price is not unit_price:
        listed = None if value is None or list_price is None else amount_of(value, list_price, per)
    return PricedLine(line, value, quantity.basis, unit_price, amount, list_price, listed)


def _at_cost(line: Meter, quantity: Quantity, rate: Decimal) -> PricedLine:
    return _line(line, quantity, rate, rate)


def _work(work: Work, months: Decimal) -> Iterator[tuple[Meter, Quantity]]:
    """The quantities that the work has, in the units of their lines."""
    if work.active_seconds is not None:
        yield Meter.COMPUTE, work.active_seconds
    if work.step_writes is not None:
        yield Meter.STEP_WRITES, work.step_writes
    if work.retained_bytes is not None:
        yield Meter.RETAINED_BYTES, _times(work.retained_bytes, product(_GB, months))
    if work.log_bytes is not None:
        yield Meter.LOG_BYTES, _times(work.log_bytes, _GB)


def _times(quantity: Quantity, factor: Decimal) -> Quantity:
    return quantity if quantity.value is None else Quantity(product(quantity.value, factor), quantity.basis)


def _sum(amounts: Iterator[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return total(known) if known else None


# From prices to charges: each line of a call or of a step's work, with all that it is attributed by.


def charge_call(
    book: PriceBook, usage: TokenUsage, origin: Origin, *, mode: Mode = Mode.STANDARD, wasted: bool = False
) -> tuple[Charge, ...]:
    """The charges of one model call, made at `origin.at` of `origin.model` at `origin.provider`."""
    priced = price_call(book, usage, at=origin.at, model=origin.model, provider=origin.provider, mode=mode)
    return charges_of(origin, priced, mode=mode, wasted=wasted)


def charge_work(book: PriceBook, work: Work, origin: Origin, *, wasted: bool = False) -> tuple[Charge, ...]:
    """The charges of compute and orchestration. They are no model's, so the origin's model and provider are dropped."""
    if origin.model or origin.provider or origin.component:
        origin = replace(origin, model="", provider="", component="")
    return charges_of(origin, price_work(book, work, at=origin.at), wasted=wasted)


def charges_of(
    origin: Origin, priced: CallPrice | Priced | Unpriced, *, mode: Mode = Mode.STANDARD, wasted: bool = False
) -> tuple[Charge, ...]:
    """One charge a line; an unpriced one keeps its quantity and has no amount. What used nothing at all costs nothing
    at any price: without one it is no charge, rather than one that lacks its price."""
    if isinstance(priced, Unpriced) and all(line.consumed_quantity == 0 for line in priced.lines):
        return ()
    currency, price_id = (priced.currency, priced.price_id) if isinstance(priced, Priced) else (None, None)
    where = {name: getattr(origin, name) for name in ORIGIN_FIELDS}
    return tuple(
        Charge(
            **where,
            kind=line.meter.kind,
            meter=line.meter,
            consumed_quantity=line.consumed_quantity,
            unit=line.meter.unit,
            usage_basis=line.usage_basis,
            contracted_unit_price=line.contracted_unit_price,
            contracted_cost=line.contracted_cost,
            list_unit_price=line.list_unit_price,
            list_cost=line.list_cost,
            currency=currency,
            price_id=price_id,
            book_digest=priced.book_digest,
            mode=mode,
            wasted=wasted,
        )
        for line in priced.lines
    )


def standing(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """The lines that nothing has taken back, corrections as if they had been booked so at first."""
    found = tuple(charges)
    last: dict[str, int] = {}
    for charge in found:
        if charge.correction:
            first = replace(charge, correction=0).id
            last[first] = max(last.get(first, 0), charge.correction)
    if not last:
        return found
    left = [charge for charge in found if charge.correction == last.get(replace(charge, correction=0).id, 0)]
    return tuple(replace(charge, correction=0) for charge in left if not charge.takes_back)


# What a model call used that settled nothing: failed, or begun by an execution that is gone.
#
# Nobody tells what such a call used, and unknown is not zero. It is zero only where the failure proves that no model
# worked; elsewhere it is what the step's own answer used, since that was the same question, and before there is one it
# is the reserve that was written ahead of the call.

# Nobody told us whether the sidecar repeats calls (docs/operations.md). Where it does, two refusals and its pause
# between them take less than this; a call that lasted longer may hold an earlier request, unseen by us, that timed out
# after the model had worked.
_TURNED_AWAY_WITHIN = timedelta(seconds=5)
# Shorter than that pause, longer than a busy machine takes to be refused: a breaker that refused later than this
# refused the repetition of a request that had left, and how that one failed, nobody says.
_REFUSED_AT_ONCE_WITHIN = timedelta(milliseconds=750)

NOTHING = TokenUsage(input_tokens=0, output_tokens=0, basis=UsageBasis.ESTIMATED)


def lost_usage(call: CallRecord, settled: CallRecord | None) -> TokenUsage:
    """What `call`, failed or interrupted, used or may have used; `settled` is the call that answered the same turn of
    the same step, if one has.

    An estimate, always; but an answer that came too late to settle anything keeps the usage it came with.
    """
    if call.usage.input_tokens is not None:
        return call.usage
    if _never_worked_on(call):
        return NOTHING
    known = settled.usage if settled else call.usage
    return TokenUsage(
        input_tokens=call.reserve_input if known.input_tokens is None else known.input_tokens,
        output_tokens=call.reserve_output if known.output_tokens is None else known.output_tokens,
        basis=UsageBasis.ESTIMATED,
    )


def _never_worked_on(call: CallRecord) -> bool:
    cause = FailureCause.told(call.error)
    within = _REFUSED_AT_ONCE_WITHIN if cause is FailureCause.BREAKER_OPEN else _TURNED_AWAY_WITHIN
    return call.ended_at is not None and call.ended_at - call.started_at <= within and cause.no_model_worked
