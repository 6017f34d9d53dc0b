"""Our refunds against the books' refunds, both ways, by refund id. Changes nothing.

Ours are read first and the books' after them, so that each of ours must be there by then. A refund that is in the books
alone is looked up in the ledger at the very end: its task may still be on the way to its record.
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

# The refunds that the books hold, read page by page through the sidecar, as everything of the internal systems is.

PAGE = 1_000
# Longer than the sidecar's own worst case (three tries of 15 s and the pauses between them).
_GIVE_UP_SECONDS = 90.0


class PostedRefund(InCurrency):
    """A refund as refunds/list tells of it."""

    refund_id: Reference
    idempotency_key: str
    tenant: TenantId
    ticket_id: TicketId
    order_id: Reference
    currency: Currency
    amount: Money
    at: datetime


class PromisedRefund(InCurrency):
    """A refund that the books have committed and nobody has posted yet, as refunds/promised tells of it."""

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


def _pages(daprd: Daprd, method: str, question: dict[str, None]) -> Iterator[_Page]:
    with daprd.client(_GIVE_UP_SECONDS) as client:
        after: str | None = None
        while True:
            page = _page(client, method, question | {"after": after, "limit": PAGE})
            yield page
            if page.next is None:
                return
            if page.next == after:
                raise _unavailable(method, f"page {after} is followed by itself")
            after = page.next


def _page(client: httpx.Client, method: str, question: dict[str, object]) -> _Page:
    try:
        response = client.post(f"/v1.0/invoke/refunds/method/{method}", json=question)
        response.raise_for_status()
        page = _Page.model_validate_json(response.content)
    except httpx.HTTPStatusError as error:
        raise _unavailable(method, f"status {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise _unavailable(method, f"{type(error).__name__} at the sidecar {client.base_url}") from None
    except ValidationError:
        raise _unavailable(method, "the answer is not one we understand") from None
    if not page.ok:
        raise _unavailable(method, f"refused, {page.code or 'without a reason'}")
    return page


def _unavailable(method: str, why: str) -> SystemUnavailable:
    return SystemUnavailable(
        f"refunds/{method}: {why}; check with `refund-agent doctor` whether sidecar and refund system are up, and try "
        "again"
    )


BOOKS = "books"
LOST = "the customer was told of it: find out who took it out of the books, and post it again"
UNKNOWN = (
    "neither the ledger nor the state store knows its ticket: if one of them was restored from a backup, restore a "
    "newer one and run `refund-agent ledger rebuild`; if not, nobody asked for it: find out who posted it before it is "
    "taken back"
)
LACKING = "the ledger lacks the task that the state store has; `refund-agent ledger rebuild` restores it"
OTHERWISE = "the money went although the task says otherwise: tell the customer so, or take it back"
CHANGED = "a line about the task's own record says that ours was changed; without one, correct the books"
PROMISED = "the customer was told of it and it was never posted: `refund-agent task rerun` of the task posts it"
TWICE = "one ticket, one refund: find out who posted the second, and take it back"

_AT_ONCE = 500
_OURS = select(
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
_REFUNDED = _OURS.where(or_(TASKS.c.refund_id.is_not(None), TASKS.c.outcome == Outcome.REFUNDED.value))
_RERUNS = select(TASKS.c.task_id, TASKS.c.rerun_of).where(TASKS.c.rerun_of.is_not(None))
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_OF_TICKETS = _OURS.where(TASKS.c.task_id.in_(_IDS))
_ARRIVED = select(TICKETS.c.task_id).where(TICKETS.c.task_id.in_(_IDS))


@dataclass(frozen=True)
class RefundsChecked:
    """What a comparison found. in_books, in_ledger: how many refunds each holds. in_flight: how many of the books'
    belong to tasks that have not ended yet. problem: why not all books were read; empty when they were."""

    differences: tuple[LedgerDifference, ...]
    in_books: int
    in_ledger: int
    in_flight: int
    problem: str = ""


def check(database_url: str, daprd: Daprd) -> RefundsChecked:
    """Compares the ledger at that URL with the books behind that sidecar."""
    engine = database.connect(database_url)
    try:
        with HistoryReader(daprd) as history:
            has = lambda task_id: _has(history, task_id)  # noqa: E731
            return compare(engine, posted_refunds(daprd), has, promised_refunds(daprd))
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
    """Compares. `promised` is what the books have committed and not posted; `has` says whether Dapr has a task that the
    ledger does not know. Books that become Unreachable on the way leave what was found until then, and the problem."""
    with engine.connect() as connection:
        comparison = _Comparison(_claims(connection), has)
    problem, committed = "", list[PromisedRefund]()
    try:
        for refund in posted:
            comparison.take(refund)
        committed = list(promised)
    except Unreachable as error:
        problem = str(error)
    with engine.connect() as connection:
        comparison.judge(connection)
        comparison.keep_promises(connection, committed)
    return RefundsChecked(
        differences=(*comparison.differences, *(() if problem else comparison.lost())),
        in_books=comparison.in_books,
        in_ledger=comparison.in_ledger,
        in_flight=comparison.in_flight,
        problem=problem,
    )


class _Claim(NamedTuple):
    """A refund as the record of a task has it."""

    task_id: str
    refund_id: str
    facts: str


_Claims = Mapping[tuple[str, str], Sequence[_Claim]]  # by tenant and refund id


class _Comparison:
    """Takes the books' refunds one by one, and strikes them off ours."""

    def __init__(self, claims: _Claims, has: Callable[[str], bool]) -> None:
        self._has = has
        self._left = dict(claims)
        self._alone: list[PostedRefund] = []
        self._first: dict[str, str] = {}
        self.in_ledger = len(claims)
        self.in_books = 0
        self.in_flight = 0
        self.differences: list[LedgerDifference] = []

    def take(self, refund: PostedRefund) -> None:
        """One refund of the books."""
        self.in_books += 1
        first = self._first.setdefault(_ticket(refund), refund.refund_id)
        claims = self._left.pop((refund.tenant, refund.refund_id), [])
        if first != refund.refund_id:
            self._differs(refund, _ticket(refund), f"{first} already", TWICE)
        elif not claims:
            self._alone.append(refund)
        self._agree(refund, claims)

    def judge(self, connection: Connection) -> None:
        """Looks once more for the tasks of refunds that no record had."""
        families = _families(connection)
        for start in range(0, len(self._alone), _AT_ONCE):
            some = self._alone[start : start + _AT_ONCE]
            tickets = [_ticket(refund) for refund in some]
            arrived = set(connection.execute(_ARRIVED, {"ids": tickets}).scalars())
            tasks = [task for ticket in tickets for task in (ticket, *families.get(ticket, ()))]
            rows = {row.task_id: row for row in connection.execute(_OF_TICKETS, {"ids": tasks})}
            for refund, ticket in zip(some, tickets, strict=True):
                known = [rows[task] for task in (ticket, *families.get(ticket, ())) if task in rows]
                self._judged(refund, known, ticket in arrived and ticket not in rows)

    def keep_promises(self, connection: Connection, promised: Sequence[PromisedRefund]) -> None:
        """Names what was promised by tasks that have ended without posting it."""
        for start in range(0, len(promised), _AT_ONCE):
            some = {task_id(refund.tenant, refund.ticket_id): refund for refund in promised[start : start + _AT_ONCE]}
            for row in connection.execute(_OF_TICKETS, {"ids": list(some)}):
                if row.ended_at is not None and row.refund_id is None:
                    facts = _posted_facts(some[row.task_id])
                    self.differences.append(
                        LedgerDifference(row.task_id, "promised refund", facts, _ending(row), BOOKS, PROMISED)
                    )

    def lost(self) -> Iterator[LedgerDifference]:
        """Refunds of ours that the books did not have."""
        for claim in itertools.chain.from_iterable(self._left.values()):
            what = f"refund {claim.refund_id or 'without an id'}"
            yield LedgerDifference(claim.task_id, what, "none", claim.facts, BOOKS, LOST)

    def _judged(self, refund: PostedRefund, tasks: Sequence[Any], not_recorded: bool) -> None:
        ticket = _ticket(refund)
        claims = [_claim(row, ticket) for row in tasks if row.refund_id == refund.refund_id]
        if claims:  # ended while the books were read
            self.in_ledger += 1
            self._agree(refund, claims)
        elif not_recorded or any(row.ended_at is None for row in tasks):
            self.in_flight += 1
        elif tasks:
            self._differs(refund, ticket, _ending(tasks[-1]), OTHERWISE)
        else:
            self._differs(refund, ticket, "no such ticket", LACKING if self._has(ticket) else UNKNOWN)

    def _agree(self, refund: PostedRefund, claims: Iterable[_Claim]) -> None:
        for claim in claims:
            if claim.facts != _posted_facts(refund):
                self._differs(refund, claim.task_id, claim.facts, CHANGED)

    def _differs(self, refund: PostedRefund, task: str, ours: str, remedy: str) -> None:
        what, theirs = f"refund {refund.refund_id}", _posted_facts(refund)
        self.differences.append(LedgerDifference(task, what, theirs, ours, BOOKS, remedy))


