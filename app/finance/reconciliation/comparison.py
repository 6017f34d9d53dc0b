"""Compares our record with a provider's bill: which calls it may hold, their tokens, and its money."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType

from app.domain.models import UsageBasis
from app.domain.money import ZERO, add, amount_of, difference, product
from app.finance.reconciliation.bill import (
    CLOCK_TOLERANCE,
    LONGEST_CALL,
    LONGEST_DELAY,
    NO_ENDS,
    NONE,
    Amount,
    Bill,
    BillFormat,
    Claim,
    Count,
    claims_of,
    total,
)
from app.finance.reconciliation.by_request import UnattributedRetries, cells_of, compare_requests, in_time_of
from app.finance.reconciliation.by_sum import compare_sums
from app.finance.reconciliation.reconciliation_types import (
    BilledMoney,
    BillFinding,
    Cell,
    DifferenceCause,
    MoneyOutcome,
    Reconciliation,
)
from app.pricing.book import PriceBook
from app.pricing.charge_types import TOKEN_METERS, CallRecord, Charge, CostBasis, CostKind, Meter, Unit
from app.pricing.providers import SPEAKS_OPENAI, UNBILLED, may_bill, provider_id
from app.pricing.schedule import NoPrice, rates_at, tier_starts


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices per million tokens by kind; a kind without its own price costs as much as input."""

    contracted: Mapping[Meter, Decimal]
    listed: Mapping[Meter, Decimal]


RatesOf = Callable[[str, str, datetime], Rates | None]


Priced = Callable[[str, str, datetime], bool]
# How long before the beginning of a bill a call on it may have started.
MARGIN = LONGEST_CALL + LONGEST_DELAY + CLOCK_TOLERANCE
_DATED = re.compile(r"(.+)-(?:\d{4}-\d{2}-\d{2}|\d{8})")


def _no_rates(_provider: str, _model: str, _at: datetime) -> None:
    """The default of `reconcile`: no price is known."""


def reconcile(
    calls: Iterable[CallRecord],
    bill: Bill,
    priced: Priced | None = None,
    unattributed: Sequence[UnattributedRetries] = (),
    charges: Iterable[Charge] = (),
    rates: RatesOf = _no_rates,
    ends: Mapping[str, datetime] = NO_ENDS,
) -> Reconciliation:
    """Compares our record with the bill.

    calls: every row of the journal from `MARGIN` before the bill's time to its end. priced(provider, model, at):
    whether there is a price; without it, no call counts as unpriced. unattributed: sidecar retries that cannot be
    attributed to a call. charges: our charges of the bill's time, and rates: our prices; both are needed for a bill
    with money. ends: ends of unfinished calls by call id.
    """
    ours = tuple(calls)
    billed = {row.model for row in bill.rows} | {amount.model for amount in bill.amounts}
    same = same_model({call.model for call in ours}, billed)
    bill = replace(bill, rows=tuple(replace(row, model=same.get(row.model, row.model)) for row in bill.rows))
    claims = claims_of(ours, ends)
    providers = billed_by(bill)
    covered = tuple(
        claim for claim in claims if _may_reach(claim, bill) and _may_be_billed_by(providers, claim.call.provider)
    )
    inside = [claim for claim in claims if in_time_of(bill, claim)]
    compared = [claim for claim in inside if _may_be_billed_by(providers, claim.call.provider)]
    others = Counter(claim.call.provider for claim in inside if not _may_be_billed_by(providers, claim.call.provider))
    lacking = frozenset(claim.call.call_id for claim in covered if not _has_price(claim, priced))
    findings, cells, agreeing = _compare_tokens(covered, bill, lacking, unattributed)
    absent = sum(finding.cause is DifferenceCause.UNKNOWN_PROVIDER and finding.billed == NONE for finding in findings)
    charges_of_bill = (
        charge
        for charge in charges
        if charge.provider and _may_be_billed_by(providers, charge.provider) and _covers(bill, charge.at)
    )
    return Reconciliation(
        bill=bill,
        findings=tuple(finding for finding in findings if finding.cause is not DifferenceCause.AGREES),
        cells=cells,
        compared=len(compared),
        agreeing=agreeing,
        outside=len(claims) - len(inside),
        same_model=same,
        unpriced=_unpriced(covered, lacking),
        money=compare_money(bill, charges_of_bill, same, rates),
        uncached=sum(claim.record.cached_tokens is None for claim in compared),
        others=dict(sorted(others.items())),
        whose=() if providers else tuple(sorted({claim.call.provider for claim in compared} - {""})),
        unknown_provider=sum(claim.lacks_provider for claim in compared),
        absent=absent,
    )


