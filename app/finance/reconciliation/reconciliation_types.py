"""The result of comparing our record with a bill: findings, cells by model and hour, the verdict, the JSON. Pure.

Every difference is the bill's count minus ours, and the sum of its causes. Causes that explain
nothing are counted once more, by absolute value, as unexplained tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from app.domain.formatting import day, rounded
from app.domain.models import UsageBasis
from app.domain.money import ZERO, difference, plain
from app.domain.money import total as total_of_money
from app.finance.reconciliation.bill import Bill, Count, total
from app.pricing.charge_types import CallRecord, Meter
from app.pricing.providers import UNBILLED, provider_id


class DifferenceCause(StrEnum):
    """Why the bill and our record differ, or that they do not."""

    AGREES = "agrees"
    ESTIMATE = "estimate"  # the provider reports no usage; ours is counted by us
    INTERRUPTED_CALL = "interrupted_call"  # billed, although its worker went away
    FAILED_CALL = "failed_call"  # billed, although no answer came
    RUNNING_CALL = "running_call"  # billed, and still under way in our record
    SIDECAR_RETRY = "sidecar_retry"  # repeated by the sidecar; each request is billed
    MIXED = "mixed"  # of failed, interrupted or running calls, or retries: the sum does not say of which
    NEVER_BILLED = "never_billed"  # failed or interrupted: our estimate stands for a request that was not billed
    PERIOD_EDGE = "period_edge"  # under way at the edge of the bill's period: may stand on the next bill
    UNKNOWN_PROVIDER = "unknown_provider"  # its provider is not known: it may stand on another bill
    BUCKET_EDGE = "bucket_edge"  # under way at the edge of two of the bill's sums: stands in the other one
    DIFFERS = "differs"  # the provider reported other tokens than it billed
    NOT_ON_BILL = "not_on_bill"  # paid in our record, and not billed
    UNKNOWN = "unknown"  # billed, and no call of ours

    @property
    def explains(self) -> bool:
        """Whether it accounts for the difference."""
        return self not in (DifferenceCause.DIFFERS, DifferenceCause.NOT_ON_BILL, DifferenceCause.UNKNOWN)


class Certainty(StrEnum):
    """How sure a cause is."""

    CERTAIN = "certain"  # the bill names the request
    BOUNDED = "bounded"  # the bill gives sums only: the cause accounts for that much at most


@dataclass(frozen=True, slots=True)
class BillFinding:
    """One row of the comparison: a call, a request on the bill, or the two together.

    place: where it stands in the bill, empty when it does not. record, billed: what each of them says.
    known: how our record's part is known. note: what a reader should know of it.
    """

    cause: DifferenceCause
    certainty: Certainty
    model: str
    at: datetime
    call: CallRecord | None
    place: str
    record: Count
    billed: Count
    note: str = ""
    usage_basis: UsageBasis = UsageBasis.REPORTED

    @property
    def difference(self) -> Count:
        """The bill minus our record."""
        return self.billed - self.record

    @property
    def unexplained(self) -> int:
        """Tokens of it that nothing explains."""
        return 0 if self.cause.explains else self.difference.magnitude


@dataclass(frozen=True, slots=True)
class Cell:
    """One model in one stretch of time: an hour, or a sum's stretch when the bill gives sums.

    reported, estimated: our record, by how it is known. causes: differences by cause; together they are `difference`.
    unpriced: tokens of our record that have no price.
    """

    model: str
    since: datetime
    until: datetime
    reported: Count
    estimated: Count
    billed: Count
    causes: Mapping[DifferenceCause, Count]
    unexplained: int
    certainty: Certainty = Certainty.CERTAIN
    unpriced: int = 0

    @property
    def record(self) -> Count:
        """All that our record says."""
        return self.reported + self.estimated

    @property
    def difference(self) -> Count:
        """The bill minus our record."""
        return self.billed - self.record


class MoneyOutcome(StrEnum):
    """What became of one comparison of money."""

    AGREES = "agrees"  # our charges, as far as the bill's digits go
    TOKENS = "tokens"  # the bill's tokens at our prices: the difference is that of the tokens, which are compared above
    ESTIMATES = "estimates"  # within what our record estimates, or does not know
    LIST_PRICE = "list_price"  # billed at the published price, not at the one agreed
    OTHER_PRICE = "other_price"  # billed at a price that we do not know
    DIFFERS = "differs"  # another amount, and the bill names no tokens that would say why
    NOT_OURS = "not_ours"  # money for what we have no call of
    NOT_BILLED = "not_billed"  # we have charges, the bill has nothing
    UNPRICED = "unpriced"  # our price book has no price
    OTHER_CURRENCY = "other_currency"  # no rate of exchange is known here

    @property
    def compared(self) -> bool:
        """Whether there were two amounts to compare."""
        return self not in (MoneyOutcome.UNPRICED, MoneyOutcome.OTHER_CURRENCY)

    @property
    def fine(self) -> bool:
        """Whether nothing is left open that could have been compared."""
        return self in (MoneyOutcome.AGREES, MoneyOutcome.TOKENS, MoneyOutcome.ESTIMATES) or not self.compared


@dataclass(frozen=True, slots=True)
class BilledMoney:
    """One model's money in one stretch of time.

    model: empty for all models together. billed: what the bill asks. contracted, listed: our charges as agreed and by
    the published list; None where we have none in that currency. expected: what the bill's own tokens come to at our
    prices; None where it names none, or they have no single price. implied: for each kind of token, the price of a
    million at which the bill would be right, if the other kinds' prices are ours.
    """

    model: str
    since: datetime
    until: datetime
    currency: str
    outcome: MoneyOutcome
    billed: Decimal
    contracted: Decimal | None = None
    listed: Decimal | None = None
    expected: Decimal | None = None
    implied: Mapping[Meter, Decimal] = field(default_factory=dict)

    @property
    def difference(self) -> Decimal:
        """The bill minus our charges."""
        return difference(self.billed, self.contracted or ZERO)


@dataclass(frozen=True)
class Reconciliation:
    """The comparison of our record with one bill.

    findings: every difference by name, by time; none where both agree. compared: calls that the bill covers.
    outside: calls of another time. others: calls of its time whose provider sends another bill, or none; by provider.
    agreeing: calls that stand on it to the token.
    whose: the providers of the calls that were compared, by name, where the bill does not say whose it is.
    unknown_provider: calls of its time whose provider is not known; absent: those of them that do not stand on it.
    money: the bill's amounts against our charges. uncached: calls whose cached tokens our record does not know.
    same_model: names on the bill -> ours, where the bill adds a model's date. unpriced: (provider, model) -> tokens.
    """

    bill: Bill
    findings: tuple[BillFinding, ...]
    cells: tuple[Cell, ...]
    compared: int
    agreeing: int
    outside: int
    same_model: Mapping[str, str]
    unpriced: Mapping[tuple[str, str], int]
    money: tuple[BilledMoney, ...] = ()
    uncached: int = 0
    others: Mapping[str, int] = field(default_factory=dict)
    whose: tuple[str, ...] = ()
    unknown_provider: int = 0
    absent: int = 0

    @property
    def record(self) -> Count:
        """All that our record says of what the bill covers."""
        return total(cell.record for cell in self.cells)

    @property
    def billed(self) -> Count:
        """All that the bill says."""
        return total(cell.billed for cell in self.cells)

    @property
    def difference(self) -> Count:
        """The bill minus our record, over all."""
        return self.billed - self.record

    @property
    def causes(self) -> dict[DifferenceCause, Count]:
        """The difference by cause, over all."""
        found = {
            cause: [cell.causes[cause] for cell in self.cells if cause in cell.causes] for cause in DifferenceCause
        }
        return {cause: total(counts) for cause, counts in found.items() if counts}

    @property
    def agrees(self) -> bool:
        """Whether there was something to compare, and all of it agrees or is explained."""
        return not self.empty and not self.unexplained_tokens and all(cell.outcome.fine for cell in self.money)

    @property
    def empty(self) -> bool:
        """Whether neither the bill nor the record has anything in that time."""
        return not (self.bill.rows or self.bill.amounts or self.compared or self.money)

    @property
    def unexplained_tokens(self) -> int:
        """Tokens that nothing explains: a sum of absolute values."""
        return sum(cell.unexplained for cell in self.cells)


def cell(
    model: str, since: datetime, until: datetime, findings: Sequence[BillFinding], unpriced: frozenset[str]
) -> Cell:
    """The sums of one cell's findings; `unpriced` are the ids of calls that have no price."""
    causes: dict[DifferenceCause, Count] = {}
    for finding in findings:
        if finding.cause is not DifferenceCause.AGREES:
            causes[finding.cause] = causes.get(finding.cause, Count()) + finding.difference
    sure = all(finding.certainty is Certainty.CERTAIN for finding in findings)
    return Cell(
        model=model,
        since=since,
        until=until,
        reported=total(finding.record for finding in findings if finding.usage_basis is UsageBasis.REPORTED),
        estimated=total(finding.record for finding in findings if finding.usage_basis is not UsageBasis.REPORTED),
        billed=total(finding.billed for finding in findings),
        causes={cause: causes[cause] for cause in DifferenceCause if cause in causes},
        unexplained=sum(finding.unexplained for finding in findings),
        certainty=Certainty.CERTAIN if sure else Certainty.BOUNDED,
        unpriced=sum(other.record.tokens for other in findings if other.call and other.call.call_id in unpriced),
    )


