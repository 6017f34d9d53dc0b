"""The result of comparing our record with a bill: findings, cells by model and hour, amounts.

Every difference is the bill minus our record, and the sum of its causes. Differences without an explaining cause are
counted again, by absolute value, as unexplained tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from app.domain.formatting import rounded
from app.domain.models import UsageBasis
from app.domain.money import ZERO, difference, plain
from app.finance.reconciliation.bill import Bill, Count, total
from app.pricing.charge_types import CallRecord, Meter


class DifferenceCause(StrEnum):
    """Why the bill and our record differ; `AGREES` if they do not."""

    AGREES = "agrees"
    ESTIMATE = "estimate"  # the provider reports no usage; our record holds an estimate
    INTERRUPTED_CALL = "interrupted_call"  # a call whose worker died was billed
    FAILED_CALL = "failed_call"  # a call that brought no answer was billed
    RUNNING_CALL = "running_call"  # a call still in flight was billed
    SIDECAR_RETRY = "sidecar_retry"  # the sidecar repeated a request, and each request was billed
    MIXED = "mixed"  # failed, interrupted or running calls, or retries: a sum does not say which
    NEVER_BILLED = "never_billed"  # a call without a result was not billed; its estimate is too high
    PERIOD_EDGE = "period_edge"  # in flight at the edge of the bill's period: may be on the bill before or after
    UNKNOWN_PROVIDER = "unknown_provider"  # the call's provider is unknown: it may be on another bill
    BUCKET_EDGE = "bucket_edge"  # in flight at the edge of two sums: it is in the other one
    DIFFERS = "differs"  # the provider billed other tokens than it reported
    NOT_ON_BILL = "not_on_bill"  # a paid call is not on the bill
    UNKNOWN = "unknown"  # a billed request does not belong to any call of ours

    @property
    def explains(self) -> bool:
        """Whether the cause explains the difference."""
        return self not in (DifferenceCause.DIFFERS, DifferenceCause.NOT_ON_BILL, DifferenceCause.UNKNOWN)

    @property
    def words(self) -> str:
        """The cause in words, in the plural, such as `interrupted calls`."""
        return _CAUSE_WORDS[self]


_CAUSE_WORDS = {
    DifferenceCause.ESTIMATE: "estimates",
    DifferenceCause.INTERRUPTED_CALL: "interrupted calls",
    DifferenceCause.FAILED_CALL: "failed calls",
    DifferenceCause.RUNNING_CALL: "calls in flight",
    DifferenceCause.SIDECAR_RETRY: "sidecar retries",
    DifferenceCause.MIXED: "calls that failed, were interrupted or were repeated",
    DifferenceCause.NEVER_BILLED: "estimates of calls that were never billed",
    DifferenceCause.UNKNOWN_PROVIDER: "calls of an unknown provider",
    DifferenceCause.PERIOD_EDGE: "calls at the edge of the bill's period",
    DifferenceCause.BUCKET_EDGE: "calls at the edge of two sums",
    DifferenceCause.DIFFERS: "calls billed with other tokens",
    DifferenceCause.NOT_ON_BILL: "calls that are not on the bill",
    DifferenceCause.UNKNOWN: "requests that no call accounts for",
}


class Certainty(StrEnum):
    """How certain a cause is."""

    CERTAIN = "certain"  # the bill lists the request
    BOUNDED = "bounded"  # the amount lies within bounds: the request or its call is not named


@dataclass(frozen=True, slots=True)
class BillFinding:
    """One row of the comparison: a call, a request on the bill, or a pair of both.

    place: where the bill has it; empty if the bill has not. record, billed: the counts of our record and of the bill.
    usage_basis: how our record's count is known. note: an explanation for the reader.
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
        """Tokens of the difference that no cause explains."""
        return 0 if self.cause.explains else self.difference.magnitude