def _claims(connection: Connection) -> _Claims:
    """What our records say was refunded. A rerun may say the same as the task that it repeats."""
    roots = _roots(connection)
    found: dict[tuple[str, str], list[_Claim]] = defaultdict(list)
    for row in connection.execute(_REFUNDED):
        found[row.tenant, row.refund_id or ""].append(_claim(row, roots.get(row.task_id, row.task_id)))
    return found


def _claim(row: Any, ticket: str) -> _Claim:
    facts = _facts(row.refund_amount, row.refund_currency, row.order_id, ticket)
    return _Claim(row.task_id, row.refund_id or "", facts)


def _roots(connection: Connection) -> dict[str, str]:
    """Of each rerun the task that was first, which bears the ticket's name."""
    parents: dict[str, str] = {row.task_id: row.rerun_of for row in connection.execute(_RERUNS)}

    def root(of: str) -> str:
        while of in parents:
            of = parents[of]
        return of

    return {rerun: root(rerun) for rerun in parents}


def _families(connection: Connection) -> Mapping[str, Sequence[str]]:
    """The reruns of each task that was first."""
    found: dict[str, list[str]] = defaultdict(list)
    for rerun, root in _roots(connection).items():
        found[root].append(rerun)
    return found


def _ending(row: Any) -> str:
    how = f"{row.status} as {row.outcome}" if row.outcome else row.status
    return f"{how} with {row.refund_id or 'no refund'}"


def _ticket(refund: PostedRefund | PromisedRefund) -> str:
    """The task of the refund's ticket, as it is called when it was not a rerun."""
    return task_id(refund.tenant, refund.ticket_id)


def _posted_facts(refund: PostedRefund | PromisedRefund) -> str:
    return _facts(refund.amount, refund.currency, refund.order_id, _ticket(refund))


def _facts(amount: str | Decimal | None, currency: str | None, order_id: str | None, ticket: str) -> str:
    """A refund in words; two are the same when their words are."""
    money = _money(Decimal(amount), currency) if amount is not None and currency else "an amount that is not known"
    return f"{money} for order {order_id} of ticket {ticket.partition(':')[2]}"


def _money(amount: Decimal, currency: str) -> str:
    """In the currency's normal form; an amount that has none, as it stands."""
    try:
        return f"{in_minor_units(amount, currency)} {currency}"
    except ValueError:
        return f"{amount} {currency}"