# For people, and as JSON for programs.


_WORDS = {
    DifferenceCause.ESTIMATE: "estimates",
    DifferenceCause.INTERRUPTED_CALL: "interrupted calls",
    DifferenceCause.FAILED_CALL: "failed calls",
    DifferenceCause.RUNNING_CALL: "calls under way",
    DifferenceCause.SIDECAR_RETRY: "sidecar retries",
    DifferenceCause.MIXED: "calls that failed, were interrupted or were repeated",
    DifferenceCause.NEVER_BILLED: "estimates of calls that were never billed",
    DifferenceCause.UNKNOWN_PROVIDER: "calls whose provider is not known",
    DifferenceCause.PERIOD_EDGE: "calls at the edge of the bill's period",
    DifferenceCause.BUCKET_EDGE: "calls at the edge of two sums",
    DifferenceCause.DIFFERS: "calls billed with other tokens",
    DifferenceCause.NOT_ON_BILL: "calls that are not on the bill",
    DifferenceCause.UNKNOWN: "requests that no call accounts for",
}
MONEY_WORDS = {
    MoneyOutcome.AGREES: "agrees",
    MoneyOutcome.TOKENS: "the bill's tokens at our prices; the difference is that of the tokens",
    MoneyOutcome.ESTIMATES: "within what our record estimates or does not know",
    MoneyOutcome.LIST_PRICE: "billed at the list price, not at the one agreed",
    MoneyOutcome.OTHER_PRICE: "billed at another price than ours",
    MoneyOutcome.DIFFERS: "another amount than ours, and the bill names no tokens",
    MoneyOutcome.NOT_OURS: "billed, and we have no charge for it",
    MoneyOutcome.NOT_BILLED: "charged by us, and not billed",
    MoneyOutcome.UNPRICED: "our price book has no price",
    MoneyOutcome.OTHER_CURRENCY: "our charges are in another currency, and no rate of exchange is known here",
}
_DAY = timedelta(days=1)


