"""The result of comparing our record with a bill: findings, cells by model and hour, amounts. Pure.

Every difference is the bill's count minus ours, and the sum of its causes. Causes that explain
nothing are counted once more, by absolute value, as unexplained tokens.
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

    @property
    def words(self) -> str:
        """The cause for a reader, in the plural: `interrupted calls`."""
        return _CAUSE_WORDS[self]


_CAUSE_WORDS = {
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

    @property
    def words(self) -> str:
        """The outcome for a reader."""
        return _MONEY_WORDS[self]


_MONEY_WORDS = {
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

    @property
    def note(self) -> str:
        """The outcome in words, with the price that the bill implies where there is one."""
        note = self.outcome.words
        if self.outcome is MoneyOutcome.OTHER_PRICE and self.expected:
            note += f", {rounded(self.billed / self.expected, 4)} times ours"
        if self.implied:
            prices = " or ".join(f"{line.replace('_', ' ')} at {plain(price)}" for line, price in self.implied.items())
            note += f": as if {prices} a million"
        return note


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
        by_cause = {
            cause: [cell.causes[cause] for cell in self.cells if cause in cell.causes] for cause in DifferenceCause
        }
        return {cause: total(counts) for cause, counts in by_cause.items() if counts}

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