def _compare_tokens(
    claims: Sequence[Claim], bill: Bill, lacking: frozenset[str], unattributed: Sequence[UnattributedRetries]
) -> tuple[tuple[BillFinding, ...], tuple[Cell, ...], int]:
    """The findings, the cells, and the number of calls that agree to the token; nothing if the bill has no tokens."""
    if not bill.counts:
        return (), (), 0
    if not bill.by_request:
        return compare_sums(claims, bill, lacking, unattributed)
    findings = compare_requests(claims, bill, unattributed)
    return findings, cells_of(findings, lacking), sum(finding.cause is DifferenceCause.AGREES for finding in findings)


def same_model(ours: set[str], billed: set[str]) -> dict[str, str]:
    """Model names on the bill -> ours: a bill may add a date to a model's name that our record lacks."""
    matches = {name: _DATED.fullmatch(name) for name in billed - ours}
    return {name: match[1] for name, match in sorted(matches.items()) if match and match[1] in ours}


def _may_reach(claim: Claim, bill: Bill) -> bool:
    """Whether a request of the call may have arrived in the bill's time, also long after the call gave up."""
    if bill.since is not None and max(claim.until + CLOCK_TOLERANCE, claim.last) < bill.since:
        return False
    return bill.until is None or claim.since - CLOCK_TOLERANCE < bill.until


def billed_by(bill: Bill) -> frozenset[str]:
    """Our ids of the bill's providers; empty if it does not name them. The sandbox names the protocols that it was
    called in, and stands for every provider that speaks them."""
    providers = bill.providers or frozenset(row.provider for row in bill.rows)
    if "" in providers:
        return frozenset()
    return providers | SPEAKS_OPENAI if bill.format is BillFormat.SANDBOX and "openai" in providers else providers


def _covers(bill: Bill, at: datetime) -> bool:
    return (bill.since is None or at >= bill.since) and (bill.until is None or at < bill.until)


def _may_be_billed_by(providers: frozenset[str], component: str) -> bool:
    """Whether a bill of these providers may hold calls of a component type; always if the component is unknown."""
    if not component:
        return True
    if not providers:
        return provider_id(component) not in UNBILLED
    return any(may_bill(provider, component) for provider in providers)


def _has_price(claim: Claim, priced: Priced | None) -> bool:
    call = claim.call
    return priced is None or not claim.record.tokens or priced(call.provider, call.model, call.started_at)


def _unpriced(claims: Sequence[Claim], lacking: frozenset[str]) -> Mapping[tuple[str, str], int]:
    tokens: dict[tuple[str, str], int] = {}
    for claim in claims:
        if claim.call.call_id in lacking:
            key = (claim.call.provider, claim.call.model)
            tokens[key] = tokens.get(key, 0) + claim.record.tokens
    return dict(sorted(tokens.items()))


# The money of a bill and our charges are compared by model and day, or by the bill's own period if that is longer. If
# the bill also has tokens, their value at our prices shows whether prices or tokens differ. Amounts are compared to as
# many digits as the bill writes.

_DAY = timedelta(days=1)
_HALF_A_CENT = Decimal("0.005")  # the most that a provider's rounding changes one amount
_FLOAT = Decimal("1e-9")  # the share of an amount that is lost if it was a float
_HALF = Decimal("0.5")


