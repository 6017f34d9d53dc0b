"""Compares the ledger's refunds with those in the refund system's books, in both directions, by refund id.

The ledger is read before the books, so each of its refunds must be in the books. A refund that only the books have is
looked up in the ledger once more at the end, because its task may have been recorded meanwhile.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
from pydantic import ValidationError
from sqlalchemy import BindParameter, Connection, Engine, bindparam, or_, select

from app.dapr.daprd import Daprd
from app.dapr.history.reader import HistoryReader
from app.domain.errors import HistoryTampered, SystemUnavailable, TaskNotFound, Unreachable
from app.domain.models import (
    Currency,
    Frozen,
    InCurrency,
    Money,
    Outcome,
    Reference,
    TenantId,
    TicketId,
    in_minor_units,
    task_id,
)
from app.ledger.audit.ledger_check import LedgerDifference
from app.ledger.store import database
from app.ledger.store.tables import TASKS, TICKETS

PAGE = 1_000  # refunds in one answer of the refund system
# Longer than the sidecar's own worst case (three tries of 15 s and the pauses between them).
_GIVE_UP_SECONDS = 90.0


class PostedRefund(InCurrency):
    """A posted refund, as the refund system's method `list` returns it."""

    refund_id: Reference
    idempotency_key: str
    tenant: TenantId
    ticket_id: TicketId
    order_id: Reference
    currency: Currency
    amount: Money
    at: datetime


class PromisedRefund(InCurrency):
    """A refund that is committed and not posted yet, as the refund system's method `promised` returns it."""

    tenant: TenantId
    ticket_id: TicketId
    order_id: Reference
    currency: Currency
    amount: Money
    at: datetime


class _Page(Frozen):
    ok: bool
    refunds: tuple[PostedRefund, ...] = ()
    promised: tuple[PromisedRefund, ...] = ()
    next: str | None = None
    code: str = ""
    message: str = ""


def posted_refunds(daprd: Daprd) -> Iterator[PostedRefund]:
    """All refunds of all tenants, in the order in which they were posted. Raises SystemUnavailable."""
    for page in _pages(daprd, "list", {"tenant": None}):
        yield from page.refunds


def promised_refunds(daprd: Daprd) -> Iterator[PromisedRefund]:
    """All commitments of all tenants that are not posted yet. Raises SystemUnavailable."""
    for page in _pages(daprd, "promised", {}):
        yield from page.promised


def _pages(daprd: Daprd, method: str, parameters: dict[str, None]) -> Iterator[_Page]:
    with daprd.client(_GIVE_UP_SECONDS) as client:
        after: str | None = None
        while True:
            page = _page(client, method, parameters | {"after": after, "limit": PAGE})
            yield page
            if page.next is None:
                return
            if page.next == after:
                raise _unavailable(method, f"page {after} names itself as the next page")
            after = page.next


