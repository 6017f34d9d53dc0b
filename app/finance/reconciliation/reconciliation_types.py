"""What comes of comparing our record with a bill: named differences, and sums of them by model and hour. Values only.

Every difference is the bill's count minus ours, and the sum of its causes. The causes that explain nothing are counted
once more, without signs, as unexplained tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.domain.models import UsageBasis
from app.finance.reconciliation.bill import Bill, Count, total
from app.finance.reconciliation.billed_money import MoneyCell
from app.pricing.charge_types import CallRecord


class Cause(StrEnum):
    """Why the bill and our record differ, or that they do not."""

    AGREES = "agrees"
    ESTIMATE = "estimate"  # the provider reports no usage; ours is counted by us
    INTERRUPTED_CALL = "interrupted_call"  # billed, although its worker went away
    FAILED_CALL = "failed_call"  # billed, although no answer came
    RUNNING_CALL = "running_call"  # billed, and still under way in our record
    SIDECAR_RETRY = "sidecar_retry"  # asked again by the sidecar; each request is billed
    NEVER_BILLED = "never_billed"  # failed or interrupted: our estimate stands for a request that was not billed
    PERIOD_EDGE = "period_edge"  # under way at the edge of the bill's period: may stand on the next bill
    UNKNOWN_PROVIDER = "unknown_provider"  # nobody knows whose call it was: it may stand on another bill
    BUCKET_EDGE = "bucket_edge"  # under way at the edge of two of the bill's sums: stands in the other one
    DIFFERS = "differs"  # the provider reported other tokens than it billed
    NOT_ON_BILL = "not_on_bill"  # paid in our record, and not billed
    UNKNOWN = "unknown"  # billed, and no call of ours

    @property
    def explains(self) -> bool:
        """Whether it accounts for the difference."""
        return self not in (Cause.DIFFERS, Cause.NOT_ON_BILL, Cause.UNKNOWN)


class Certainty(StrEnum):
    """How sure a cause is."""

    CERTAIN = "certain"  # the bill names the request
    BOUNDED = "bounded"  # the bill gives sums only: the cause accounts for that much at most


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the comparison: a call, a request on the bill, or the two together.

    place: where it stands in the bill, empty when it does not. record, billed: what each of them says.
    known: how our record's part is known. note: what a reader should know of it.
    """

    cause: Cause
    certainty: Certainty
    model: str
    at: datetime
    call: CallRecord | None
    place: str
    record: Count
    billed: Count
    note: str = ""
    known: UsageBasis = UsageBasis.REPORTED

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
    causes: Mapping[Cause, Count]
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


@dataclass(frozen=True)
class Reconciliation:
    """The comparison of our record with one bill.

    findings: every difference by name, by time; none where both agree. compared: calls that the bill covers.
    outside: calls of another time. others: calls of its time whose provider sends another bill, or none; by provider.
    agreeing: calls that stand on it to the token.
    whose: the providers of the calls that were compared, by name, where the bill does not say whose it is.
    unknown_provider: calls of its time whose provider nobody knows; absent: those of them that do not stand on it.
    money: the bill's amounts against our charges. uncached: calls whose cached tokens our record does not know.
    same_model: names on the bill -> ours, where the bill adds a model's date. unpriced: (provider, model) -> tokens.
    """

    bill: Bill
    findings: tuple[Finding, ...]
    cells: tuple[Cell, ...]
    compared: int
    agreeing: int
    outside: int
    same_model: Mapping[str, str]
    unpriced: Mapping[tuple[str, str], int]
    money: tuple[MoneyCell, ...] = ()
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
    def causes(self) -> dict[Cause, Count]:
        """The difference by cause, over all."""
        found = {cause: [cell.causes[cause] for cell in self.cells if cause in cell.causes] for cause in Cause}
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


def cell(model: str, since: datetime, until: datetime, findings: Sequence[Finding], unpriced: frozenset[str]) -> Cell:
    """The sums of one cell's findings; `unpriced` are the ids of calls that have no price."""
    causes: dict[Cause, Count] = {}
    for finding in findings:
        if finding.cause is not Cause.AGREES:
            causes[finding.cause] = causes.get(finding.cause, Count()) + finding.difference
    sure = all(finding.certainty is Certainty.CERTAIN for finding in findings)
    return Cell(
        model=model,
        since=since,
        until=until,
        reported=total(finding.record for finding in findings if finding.known is UsageBasis.REPORTED),
        estimated=total(finding.record for finding in findings if finding.known is not UsageBasis.REPORTED),
        billed=total(finding.billed for finding in findings),
        causes={cause: causes[cause] for cause in Cause if cause in causes},
        unexplained=sum(finding.unexplained for finding in findings),
        certainty=Certainty.CERTAIN if sure else Certainty.BOUNDED,
        unpriced=sum(each.record.tokens for each in findings if each.call and each.call.call_id in unpriced),
    )