@dataclass
class _Charged:
    """Our charges for one model in one period, in one currency. `unknown`: whether some have no known cost."""

    contracted: Decimal = ZERO
    listed: Decimal = ZERO
    estimated: Decimal = ZERO
    unknown: bool = False
    tokens: dict[Meter, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    model: tuple[str, str] = ("", "")

    def take(self, charge: Charge) -> None:
        """Adds a charge."""
        self.model = (charge.provider, charge.model)
        if charge.consumed_quantity is not None:
            self.tokens[charge.meter] = add(self.tokens[charge.meter], charge.consumed_quantity)
        if charge.contracted_cost is None:
            self.unknown = True
            return
        self.contracted = add(self.contracted, charge.contracted_cost)
        self.listed = add(self.listed, charge.list_cost if charge.list_cost is not None else charge.contracted_cost)
        if charge.usage_basis is not UsageBasis.REPORTED:
            self.estimated = add(self.estimated, abs(charge.contracted_cost))


_Span = tuple[datetime, datetime]
_Key = tuple[str, _Span]


def rates_of(book: PriceBook) -> RatesOf:
    """The prices of a book as a function. It returns None if there is no price, or if the price has tiers, because
    these depend on the size of each request, which sums do not show."""

    def rates(provider: str, model: str, at: datetime) -> Rates | None:
        price = book.find(provider, model, at)
        if isinstance(price, NoPrice) or len(tier_starts(price.contracted)) + len(tier_starts(price.listed)) > 2:
            return None
        return Rates(rates_at(price.contracted, 0), rates_at(price.listed, 0))

    return rates


def compare_money(
    bill: Bill, charges: Iterable[Charge], model_of: Mapping[str, str], rates: RatesOf
) -> tuple[BilledMoney, ...]:
    """Compares every amount of the bill with our charges, ordered by time. `charges`: those of the bill's providers and
    time. `model_of`: model names on the bill -> ours. Empty if the bill has no money."""
    if not bill.amounts:
        return ()
    by_model = any(amount.model for amount in bill.amounts)
    billed_amounts: defaultdict[tuple[_Key, str], list[Amount]] = defaultdict(list)
    for amount in bill.amounts:
        billed_amounts[
            (model_of.get(amount.model, amount.model), _span(amount.since, amount.until)), amount.currency
        ].append(amount)
    spans = sorted({span for (_, span), _ in billed_amounts})
    ours, unpriced = _sum_charges(charges, spans, by_model=by_model)
    tokens = _sum_tokens(bill, spans, model_of, by_model=by_model)
    places = max(_places(amount.money) for amount in bill.amounts)
    cells = [
        _money_cell(key, currency, amounts, ours, unpriced, tokens.get(key), rates, places)
        for (key, currency), amounts in billed_amounts.items()
    ]
    billed = {key for key, _ in billed_amounts}
    cells += [
        BilledMoney(model, *span, currency, MoneyOutcome.NOT_BILLED, ZERO, charged.contracted, charged.listed)
        for ((model, span), currency), charged in ours.items()
        if (model, span) not in billed and charged.contracted
    ]
    return tuple(sorted(cells, key=lambda cell: (cell.since, cell.model, cell.currency)))


def _span(since: datetime, until: datetime) -> _Span:
    """The UTC day that contains the period, or the period itself if no day contains it."""
    day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day, day + _DAY) if until <= day + _DAY else (since, until)


def _span_at(spans: Sequence[_Span], at: datetime) -> _Span | None:
    return next((span for span in spans if span[0] <= at < span[1]), None)


def _sum_charges(
    charges: Iterable[Charge], spans: Sequence[_Span], *, by_model: bool
) -> tuple[dict[tuple[_Key, str], _Charged], set[_Key]]:
    """Our charges by model (if the bill names models), period and currency; and the keys with unpriced charges."""
    sums: defaultdict[tuple[_Key, str], _Charged] = defaultdict(_Charged)
    unpriced: set[_Key] = set()
    for charge in charges:
        span = _span_at(spans, charge.at)
        if span is None or charge.kind is not CostKind.MODEL or charge.unit is not Unit.TOKENS:
            continue
        key = (charge.model if by_model else "", span)
        if charge.cost_basis is CostBasis.UNPRICED:
            if charge.consumed_quantity != 0:
                unpriced.add(key)
        else:
            sums[key, charge.currency or ""].take(charge)
    return dict(sums), unpriced


def _sum_tokens(
    bill: Bill, spans: Sequence[_Span], model_of: Mapping[str, str], *, by_model: bool
) -> dict[_Key, tuple[Count, int]]:
    """The bill's count by model (if its amounts name models) and period, and its tokens written to the cache."""
    counts_of: defaultdict[_Key, list[tuple[Count, int]]] = defaultdict(list)
    for row in bill.rows:
        span = _span_at(spans, row.since)
        if span is not None:
            counts_of[model_of.get(row.model, row.model) if by_model else "", span].append((row.count, row.written))
    return {
        key: (total(count for count, _ in counts), sum(written for _, written in counts))
        for key, counts in counts_of.items()
    }