def as_json(found: Reconciliation) -> dict[str, Any]:
    """The reconciliation as JSON values. Differences are the bill minus our record; null is not known."""
    return {
        "verdict": verdict(found),
        "unexplained_tokens": found.unexplained_tokens,
        "difference_tokens": found.difference.tokens,
        "bill": {
            "name": found.bill.name,
            "format": found.bill.format.value,
            "rows": len(found.bill.rows),
            "by_request": found.bill.by_request,
            "providers": sorted(found.bill.providers | ({row.provider for row in found.bill.rows} - {""})),
            "unbilled_requests": found.bill.unbilled,
            "unread_columns": list(found.bill.unread),
        },
        "since": _time(found.bill.since),
        "until": _time(found.bill.until),
        "calls": {
            "compared": found.compared,
            "agreeing": found.agreeing,
            "outside": found.outside,
            "other_providers": dict(found.others),
            "unknown_provider": {"calls": found.unknown_provider, "not_on_bill": found.absent},
        },
        "record": _count(found.record),
        "billed": _count(found.billed),
        "difference": _count(found.difference),
        "causes": {cause.value: _count(count) for cause, count in found.causes.items()},
        "compared": list(compared(found)),
        "not_compared": list(not_compared(found)),
        "money": [_money(cell) for cell in found.money],
        "cells": [_cell(cell) for cell in found.cells],
        "rows": [_finding(finding) for finding in found.findings],
        "unpriced": [
            {"provider": provider, "model": model, "tokens": tokens}
            for (provider, model), tokens in found.unpriced.items()
        ],
        "same_model": dict(found.same_model),
    }


def verdict(found: Reconciliation) -> str:
    """One sentence each for tokens and money, no stronger than what was compared."""
    if found.empty:
        rows = f" ({found.bill.elsewhen:,} rows of the bill are of another time)" if found.bill.elsewhen else ""
        return f"{found.bill.name}: nothing was compared: neither bill nor record has anything in that time{rows}."
    said = [_tokens_verdict(found)] if found.bill.counts else []
    said += [_money_verdict(found)] if found.money else []
    return f"{found.bill.name}: {' '.join(said) or 'it names neither tokens nor money.'}"


