"""Compares our record with a provider's bill: which calls are its, their tokens, and its money. Pure."""

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
from app.finance.reconciliation.by_request import UnattributedRetries, cells_of, compare_requests, under_way
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
from app.pricing.charge_types import TOKEN_LINES, CallRecord, Charge, CostBasis, CostKind, Meter, Unit
from app.pricing.providers import SPEAKS_OPENAI, UNBILLED, may_bill, provider_id
from app.pricing.schedule import NoPrice, rates_at, tier_starts


@dataclass(frozen=True, slots=True)
class Rates:
    """What a million tokens of each kind cost at some time; a kind without a price of its own costs as input does."""

    contracted: Mapping[Meter, Decimal]
    listed: Mapping[Meter, Decimal]


RatesOf = Callable[[str, str, datetime], Rates | None]


Priced = Callable[[str, str, datetime], bool]
# How much earlier than a bill begins a call may have begun that stands on it.
MARGIN = LONGEST_CALL + LONGEST_DELAY + CLOCK_TOLERANCE
_DATED = re.compile(r"(.+)-(?:\d{4}-\d{2}-\d{2}|\d{8})")


def _no_rates(_provider: str, _model: str, _at: datetime) -> None:
    """No price is known."""


def reconcile(
    calls: Iterable[CallRecord],
    bill: Bill,
    priced: Priced | None = None,
    unattributed: Sequence[UnattributedRetries] = (),
    charges: Iterable[Charge] = (),
    rates: RatesOf = _no_rates,
    ends: Mapping[str, datetime] = NO_ENDS,
) -> Reconciliation:
    """Our record against the bill.

    calls: every row of the journal of the bill's time, and of `MARGIN` before it. priced: tells whether a model of a
    provider has a price at an instant; without it, none is said to lack one. unattributed: sidecar retries that
    cannot be attributed to a call. charges: what we have booked in the bill's time; rates: what tokens cost by our
    prices. Both are for a bill that names money. ends: when unfinished calls were over, by call id.
    """
    ours = tuple(calls)
    billed = {row.model for row in bill.rows} | {amount.model for amount in bill.amounts}
    same = same_model({call.model for call in ours}, billed)
    bill = replace(bill, rows=tuple(replace(row, model=same.get(row.model, row.model)) for row in bill.rows))
    claims = claims_of(ours, ends)
    providers = billed_by(bill)
    covered = tuple(claim for claim in claims if _in_time(bill, claim) and _may_stand(claim.call.provider, providers))
    inside = [claim for claim in claims if under_way(claim, bill)]
    compared = [claim for claim in inside if _may_stand(claim.call.provider, providers)]
    others = Counter(claim.call.provider for claim in inside if not _may_stand(claim.call.provider, providers))
    lacking = frozenset(claim.call.call_id for claim in covered if not _has_price(claim, priced))
    findings, cells, agreeing = _compared(covered, bill, lacking, unattributed)
    absent = [other for other in findings if other.cause is DifferenceCause.UNKNOWN_PROVIDER and other.billed == NONE]
    mine = (charge for charge in charges if charge.provider and _may_stand(charge.provider, providers))
    return Reconciliation(
        bill=bill,
        findings=tuple(finding for finding in findings if finding.cause is not DifferenceCause.AGREES),
        cells=cells,
        compared=len(compared),
        agreeing=agreeing,
        outside=len(claims) - len(inside),
        same_model=same,
        unpriced=_unpriced(covered, lacking),
        money=compare_money(bill, (call for call in mine if _in_bill(bill, call.at)), same, rates),
        uncached=sum(claim.record.cached_tokens is None for claim in compared),
        others=dict(sorted(others.items())),
        whose=() if providers else tuple(sorted({claim.call.provider for claim in compared} - {""})),
        unknown_provider=sum(claim.homeless for claim in compared),
        absent=len(absent),
    )