def _money_cell(
    key: _Key,
    currency: str,
    amounts: Sequence[Amount],
    ours: Mapping[tuple[_Key, str], _Charged],
    unpriced: set[_Key],
    tokens: tuple[Count, int] | None,
    rates: RatesOf,
    places: int,
) -> BilledMoney:
    model, (since, until) = key
    billed = ZERO
    for amount in amounts:
        billed = add(billed, amount.money)
    charged = ours.get((key, currency))
    slack = _slack(billed, len(amounts), places)

    def money(
        outcome: MoneyOutcome, expected: Decimal | None = None, implied: Mapping[Meter, Decimal] = MappingProxyType({})
    ) -> BilledMoney:
        contracted, listed = (charged.contracted, charged.listed) if charged else (None, None)
        return BilledMoney(model, since, until, currency, outcome, billed, contracted, listed, expected, implied)

    if key in unpriced:
        return money(MoneyOutcome.UNPRICED)
    if charged is None:
        if any(other == key for other, _ in ours):
            return money(MoneyOutcome.OTHER_CURRENCY)
        return money(MoneyOutcome.NOT_OURS if abs(billed) > slack else MoneyOutcome.AGREES)
    if abs(difference(billed, charged.contracted)) <= slack and not charged.unknown:
        return money(MoneyOutcome.AGREES)
    price = rates(*charged.model, since) if model and tokens else None
    if tokens and price:
        return _compare_with_tokens(money, billed, slack, charged, tokens, price)
    if abs(difference(billed, charged.listed)) <= slack and charged.listed != charged.contracted:
        return money(MoneyOutcome.LIST_PRICE)
    reported = difference(charged.contracted, charged.estimated)
    most = add(add(reported, product(charged.estimated, Decimal(2))), slack)
    uncertain = bool(charged.estimated) or charged.unknown
    if uncertain and billed >= difference(reported, slack) and (charged.unknown or billed <= most):
        return money(MoneyOutcome.ESTIMATES)
    return money(MoneyOutcome.DIFFERS)


def _compare_with_tokens(
    money: Callable[..., BilledMoney],
    billed: Decimal,
    slack: Decimal,
    charged: _Charged,
    tokens: tuple[Count, int],
    price: Rates,
) -> BilledMoney:
    """The outcome for an amount whose tokens the bill names: their value at our prices shows what differs."""
    splits = list(_token_splits(tokens, charged))
    at_ours = [_value(split, price.contracted) for split in splits]
    expected = at_ours[0] if len(splits) == 1 else None
    if min(at_ours) - slack <= billed <= max(at_ours) + slack:
        return money(MoneyOutcome.TOKENS, expected)
    at_list = [_value(split, price.listed) for split in splits]
    if min(at_list) - slack <= billed <= max(at_list) + slack:
        return money(MoneyOutcome.LIST_PRICE, expected)
    implied = {}
    if len(splits) == 1:
        implied = dict(_implied_prices(splits[0], price.contracted, difference(billed, at_ours[0])))
    return money(MoneyOutcome.OTHER_PRICE, expected, implied=implied)


def _token_splits(tokens: tuple[Count, int], charged: _Charged) -> Iterator[dict[Meter, int]]:
    """The bill's tokens by kind. If the bill does not name the cached tokens, they are those of our charges if the
    input is equal; otherwise there are two splits, with none and with all of the input cached."""
    count, written = tokens
    entered = sum(charged.tokens.get(line, ZERO) for line in (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE))
    if count.cached_tokens is not None:
        cached: tuple[int, ...] = (count.cached_tokens,)
    elif entered == count.input_tokens:
        cached = (int(charged.tokens.get(Meter.CACHED_INPUT, ZERO)),)
    else:
        cached = (0, count.input_tokens - written)
    for cached_tokens in cached:
        yield {
            Meter.INPUT: count.input_tokens - cached_tokens - written,
            Meter.CACHED_INPUT: cached_tokens,
            Meter.CACHE_WRITE: written,
            Meter.OUTPUT: count.output_tokens,
        }


def _value(tokens: Mapping[Meter, int], prices: Mapping[Meter, Decimal]) -> Decimal:
    value = ZERO
    for line in TOKEN_METERS:
        value = add(value, amount_of(Decimal(tokens[line]), _price(prices, line), Unit.TOKENS.per))
    return value


def _price(prices: Mapping[Meter, Decimal], line: Meter) -> Decimal:
    return prices.get(line, prices[Meter.INPUT])


def _implied_prices(
    tokens: Mapping[Meter, int], prices: Mapping[Meter, Decimal], excess: Decimal
) -> Iterator[tuple[Meter, Decimal]]:
    """For each kind of token, the price per million that would account for the excess of the bill, to six decimal
    places; a kind that would need a negative price is left out."""
    for line in TOKEN_METERS:
        if tokens[line]:
            price = _price(prices, line) + excess * Unit.TOKENS.per / tokens[line]
            if price >= 0:
                yield line, price.quantize(Decimal("1e-6")).normalize()


def _slack(billed: Decimal, amounts: int, places: int) -> Decimal:
    """The tolerance for a sum of `amounts` amounts, each rounded to `places` decimal places."""
    rounding = min(_HALF.scaleb(-places), _HALF_A_CENT)
    return add(product(rounding, Decimal(amounts)), product(abs(billed), _FLOAT))


def _places(money: Decimal) -> int:
    exponent = money.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