def _tokens_verdict(found: Reconciliation) -> str:
    whose = f"{found.billed.tokens:,} tokens billed, {found.record.tokens:,} in our record"
    if found.unexplained_tokens:
        return f"{whose}; {found.unexplained_tokens:,} tokens are unexplained."
    if not found.findings:
        return f"{whose}; they agree to the token{'' if _has_cached(found) else ', cached ones not compared'}."
    names = ", ".join(words(cause) for cause in found.causes)
    return f"{whose}; the difference of {found.difference.tokens:+,} tokens is explained by {names}."


def _money_verdict(found: Reconciliation) -> str:
    said = []
    for currency in sorted({cell.currency for cell in found.money}):
        cells = [cell for cell in found.money if cell.currency == currency]
        both = [cell for cell in cells if cell.outcome.compared]
        if not both:
            said.append(f"{currency} on the bill could not be compared.")
            continue
        billed, ours = (
            total_of_money(cell.billed for cell in both),
            total_of_money(cell.contracted or ZERO for cell in both),
        )
        whose = f"{rounded(billed)} {currency} billed, {rounded(ours)} by our prices"
        open_ = [cell for cell in both if not cell.outcome.fine]
        if open_:
            reasons = ", ".join(dict.fromkeys(MONEY_WORDS[cell.outcome] for cell in open_))
            said.append(f"{whose}; {len(open_)} of {len(both)} sums differ: {reasons}.")
        elif all(cell.outcome is MoneyOutcome.AGREES for cell in both):
            said.append(f"{whose}; they agree as far as the bill's digits go.")
        else:
            said.append(f"{whose}; the difference is that of the tokens, or of what we estimate.")
    return " ".join(said)


def compared(found: Reconciliation) -> tuple[str, ...]:
    """What of the bill was held against the record."""
    bill = found.bill
    said = ["models", "times"]
    if bill.counts:
        said += ["input tokens", "output tokens"]
        said += ["cached tokens"] if _has_cached(found) else []
        said += ["requests"] if _has_requests(found) else []
    currencies = sorted({cell.currency for cell in found.money if cell.outcome.compared})
    return (*said, *(f"money in {currency}" for currency in currencies))


def not_compared(found: Reconciliation) -> tuple[str, ...]:
    """What was not, and why."""
    bill, said = found.bill, list[str]()
    if not bill.counts:
        said.append("tokens (not on this bill)")
    else:
        said += [] if _has_cached(found) else ["cached tokens (not on this bill)"]
        said += [] if _has_requests(found) else ["requests (not on this bill)"]
        if found.uncached and _has_cached(found):
            said.append(f"cached tokens of {found.uncached} calls (their provider tells us none)")
        if any(row.written for row in bill.rows):
            said.append("tokens written to the cache apart from other input (our record does not keep them)")
    said += [] if bill.amounts else ["money (not on this bill)"]
    for outcome in (MoneyOutcome.UNPRICED, MoneyOutcome.OTHER_CURRENCY):
        models = dict.fromkeys(cell.model or "all models" for cell in found.money if cell.outcome is outcome)
        said += [f"money of {', '.join(models)} ({MONEY_WORDS[outcome]})"] if models else []
    return (*said, *(f"column {column}" for column in bill.further))


def _has_cached(found: Reconciliation) -> bool:
    return not found.bill.rows or any(row.count.cached_tokens is not None for row in found.bill.rows)


def _has_requests(found: Reconciliation) -> bool:
    return not found.bill.rows or any(row.count.requests is not None for row in found.bill.rows)


def money_note(cell: BilledMoney) -> str:
    """What is to be said of one sum of money: in words, with the price that the bill implies where there is one."""
    note = MONEY_WORDS[cell.outcome]
    if cell.outcome is MoneyOutcome.OTHER_PRICE and cell.expected:
        note += f", {rounded(cell.billed / cell.expected, 4)} times ours"
    if cell.implied:
        prices = " or ".join(f"{line.replace('_', ' ')} at {plain(price)}" for line, price in cell.implied.items())
        note += f": as if {prices} a million"
    return note


