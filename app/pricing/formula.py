"""The cost formula: prices model calls and other work, and makes charges of them. Lines sum exactly to the total.

There is one line for each kind of token that is reported, even as zero. A kind of input that is not reported has no
line; its tokens are priced as plain input. If its price differs from that of plain input, the line of plain input is
`estimated`, and the call's `unsplit` names the kind.
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
    """Priced lines. Their sums leave out lines whose cost is not known, and are None if none is known."""

    lines: tuple[PricedLine, ...]
    currency: str
    price_id: str
    book_digest: str

    @property
    def contracted_cost(self) -> Decimal | None:
        """The sum of what is paid, as far as it is known (see `cost_basis`)."""
        return _sum(line.contracted_cost for line in self.lines)

    @property
    def list_cost(self) -> Decimal | None:
        """The sum at list prices."""
        return _sum(line.list_cost for line in self.lines)

    @property
    def cost_basis(self) -> CostBasis:
        """The worst basis of the lines."""
        return worst_of(line.cost_basis for line in self.lines)


@dataclass(frozen=True, slots=True)
class CallPrice(Priced):
    """The price of one model call.

    tier: the number of input tokens above which its prices apply; None for the base.
    unsplit: the kinds of input that have their own price but were not reported.
    """

    provider: str
    model: str
    at: datetime
    mode: Mode
    tier: int | None
    unsplit: tuple[Meter, ...]


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A call or work without a price. Its lines have quantities but no amounts, not even zero. `remedy` says how to add
    a price."""

    lines: tuple[PricedLine, ...]
    book_digest: str
    reason: str
    remedy: str
    provider: str = ""
    model: str = ""

    @property
    def cost_basis(self) -> CostBasis:
        """Always unpriced."""
        return CostBasis.UNPRICED

    def __str__(self) -> str:
        return f"unpriced: {self.reason}; {self.remedy}"