def _compared(
    claims: Sequence[Claim], bill: Bill, lacking: frozenset[str], unattributed: Sequence[UnattributedRetries]
) -> tuple[tuple[BillFinding, ...], tuple[Cell, ...], int]:
    """The findings, the cells, and how many calls stand on the bill to the token; nothing when it names no tokens."""
    if not bill.counts:
        return (), (), 0
    if not bill.by_request:
        return compare_sums(claims, bill, lacking, unattributed)
    findings = compare_requests(claims, bill, unattributed)
    return findings, cells_of(findings, lacking), sum(finding.cause is DifferenceCause.AGREES for finding in findings)


def same_model(ours: set[str], billed: set[str]) -> dict[str, str]:
    """Names on the bill -> ours: a bill may name the dated version of a model that we know without its date."""
    matches = {name: _DATED.fullmatch(name) for name in billed - ours}
    return {name: match[1] for name, match in sorted(matches.items()) if match and match[1] in ours}


def _in_time(bill: Bill, claim: Claim) -> bool:
    if bill.since is not None and max(claim.until + CLOCK_TOLERANCE, claim.last) < bill.since:
        return False
    return bill.until is None or claim.since - CLOCK_TOLERANCE < bill.until


def billed_by(bill: Bill) -> frozenset[str]:
    """Our ids for whose bill it is; empty when it does not say. The sandbox says which protocol it was asked in, and
    plays everybody who speaks it."""
    providers = bill.providers or frozenset(row.provider for row in bill.rows)
    if "" in providers:
        return frozenset()
    return providers | SPEAKS_OPENAI if bill.format is BillFormat.SANDBOX and "openai" in providers else providers


def _in_bill(bill: Bill, at: datetime) -> bool:
    return (bill.since is None or at >= bill.since) and (bill.until is None or at < bill.until)


def _may_stand(component: str, providers: frozenset[str]) -> bool:
    """Whether a call may stand on a bill of those providers: always, when its provider is not known."""
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


# The money of a bill against our charges: by model and day, or by the bill's own stretch where that is longer.
#
# Where the bill names tokens as well, they tell a price that differs from a quantity that differs: the bill's own
# tokens at our prices must come to its money. Amounts are compared as far as the bill writes them.

_DAY = timedelta(days=1)
# What a provider rounds one amount to at most: half a cent. And what a float loses of its last digits.
_HALF_A_CENT = Decimal("0.005")
_FLOAT = Decimal("1e-9")
_HALF = Decimal("0.5")


@dataclass
class _Ours:
    """Our charges for one model in one stretch, in one currency."""

    contracted: Decimal = ZERO
    listed: Decimal = ZERO
    estimated: Decimal = ZERO
    unknown: bool = False
    tokens: dict[Meter, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    model: tuple[str, str] = ("", "")

    def take(self, charge: Charge) -> None:
        """Adds one."""
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
    """A book's prices. None for what it has no price for, and where a price has tiers: what a tier costs depends on
    each request, which sums do not tell."""

    def rates(provider: str, model: str, at: datetime) -> Rates | None:
        price = book.find(provider, model, at)
        if isinstance(price, NoPrice) or len(tier_starts(price.contracted)) + len(tier_starts(price.listed)) > 2:
            return None
        return Rates(rates_at(price.contracted, 0), rates_at(price.listed, 0))

    return rates


def compare_money(
    bill: Bill, charges: Iterable[Charge], model_of: Mapping[str, str], rates: RatesOf
) -> tuple[BilledMoney, ...]:
    """Every amount of the bill against our charges of its providers, by time. `charges`: of the bill's providers and
    time. `model_of`: names on the bill -> ours. Nothing without money on the bill."""
    if not bill.amounts:
        return ()
    named = any(amount.model for amount in bill.amounts)
    billed_amounts: defaultdict[tuple[_Key, str], list[Amount]] = defaultdict(list)
    for amount in bill.amounts:
        billed_amounts[
            (model_of.get(amount.model, amount.model), _span(amount.since, amount.until)), amount.currency
        ].append(amount)
    spans = sorted({span for (_, span), _ in billed_amounts})
    ours, unpriced = _ours(charges, spans, named=named)
    counts = _counts(bill, spans, model_of, named=named)
    places = max(_places(amount.money) for amount in bill.amounts)
    cells = [
        _cell(key, currency, amounts, ours, unpriced, counts.get(key), rates, places)
        for (key, currency), amounts in billed_amounts.items()
    ]
    billed = {key for key, _ in billed_amounts}
    cells += [
        BilledMoney(model, *span, currency, MoneyOutcome.NOT_BILLED, ZERO, own.contracted, own.listed)
        for ((model, span), currency), own in ours.items()
        if (model, span) not in billed and own.contracted
    ]
    return tuple(sorted(cells, key=lambda cell: (cell.since, cell.model, cell.currency)))


def _span(since: datetime, until: datetime) -> _Span:
    """The day that holds the time, in UTC; the time itself when it is longer than that, or lies over midnight."""
    day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day, day + _DAY) if until <= day + _DAY else (since, until)