def remarks(found: Reconciliation) -> Iterator[str]:
    """What a person should know beside the verdict: what was compared, what was left out, which names were equated."""
    calls = f"{found.compared} calls" + (f", {found.agreeing} of them on the bill to the token" * found.bill.counts)
    yield calls + (f"; {found.outside} calls of another time were left out" if found.outside else "")
    for provider, count in found.others.items():
        yield f"{count} calls of {provider} are not on this bill and were left out: {_whose(provider)}"
    if len(found.whose) > 1:
        yield (
            f"the bill does not say whose it is, so calls of {' and '.join(found.whose)} were held against it; "
            "give it a column provider"
        )
    if found.unknown_provider:
        stand = found.unknown_provider - found.absent
        yield (
            f"{found.unknown_provider} calls of an unknown provider, for their component was changed while they were "
            f"under way: {stand} stand on this bill, {found.absent} do not and may stand on another one"
        )
    if found.bill.unbilled:
        yield f"{found.bill.unbilled} requests stand on the bill and cost nothing"
    yield f"compared: {', '.join(compared(found))}"
    if not_compared(found):
        yield f"not compared: {'; '.join(not_compared(found))}"
    for cell in found.money:
        if cell.outcome is not MoneyOutcome.AGREES:
            yield f"{_money_of(cell)}: {money_note(cell)}"
    if found.bill.unread:
        yield f"columns of the bill that were not looked at: {', '.join(found.bill.unread)}"
    for billed, ours in found.same_model.items():
        yield f"model {billed} of the bill is taken as {ours}"
    for (provider, model), tokens in found.unpriced.items():
        yield f"{tokens:,} tokens of model {model or '(none)'} of {provider or '(no provider)'} have no price"


def _money_of(cell: BilledMoney) -> str:
    ours = "nothing" if cell.contracted is None else rounded(cell.contracted)
    when = day(cell.since) + ("" if cell.until - cell.since == _DAY else f" to {day(cell.until)}")
    return f"{cell.model or 'all models'} {when}: {rounded(cell.billed)} {cell.currency} billed, {ours} by our prices"


def _whose(provider: str) -> str:
    return "nobody bills them" if provider_id(provider) in UNBILLED else "hold that provider's own bill against them"


def words(cause: DifferenceCause) -> str:
    """A cause for people."""
    return _WORDS[cause]


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "model": cell.model,
        "from": _time(cell.since),
        "to": _time(cell.until),
        "record": _count(cell.record)
        | {"reported_tokens": cell.reported.tokens, "estimated_tokens": cell.estimated.tokens},
        "billed": _count(cell.billed),
        "difference": _count(cell.difference),
        "difference_tokens": cell.difference.tokens,
        "causes": {cause.value: _count(count) for cause, count in cell.causes.items()},
        "unpriced_tokens": cell.unpriced,
        "unexplained_tokens": cell.unexplained,
        "certainty": cell.certainty.value,
    }


def _finding(finding: BillFinding) -> dict[str, Any]:
    call = finding.call
    return {
        "cause": finding.cause.value,
        "explained": finding.cause.explains,
        "certainty": finding.certainty.value,
        "at": _time(finding.at),
        "model": finding.model,
        "task_id": call.task_id if call else None,
        "stage": call.stage if call else None,
        "turn": call.turn if call else None,
        "call_id": call.call_id if call else None,
        "state": call.state.value if call else None,
        "place": finding.place or None,
        "usage_basis": finding.usage_basis.value,
        "record": _count(finding.record),
        "billed": _count(finding.billed),
        "difference_tokens": finding.difference.tokens,
        "unexplained_tokens": finding.unexplained,
        "note": finding.note,
    }


def _money(cell: BilledMoney) -> dict[str, Any]:
    return {
        "model": cell.model or None,
        "from": _time(cell.since),
        "to": _time(cell.until),
        "currency": cell.currency,
        "outcome": cell.outcome.value,
        "agrees": cell.outcome.fine,
        "billed": plain(cell.billed),
        "contracted": None if cell.contracted is None else plain(cell.contracted),
        "listed": None if cell.listed is None else plain(cell.listed),
        "expected": None if cell.expected is None else plain(cell.expected),
        "difference": plain(cell.difference),
        "implied_per_million": {line.value: plain(price) for line, price in cell.implied.items()},
        "note": money_note(cell),
    }


def _count(count: Count) -> dict[str, int | None]:
    return {
        "requests": count.requests,
        "input_tokens": count.input_tokens,
        "cached_tokens": count.cached_tokens,
        "output_tokens": count.output_tokens,
        "tokens": count.tokens,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