def price_call(
    book: PriceBook, usage: TokenUsage, *, at: datetime, model: str, provider: str, mode: Mode = Mode.STANDARD
) -> CallPrice | Unpriced:
    """Prices one call. `provider` is a Dapr component type or a provider id, `at` the time of the call. Raises
    ValueError for a time without a zone."""
    price = book.find(provider, model, at, mode)
    if isinstance(price, NoPrice):
        quantities = _token_quantities(usage, ())
        lines = tuple(PricedLine(meter, quantity.value, quantity.basis) for meter, quantity in quantities)
        return Unpriced(lines, book.digest, price.reason, price.remedy, provider, model)
    unsplit = _unsplit_meters(usage, price)
    tier = _tier(price, usage)
    return CallPrice(
        lines=tuple(
            _token_line(price, meter, quantity, usage) for meter, quantity in _token_quantities(usage, unsplit)
        ),
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
    """Prices compute, persisted writes, retained bytes and log bytes at the infrastructure prices of the time `at`."""
    return price_quantities(book, tuple(_work_quantities(work, book.file.retention_months)), at=at)


def price_quantities(
    book: PriceBook, quantities: Sequence[tuple[Meter, Quantity]], *, at: datetime
) -> Priced | Unpriced:
    """Prices quantities of compute and orchestration, each given in its meter's unit."""
    tariff = book.infrastructure(at)
    if tariff is None:
        lines = tuple(PricedLine(meter, quantity.value, quantity.basis) for meter, quantity in quantities)
        reason = f"no infrastructure price holds at {utc(at):%Y-%m-%d %H:%M} UTC"
        return Unpriced(lines, book.digest, reason, f"add one under `infrastructure:` in config/{NAME}")
    # No list is published for the cost of our own infrastructure, so the list price is the price.
    lines = tuple(_line(meter, quantity, tariff.rate(meter), tariff.rate(meter)) for meter, quantity in quantities)
    return Priced(lines, tariff.currency, f"{NAME}/{tariff.id}", book.digest)


def _token_quantities(usage: TokenUsage, unsplit: tuple[Meter, ...]) -> Iterator[tuple[Meter, Quantity]]:
    """The tokens of a usage by kind; each token is in exactly one kind."""
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    basis = worst(usage.basis, UsageBasis.ESTIMATED) if unsplit else usage.basis
    plain = None if usage.input_tokens is None else usage.input_tokens - (cached or 0) - (written or 0)
    yield Meter.INPUT, _token_quantity(plain, basis)
    if cached is not None:
        yield Meter.CACHED_INPUT, _token_quantity(cached, usage.basis)
    if written is not None:
        yield Meter.CACHE_WRITE, _token_quantity(written, usage.basis)
    yield Meter.OUTPUT, _token_quantity(usage.output_tokens, usage.basis)


def _token_quantity(tokens: int | None, basis: UsageBasis) -> Quantity:
    """A number of tokens as a quantity. If the basis is `unreported`, the number is dropped."""
    if tokens is None or basis is UsageBasis.UNREPORTED:
        return Quantity(None, UsageBasis.UNREPORTED)
    return Quantity(Decimal(tokens), basis)


def _unsplit_meters(usage: TokenUsage, price: Price) -> tuple[Meter, ...]:
    """The kinds of input that have their own price but were not reported."""
    missing = [
        meter
        for meter, count in ((Meter.CACHED_INPUT, usage.cached_tokens), (Meter.CACHE_WRITE, usage.cache_write_tokens))
        if count is None and price.contracted.get(meter) not in (None, price.contracted[Meter.INPUT])
    ]
    rest = (usage.input_tokens or 0) - (usage.cached_tokens or 0) - (usage.cache_write_tokens or 0)
    return tuple(missing) if rest > 0 else ()


def _tier(price: Price, usage: TokenUsage) -> int | None:
    """The number of input tokens above which the request's prices apply; None for the base. If kinds of tokens have
    different tiers, the highest one counts."""
    reached = max(step_at(steps, usage.input_tokens or 0)[0] for steps in price.contracted.values())
    return None if reached == BASE else reached


def _token_line(price: Price, meter: Meter, quantity: Quantity, usage: TokenUsage) -> PricedLine:
    contracted = _unit_price(price.contracted, meter, usage)
    listed = _unit_price(price.listed, meter, usage)
    listed = contracted if listed is None else listed  # a list without this price offers no comparison
    if usage.input_tokens is None and len(price.contracted[Meter.INPUT]) > 1 and quantity.value is not None:
        quantity = Quantity(quantity.value, worst(quantity.basis, UsageBasis.ESTIMATED))  # the tier is not known
    return _line(meter, quantity, contracted, listed)


def _unit_price(schedule: Schedule, meter: Meter, usage: TokenUsage) -> Decimal | None:
    """The unit price of a kind of token. Cached and cache-written input without its own price costs the same as plain
    input; output without a price has none."""
    steps = schedule.get(meter)
    if steps is None and meter is Meter.OUTPUT:
        return None
    return step_at(steps or schedule[Meter.INPUT], usage.input_tokens or 0)[1]


def _line(meter: Meter, quantity: Quantity, unit_price: Decimal | None, list_price: Decimal | None) -> PricedLine:
    per, value = meter.unit.per, quantity.value
    amount = None if value is None or unit_price is None else amount_of(value, unit_price, per)
    listed = amount  # the list price is mostly the price; then the amount is computed once
    if list_price is not unit_price:
        listed = None if value is None or list_price is None else amount_of(value, list_price, per)
    return PricedLine(meter, value, quantity.basis, unit_price, amount, list_price, listed)


def _work_quantities(work: Work, months: Decimal) -> Iterator[tuple[Meter, Quantity]]:
    """The quantities of the work's parts, in their meters' units. `months`: how long the record is kept."""
    if work.active_seconds is not None:
        yield Meter.COMPUTE, work.active_seconds
    if work.step_writes is not None:
        yield Meter.STEP_WRITES, work.step_writes
    if work.retained_bytes is not None:
        yield Meter.RETAINED_BYTES, _multiply(work.retained_bytes, product(_GB, months))
    if work.log_bytes is not None:
        yield Meter.LOG_BYTES, _multiply(work.log_bytes, _GB)


def _multiply(quantity: Quantity, factor: Decimal) -> Quantity:
    return quantity if quantity.value is None else Quantity(product(quantity.value, factor), quantity.basis)


def _sum(amounts: Iterator[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return total(known) if known else None


def charge_call(
    book: PriceBook, usage: TokenUsage, origin: Origin, *, mode: Mode = Mode.STANDARD, wasted: bool = False
) -> tuple[Charge, ...]:
    """The charges of one model call. Time, model and provider are those of `origin`."""
    priced = price_call(book, usage, at=origin.at, model=origin.model, provider=origin.provider, mode=mode)
    return charges_of(origin, priced, mode=mode, wasted=wasted)


def charge_work(book: PriceBook, work: Work, origin: Origin, *, wasted: bool = False) -> tuple[Charge, ...]:
    """The charges of compute and orchestration. The origin's model, provider and component are dropped, because this
    work belongs to none."""
    if origin.model or origin.provider or origin.component:
        origin = replace(origin, model="", provider="", component="")
    return charges_of(origin, price_work(book, work, at=origin.at), wasted=wasted)


def charges_of(
    origin: Origin, priced: CallPrice | Priced | Unpriced, *, mode: Mode = Mode.STANDARD, wasted: bool = False
) -> tuple[Charge, ...]:
    """One charge for each line. A charge without a price keeps its quantity and has no amount. If all quantities are
    zero and there is no price, there is no charge: zero costs nothing at any price."""
    if isinstance(priced, Unpriced) and all(line.consumed_quantity == 0 for line in priced.lines):
        return ()
    currency, price_id = (priced.currency, priced.price_id) if isinstance(priced, Priced) else (None, None)
    attribution = {name: getattr(origin, name) for name in ORIGIN_FIELDS}
    return tuple(
        Charge(
            **attribution,
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


def effective_charges(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """The charges after all corrections: those that were taken back are left out, and each replacement has
    `correction` 0, as if it were the first charge."""
    booked = tuple(charges)
    last: dict[str, int] = {}
    for charge in booked:
        if charge.correction:
            first = replace(charge, correction=0).id
            last[first] = max(last.get(first, 0), charge.correction)
    if not last:
        return booked
    newest = [charge for charge in booked if charge.correction == last.get(replace(charge, correction=0).id, 0)]
    return tuple(replace(charge, correction=0) for charge in newest if not charge.takes_back)


# A failure that proves that no model worked proves it only for the call's last request. The sidecar may be configured
# to repeat calls (docs/operations.md), which we cannot see. Two refusals with its pause between them take less than
# this; a longer call may include an earlier request that timed out after the model had worked.
_REFUSED_WITHIN = timedelta(seconds=5)
# Shorter than that pause, and longer than a refusal takes on a busy machine. A breaker that refused later than this
# refused a repeat, and how the earlier request failed is not known.
_BREAKER_REFUSED_WITHIN = timedelta(milliseconds=750)

NOTHING = TokenUsage(input_tokens=0, output_tokens=0, basis=UsageBasis.ESTIMATED)


def lost_usage(call: CallRecord, settled: CallRecord | None) -> TokenUsage:
    """The usage of a call that failed or was interrupted. `settled`: the call that answered the same turn of the same
    step; None if there is none yet.

    If an answer came too late, its own usage. Otherwise an estimate, because unknown is not zero: zero only if the
    failure proves that no model worked; else the usage of `settled`, which asked the same question; else the reserve
    that was written before the call.
    """
    if call.usage.input_tokens is not None:
        return call.usage
    if _is_free(call):
        return NOTHING
    similar = settled.usage if settled else call.usage
    return TokenUsage(
        input_tokens=call.reserve_input if similar.input_tokens is None else similar.input_tokens,
        output_tokens=call.reserve_output if similar.output_tokens is None else similar.output_tokens,
        basis=UsageBasis.ESTIMATED,
    )


def _is_free(call: CallRecord) -> bool:
    """Whether it is certain that no model worked on the call."""
    cause = FailureCause.from_error(call.error)
    within = _BREAKER_REFUSED_WITHIN if cause is FailureCause.BREAKER_OPEN else _REFUSED_WITHIN
    return call.ended_at is not None and call.ended_at - call.started_at <= within and cause.no_model_worked