def _page(client: httpx.Client, method: str, request: dict[str, object]) -> _Page:
    try:
        response = client.post(f"/v1.0/invoke/refunds/method/{method}", json=request)
        response.raise_for_status()
        page = _Page.model_validate_json(response.content)
    except httpx.HTTPStatusError as error:
        raise _unavailable(method, f"status {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise _unavailable(method, f"{type(error).__name__} at the sidecar {client.base_url}") from None
    except ValidationError:
        raise _unavailable(method, "the answer has an unknown format") from None
    if not page.ok:
        raise _unavailable(method, f"refused, {page.code or 'without a reason'}")
    return page


def _unavailable(method: str, why: str) -> SystemUnavailable:
    return SystemUnavailable(
        f"refunds/{method}: {why}; check with `refund-agent doctor` whether sidecar and refund system are up, and try "
        "again"
    )


BOOKS = "books"
# The remedies of differences.
LOST = "the customer was told of it: find out who removed it from the books, and post it again"
UNKNOWN = (
    "neither the ledger nor the state store has its ticket: if one of them was restored from a backup, restore a "
    "newer one and run `refund-agent ledger rebuild`; otherwise no ticket asked for it: find out who posted it before "
    "you take it back"
)
LACKING = "the state store has its task and the ledger does not; `refund-agent ledger rebuild` restores it"
OTHERWISE = "the money was paid although the task ended without it: tell the customer, or take it back"
CHANGED = "if another line shows that the task's record was changed, rebuild the ledger; otherwise correct the books"
PROMISED = "the customer was told of it, but it was never posted: `refund-agent task rerun` of the task posts it"
TWICE = "a ticket gets one refund: find out who posted the second, and take it back"

_BATCH = 500
_TASK_REFUNDS = select(
    TASKS.c.task_id,
    TASKS.c.tenant,
    TASKS.c.status,
    TASKS.c.outcome,
    TASKS.c.ended_at,
    TASKS.c.refund_id,
    TASKS.c.refund_amount,
    TASKS.c.refund_currency,
    TASKS.c.order_id,
)
_REFUNDED = _TASK_REFUNDS.where(or_(TASKS.c.refund_id.is_not(None), TASKS.c.outcome == Outcome.REFUNDED.value))
_PARENTS = select(TASKS.c.task_id, TASKS.c.rerun_of).where(TASKS.c.rerun_of.is_not(None))
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_OF_TICKETS = _TASK_REFUNDS.where(TASKS.c.task_id.in_(_IDS))
_KNOWN_TICKETS = select(TICKETS.c.task_id).where(TICKETS.c.task_id.in_(_IDS))


@dataclass(frozen=True)
class RefundsChecked:
    """The result of a comparison. in_books, in_ledger: the number of refunds in each. in_flight: the number of refunds
    in the books whose tasks have not ended. problem: why the books were not read completely; empty if they were."""

    differences: tuple[LedgerDifference, ...]
    in_books: int
    in_ledger: int
    in_flight: int
    problem: str = ""


def check(database_url: str, daprd: Daprd) -> RefundsChecked:
    """Compares the ledger at `database_url` with the books that the sidecar `daprd` reaches."""
    engine = database.connect(database_url)
    try:
        with HistoryReader(daprd) as history:
            return compare(
                engine, posted_refunds(daprd), lambda task_id: _has(history, task_id), promised_refunds(daprd)
            )
    finally:
        engine.dispose()


def _has(history: HistoryReader, task_id: str) -> bool:
    try:
        history.status(task_id)
    except TaskNotFound:
        return False
    except HistoryTampered:
        pass
    return True


def compare(
    engine: Engine,
    posted: Iterable[PostedRefund],
    has: Callable[[str], bool],
    promised: Iterable[PromisedRefund] = (),
) -> RefundsChecked:
    """Compares the ledger with the books. `posted`, `promised`: the books' posted refunds, and those committed but not
    posted. `has`: whether Dapr has a task. If reading the books raises Unreachable, the result holds the differences
    up to there and the problem."""
    with engine.connect() as connection:
        comparison = _Comparison(_claims(connection), has)
    problem, committed = "", list[PromisedRefund]()
    try:
        for refund in posted:
            comparison.add(refund)
        committed = list(promised)
    except Unreachable as error:
        problem = str(error)
    with engine.connect() as connection:
        comparison.check_unclaimed(connection)
        comparison.check_promises(connection, committed)
    return RefundsChecked(
        differences=(*comparison.differences, *(() if problem else comparison.missing_in_books())),
        in_books=comparison.in_books,
        in_ledger=comparison.in_ledger,
        in_flight=comparison.in_flight,
        problem=problem,
    )


class _Claim(NamedTuple):
    """A refund according to the record of a task; `facts` describes it."""

    task_id: str
    refund_id: str
    facts: str


_Claims = Mapping[tuple[str, str], Sequence[_Claim]]  # by tenant and refund id


class _Comparison:
    """Matches the books' refunds, one by one, with the ledger's claims."""

    def __init__(self, claims: _Claims, has: Callable[[str], bool]) -> None:
        self._has = has
        self._unmatched = dict(claims)
        self._unclaimed: list[PostedRefund] = []
        self._first_of_ticket: dict[str, str] = {}
        self.in_ledger = len(claims)
        self.in_books = 0
        self.in_flight = 0
        self.differences: list[LedgerDifference] = []

    def add(self, refund: PostedRefund) -> None:
        """Matches one refund of the books."""
        self.in_books += 1
        first = self._first_of_ticket.setdefault(_ticket(refund), refund.refund_id)
        claims = self._unmatched.pop((refund.tenant, refund.refund_id), [])
        if first != refund.refund_id:
            self._add_difference(refund, _ticket(refund), f"{first} already", TWICE)
        elif not claims:
            self._unclaimed.append(refund)
        self._compare_facts(refund, claims)

    def check_unclaimed(self, connection: Connection) -> None:
        """Looks once more for the tasks of refunds that no record had."""
        reruns = _reruns(connection)
        for start in range(0, len(self._unclaimed), _BATCH):
            batch = self._unclaimed[start : start + _BATCH]
            tickets = [_ticket(refund) for refund in batch]
            known_tickets = set(connection.execute(_KNOWN_TICKETS, {"ids": tickets}).scalars())
            tasks = [task for ticket in tickets for task in (ticket, *reruns.get(ticket, ()))]
            rows = {row.task_id: row for row in connection.execute(_OF_TICKETS, {"ids": tasks})}
            for refund, ticket in zip(batch, tickets, strict=True):
                task_rows = [rows[task] for task in (ticket, *reruns.get(ticket, ())) if task in rows]
                self._check_refund(refund, task_rows, not_recorded=ticket in known_tickets and ticket not in rows)

    def check_promises(self, connection: Connection, promised: Sequence[PromisedRefund]) -> None:
        """Reports committed refunds of tasks that have ended without posting them."""
        for start in range(0, len(promised), _BATCH):
            batch = {task_id(refund.tenant, refund.ticket_id): refund for refund in promised[start : start + _BATCH]}
            for row in connection.execute(_OF_TICKETS, {"ids": list(batch)}):
                if row.ended_at is not None and row.refund_id is None:
                    facts = _posted_facts(batch[row.task_id])
                    self.differences.append(
                        LedgerDifference(row.task_id, "promised refund", facts, _ending(row), BOOKS, PROMISED)
                    )

    def missing_in_books(self) -> Iterator[LedgerDifference]:
        """Refunds of the ledger that the books do not have."""
        for claim in itertools.chain.from_iterable(self._unmatched.values()):
            what = f"refund {claim.refund_id or 'without an id'}"
            yield LedgerDifference(claim.task_id, what, "none", claim.facts, BOOKS, LOST)

    def _check_refund(self, refund: PostedRefund, tasks: Sequence[Any], *, not_recorded: bool) -> None:
        ticket = _ticket(refund)
        claims = [_claim(row, ticket) for row in tasks if row.refund_id == refund.refund_id]
        if claims:  # the task ended while the books were read
            self.in_ledger += 1
            self._compare_facts(refund, claims)
        elif not_recorded or any(row.ended_at is None for row in tasks):
            self.in_flight += 1
        elif tasks:
            self._add_difference(refund, ticket, _ending(tasks[-1]), OTHERWISE)
        else:
            self._add_difference(refund, ticket, "no such ticket", LACKING if self._has(ticket) else UNKNOWN)

    def _compare_facts(self, refund: PostedRefund, claims: Iterable[_Claim]) -> None:
        for claim in claims:
            if claim.facts != _posted_facts(refund):
                self._add_difference(refund, claim.task_id, claim.facts, CHANGED)

    def _add_difference(self, refund: PostedRefund, task: str, ours: str, remedy: str) -> None:
        what, theirs = f"refund {refund.refund_id}", _posted_facts(refund)
        self.differences.append(LedgerDifference(task, what, theirs, ours, BOOKS, remedy))


def _claims(connection: Connection) -> _Claims:
    """The refunds according to the records. A rerun may claim the same refund as the task that it repeats."""
    roots = _roots(connection)
    claims: dict[tuple[str, str], list[_Claim]] = defaultdict(list)
    for row in connection.execute(_REFUNDED):
        claims[row.tenant, row.refund_id or ""].append(_claim(row, roots.get(row.task_id, row.task_id)))
    return claims


def _claim(row: Any, ticket: str) -> _Claim:
    facts = _facts(row.refund_amount, row.refund_currency, row.order_id, ticket)
    return _Claim(row.task_id, row.refund_id or "", facts)


def _roots(connection: Connection) -> dict[str, str]:
    """The original task of each rerun; its id is the ticket's."""
    parents: dict[str, str] = {row.task_id: row.rerun_of for row in connection.execute(_PARENTS)}

    def root(task: str) -> str:
        while task in parents:
            task = parents[task]
        return task

    return {rerun: root(rerun) for rerun in parents}


def _reruns(connection: Connection) -> Mapping[str, Sequence[str]]:
    """The reruns of each original task."""
    reruns: dict[str, list[str]] = defaultdict(list)
    for rerun, root in _roots(connection).items():
        reruns[root].append(rerun)
    return reruns


def _ending(row: Any) -> str:
    how = f"{row.status} as {row.outcome}" if row.outcome else row.status
    return f"{how} with {row.refund_id or 'no refund'}"


def _ticket(refund: PostedRefund | PromisedRefund) -> str:
    """The id of the original task of the refund's ticket."""
    return task_id(refund.tenant, refund.ticket_id)


def _posted_facts(refund: PostedRefund | PromisedRefund) -> str:
    return _facts(refund.amount, refund.currency, refund.order_id, _ticket(refund))


def _facts(amount: str | Decimal | None, currency: str | None, order_id: str | None, ticket: str) -> str:
    """Describes a refund; refunds with the same description agree."""
    money = _money(Decimal(amount), currency) if amount is not None and currency else "an unknown amount"
    return f"{money} for order {order_id} of ticket {ticket.partition(':')[2]}"


def _money(amount: Decimal, currency: str) -> str:
    """An amount with its currency's decimal places; unchanged if the currency cannot express it."""
    try:
        return f"{in_minor_units(amount, currency)} {currency}"
    except ValueError:
        return f"{amount} {currency}"
