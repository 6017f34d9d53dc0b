"""A provider's bill as values, whatever it was read from: requests, or sums of a model over a stretch of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise

from app.domain.errors import RefundAgentError
from app.finance.reconciliation.counts import Count


class BadBill(RefundAgentError):
    """A bill that cannot be read as it is; the message names the file, the place in it, the value and the remedy."""

    status = 422
    title = "Bill not readable"

    def __init__(self, name: str, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"bill {name}{', ' if place else ''}{place}: {problem}; {remedy}")


class BillFormat(StrEnum):
    """What a bill was read from."""

    SANDBOX = "sandbox"
    OPENAI_USAGE = "openai-usage"
    OPENAI_COSTS = "openai-costs"
    ANTHROPIC_USAGE = "anthropic-usage"
    ANTHROPIC_COSTS = "anthropic-costs"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class BillRow:
    """One row that costs something. `place` says where it stands in the bill.

    since, until: UTC; equal for a single request, else the stretch that the row sums up, `until` not in it.
    provider: our id for who bills it; empty when the bill does not say. written: of its input, what was written to the
    provider's cache; 0 where the bill does not tell.
    """

    place: str
    model: str
    since: datetime
    until: datetime
    count: Count
    provider: str = ""
    written: int = 0

    @property
    def one_request(self) -> bool:
        """Whether the row is one request at one instant."""
        return self.since == self.until


@dataclass(frozen=True, slots=True)
class Amount:
    """One amount of money on a bill, for a model in a stretch of time; below zero when it is given back.

    model: empty for all models together; else as the bill names what it is for. currency: ISO 4217.
    """

    place: str
    model: str
    since: datetime
    until: datetime
    money: Decimal
    currency: str
    provider: str = ""


@dataclass(frozen=True)
class Bill:
    """A bill. `since` and `until` say which time it covers, None where it does not say; `until` is not in it.

    unbilled: requests that stand on it and cost nothing. unread: columns that were not looked at.
    further: columns that hold a quantity which the record does not keep, with their sums.
    elsewhen: rows and amounts of another time than what is asked for, left out.
    providers: our ids for whose bill it is; empty when it does not say.
    amounts: its money, where it names any. counts: whether it names tokens at all.
    """

    name: str
    format: BillFormat
    rows: tuple[BillRow, ...]
    since: datetime | None = None
    until: datetime | None = None
    unbilled: int = 0
    unread: tuple[str, ...] = ()
    providers: frozenset[str] = frozenset()
    amounts: tuple[Amount, ...] = ()
    counts: bool = True
    further: tuple[str, ...] = ()
    elsewhen: int = 0

    @property
    def by_request(self) -> bool:
        """Whether every row is a request of its own."""
        return all(row.one_request for row in self.rows) and self.format in (BillFormat.SANDBOX, BillFormat.CSV)

    def within(self, since: datetime | None, until: datetime | None) -> Bill:
        """The bill of that time alone. Raises BadBill when one of its sums lies on both sides of an edge."""
        kept = tuple(row for row in self.rows if _inside(row, since, until))
        amounts = tuple(amount for amount in self.amounts if _inside(amount, since, until))
        dated: list[BillRow | Amount] = [*self.rows, *self.amounts]
        for row in dated:
            for edge in (since, until):
                if edge is not None and row.since < edge < row.until:
                    raise BadBill(
                        self.name,
                        row.place,
                        f"it sums up {row.since.isoformat()} to {row.until.isoformat()}, and {edge.isoformat()} "
                        "cuts it in two",
                        "begin and end where a row of the bill begins and ends",
                    )
        latest, earliest = _latest(self.since, since), _earliest(self.until, until)
        left_out = self.elsewhen + len(dated) - len(kept) - len(amounts)
        return replace(self, rows=kept, amounts=amounts, since=latest, until=earliest, elsewhen=left_out)


def refuse_overlaps(name: str, rows: Iterable[BillRow]) -> None:
    """Raises BadBill when two sums of one model cover some time twice without covering the same."""
    spans: defaultdict[tuple[str, str], list[BillRow]] = defaultdict(list)
    for row in rows:
        spans[row.provider, row.model].append(row)
    for of_model in spans.values():
        ordered = sorted(of_model, key=lambda row: (row.since, row.until))
        for left, right in pairwise(ordered):
            if left.until > right.since and (left.since, left.until) != (right.since, right.until):
                raise BadBill(
                    name,
                    right.place,
                    f"its time, {right.since.isoformat()} to {right.until.isoformat()}, overlaps that of {left.place}",
                    "give each stretch of time once, in buckets of one width",
                )


def _inside(row: BillRow | Amount, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or row.since >= since) and (until is None or row.since < until)


def _latest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)