def _holding(spans: Sequence[_Span], at: datetime) -> _Span | None:
    return next((span for span in spans if span[0] <= at < span[1]), None)


def _ours(
    charges: Iterable[Charge], spans: Sequence[_Span], *, named: bool
) -> tuple[dict[tuple[_Key, str], _Ours], set[_Key]]:
    """Our charges by what the bill is split by, and by currency; and where some of them have no price."""
    sums: defaultdict[tuple[_Key, str], _Ours] = defaultdict(_Ours)
    unpriced: set[_Key] = set()
    for charge in charges:
        span = _holding(spans, charge.at)
        if span is None or charge.kind is not CostKind.MODEL or charge.unit is not Unit.TOKENS:
            continue
        key = (charge.model if named else "", span)
        if charge.cost_basis is CostBasis.UNPRICED:
            if charge.consumed_quantity != 0:
                unpriced.add(key)
        else:
            sums[key, charge.currency or ""].take(charge)
    return dict(sums), unpriced


def _counts(
    bill: Bill, spans: Sequence[_Span], model_of: Mapping[str, str], *, named: bool
) -> dict[_Key, tuple[Count, int]]:
    """The bill's tokens by what its money is split by, with how many of them were written to the cache."""
    counts_of: defaultdict[_Key, list[tuple[Count, int]]] = defaultdict(list)
    for row in bill.rows:
        span = _holding(spans, row.since)
        if span is not None:
            counts_of[model_of.get(row.model, row.model) if named else "", span].append((row.count, row.written))
    return {
        key: (total(count for count, _ in counts), sum(written for _, written in counts))
        for key, counts in counts_of.items()
    }


def _cell(
    key: _Key,
    currency: str,
    amounts: Sequence[Amount],
    ours: Mapping[tuple[_Key, str], _Ours],
    unpriced: set[_Key],
    counted: tuple[Count, int] | None,
    rates: RatesOf,
    places: int,
) -> BilledMoney:
    model, (since, until) = key
    billed = ZERO
    for amount in amounts:
        billed = add(billed, amount.money)
    mine = ours.get((key, currency))
    slack = _slack(billed, len(amounts), places)

    def made(
        outcome: MoneyOutcome, expected: Decimal | None = None, implied: Mapping[Meter, Decimal] = MappingProxyType({})
    ) -> BilledMoney:
        contracted, listed = (mine.contracted, mine.listed) if mine else (None, None)
        return BilledMoney(model, since, until, currency, outcome, billed, contracted, listed, expected, implied)

    if key in unpriced:
        return made(MoneyOutcome.UNPRICED)
    if mine is None:
        elsewhere = any(other == key for other, _ in ours)
        return made(
            MoneyOutcome.OTHER_CURRENCY
            if elsewhere
            else MoneyOutcome.NOT_OURS
            if abs(billed) > slack
            else MoneyOutcome.AGREES
        )
    if abs(difference(billed, mine.contracted)) <= slack and not mine.unknown:
        return made(MoneyOutcome.AGREES)
    price = rates(*mine.model, since) if model and counted else None
    if counted and price:
        return _by_tokens(made, billed, slack, mine, counted, price)
    if abs(difference(billed, mine.listed)) <= slack and mine.listed != mine.contracted:
        return made(MoneyOutcome.LIST_PRICE)
    sure = difference(mine.contracted, mine.estimated)
    most = add(add(sure, product(mine.estimated, Decimal(2))), slack)
    guessed = bool(mine.estimated) or mine.unknown
    if guessed and billed >= difference(sure, slack) and (mine.unknown or billed <= most):
        return made(MoneyOutcome.ESTIMATES)
    return made(MoneyOutcome.DIFFERS)