@dataclass(frozen=True, slots=True)
class Cell:
    """One model in one period: an hour, or the period of a sum if the bill has sums.

    reported, estimated: our record, by usage basis. causes: differences by cause; they sum to `difference`.
    unpriced: tokens of our record without a price.
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
        """The count of our record, reported and estimated."""
        return self.reported + self.estimated

    @property
    def difference(self) -> Count:
        """The bill minus our record."""
        return self.billed - self.record


class MoneyOutcome(StrEnum):
    """The result of comparing one amount of the bill with our charges."""

    AGREES = "agrees"  # our charges, to as many digits as the bill writes
    TOKENS = "tokens"  # the bill's tokens at our prices: the difference is that of the tokens
    ESTIMATES = "estimates"  # within what our record estimates, or does not know
    LIST_PRICE = "list_price"  # billed at the published price, not at the agreed one
    OTHER_PRICE = "other_price"  # billed at another price than ours
    DIFFERS = "differs"  # another amount, and the bill names no tokens that would explain it
    NOT_OURS = "not_ours"  # billed, and we have no charge for it
    NOT_BILLED = "not_billed"  # charged by us, and not billed
    UNPRICED = "unpriced"  # our price book has no price
    OTHER_CURRENCY = "other_currency"  # our charges are in another currency, and no exchange rate is available

    @property
    def compared(self) -> bool:
        """Whether there were two amounts to compare."""
        return self not in (MoneyOutcome.UNPRICED, MoneyOutcome.OTHER_CURRENCY)

    @property
    def passes(self) -> bool:
        """Whether the amounts agree, or could not be compared."""
        return self in (MoneyOutcome.AGREES, MoneyOutcome.TOKENS, MoneyOutcome.ESTIMATES) or not self.compared

    @property
    def words(self) -> str:
        """The outcome in words."""
        return _MONEY_WORDS[self]


_MONEY_WORDS = {
    MoneyOutcome.AGREES: "agrees",
    MoneyOutcome.TOKENS: "the bill's tokens at our prices; the difference is that of the tokens",
    MoneyOutcome.ESTIMATES: "within what our record estimates or does not know",
    MoneyOutcome.LIST_PRICE: "billed at the list price, not at the agreed one",
    MoneyOutcome.OTHER_PRICE: "billed at another price than ours",
    MoneyOutcome.DIFFERS: "another amount than ours, and the bill names no tokens",
    MoneyOutcome.NOT_OURS: "billed, and we have no charge for it",
    MoneyOutcome.NOT_BILLED: "charged by us, and not billed",
    MoneyOutcome.UNPRICED: "our price book has no price",
    MoneyOutcome.OTHER_CURRENCY: "our charges are in another currency, and no exchange rate is available",
}


@dataclass(frozen=True, slots=True)
class BilledMoney:
    """One model's money in one period.

    model: empty for all models together. billed: the bill's amount. contracted, listed: our charges at agreed and at
    published prices; None if we have none in that currency. expected: the bill's own tokens at our prices; None if the
    bill names no tokens, or they have no single price. implied: for each kind of token, the price per million that
    would make the bill right if the other kinds had our prices.
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

    @property
    def note(self) -> str:
        """The outcome in words, with the prices that the bill implies."""
        note = self.outcome.words
        if self.outcome is MoneyOutcome.OTHER_PRICE and self.expected:
            note += f", {rounded(self.billed / self.expected, 4)} times ours"
        if self.implied:
            prices = " or ".join(f"{line.replace('_', ' ')} at {plain(price)}" for line, price in self.implied.items())
            note += f": as if {prices} per million"
        return note


@dataclass(frozen=True)
class Reconciliation:
    """The comparison of our record with one bill.

    findings: the differences, ordered by time. compared: the number of calls that the bill covers, `agreeing` of them
    to the token. outside: calls of another time. others: calls of the bill's time that another provider bills, or
    nobody, by provider. whose: the providers of the compared calls, if the bill does not name its provider.
    unknown_provider: calls of the bill's time with an unknown provider; absent: those of them that are not on it.
    money: the bill's amounts and our charges. uncached: calls whose cached tokens our record does not know.
    same_model: model names on the bill -> ours, if the bill adds a date. unpriced: (provider, model) -> tokens.
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
        """The count of our record for what the bill covers."""
        return total(cell.record for cell in self.cells)

    @property
    def billed(self) -> Count:
        """The count of the bill."""
        return total(cell.billed for cell in self.cells)

    @property
    def difference(self) -> Count:
        """The bill minus our record, in total."""
        return self.billed - self.record

    @property
    def causes(self) -> dict[DifferenceCause, Count]:
        """The total difference by cause."""
        by_cause = {
            cause: [cell.causes[cause] for cell in self.cells if cause in cell.causes] for cause in DifferenceCause
        }
        return {cause: total(counts) for cause, counts in by_cause.items() if counts}

    @property
    def agrees(self) -> bool:
        """Whether something was compared, and every difference is explained."""
        return not self.empty and not self.unexplained_tokens and all(cell.outcome.passes for cell in self.money)

    @property
    def empty(self) -> bool:
        """Whether neither the bill nor our record has anything in the bill's time."""
        return not (self.bill.rows or self.bill.amounts or self.compared or self.money)

    @property
    def unexplained_tokens(self) -> int:
        """Tokens that no cause explains: a sum of absolute values, so a plus and a minus never cancel."""
        return sum(cell.unexplained for cell in self.cells)


def cell(
    model: str, since: datetime, until: datetime, findings: Sequence[BillFinding], unpriced: frozenset[str]
) -> Cell:
    """The cell with the sums of its findings. `unpriced`: ids of the calls without a price."""
    causes: dict[DifferenceCause, Count] = {}
    for finding in findings:
        if finding.cause is not DifferenceCause.AGREES:
            causes[finding.cause] = causes.get(finding.cause, Count()) + finding.difference
    certain = all(finding.certainty is Certainty.CERTAIN for finding in findings)
    return Cell(
        model=model,
        since=since,
        until=until,
        reported=total(finding.record for finding in findings if finding.usage_basis is UsageBasis.REPORTED),
        estimated=total(finding.record for finding in findings if finding.usage_basis is not UsageBasis.REPORTED),
        billed=total(finding.billed for finding in findings),
        causes={cause: causes[cause] for cause in DifferenceCause if cause in causes},
        unexplained=sum(finding.unexplained for finding in findings),
        certainty=Certainty.CERTAIN if certain else Certainty.BOUNDED,
        unpriced=sum(
            finding.record.tokens for finding in findings if finding.call and finding.call.call_id in unpriced
        ),
    )