def _by_tokens(
    made: Callable[..., BilledMoney],
    billed: Decimal,
    slack: Decimal,
    mine: _Ours,
    counted: tuple[Count, int],
    price: Rates,
) -> BilledMoney:
    """What the bill's own tokens say of its money."""
    ways = list(_ways(counted, mine))
    at_ours = [_valued(way, price.contracted) for way in ways]
    expected = at_ours[0] if len(ways) == 1 else None
    if min(at_ours) - slack <= billed <= max(at_ours) + slack:
        return made(MoneyOutcome.TOKENS, expected)
    at_list = [_valued(way, price.listed) for way in ways]
    if min(at_list) - slack <= billed <= max(at_list) + slack:
        return made(MoneyOutcome.LIST_PRICE, expected)
    implied = dict(_implied(ways[0], price.contracted, difference(billed, at_ours[0]))) if len(ways) == 1 else {}
    return made(MoneyOutcome.OTHER_PRICE, expected, implied=implied)


def _ways(counted: tuple[Count, int], mine: _Ours) -> Iterator[dict[Meter, int]]:
    """The bill's tokens by kind. Where it does not say what was cached: as we have it, if its input is ours; else all
    of its input, or none."""
    count, written = counted
    entered = sum(mine.tokens.get(line, ZERO) for line in (Meter.INPUT, Meter.CACHED_INPUT, Meter.CACHE_WRITE))
    if count.cached_tokens is not None:
        cached: tuple[int, ...] = (count.cached_tokens,)
    elif entered == count.input_tokens:
        cached = (int(mine.tokens.get(Meter.CACHED_INPUT, ZERO)),)
    else:
        cached = (0, count.input_tokens - written)
    for tokens in cached:
        yield {
            Meter.INPUT: count.input_tokens - tokens - written,
            Meter.CACHED_INPUT: tokens,
            Meter.CACHE_WRITE: written,
            Meter.OUTPUT: count.output_tokens,
        }


def _valued(tokens: Mapping[Meter, int], prices: Mapping[Meter, Decimal]) -> Decimal:
    value = ZERO
    for line in TOKEN_LINES:
        value = add(value, amount_of(Decimal(tokens[line]), _price(prices, line), Unit.TOKENS.per))
    return value


def _price(prices: Mapping[Meter, Decimal], line: Meter) -> Decimal:
    return prices.get(line, prices[Meter.INPUT])


def _implied(
    tokens: Mapping[Meter, int], prices: Mapping[Meter, Decimal], more: Decimal
) -> Iterator[tuple[Meter, Decimal]]:
    """For each kind of token, the price that would make up for `more`, to ten digits; never one below zero."""
    for line in TOKEN_LINES:
        if tokens[line]:
            price = _price(prices, line) + more * Unit.TOKENS.per / tokens[line]
            if price >= 0:
                yield line, price.quantize(Decimal("1e-6")).normalize()


def _slack(billed: Decimal, amounts: int, places: int) -> Decimal:
    """By how much a sum of that many amounts may be off, each rounded to so many places."""
    of_one = min(_HALF.scaleb(-places), _HALF_A_CENT)
    return add(product(of_one, Decimal(amounts)), product(abs(billed), _FLOAT))


def _places(money: Decimal) -> int:
    exponent = money.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
