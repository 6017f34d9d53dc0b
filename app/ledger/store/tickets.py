"""Stores accepted tickets, with redacted texts, and the drafted replies to customers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Connection, Engine, bindparam, select, update
from sqlalchemy.engine import Row

from app.domain.errors import Conflict, TaskNotFound
from app.domain.models import TaskStatus, Ticket
from app.domain.redaction import redact
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.tables import REPLIES, TICKETS
from app.ledger.store.writer import Writer

# The digest of a ticket that was restored from a history, which holds no texts. If the ticket is sent again, it gets
# the texts of that body.
NO_DIGEST = ""


@dataclass(frozen=True)
class StoredTicket:
    """A row of `tickets`. `text` and `subject` are redacted; `digest`: of the body as it arrived."""

    task_id: str
    sequence: int
    tenant: str
    ticket_id: str
    customer_id: str
    order_id: str | None
    digest: str
    subject: str
    text: str
    received_at: datetime
    started: bool
    recorded: bool


# Built once: composing a statement costs more than running it.
_THIS_TASK = TICKETS.c.task_id == bindparam("the_task")
_STORED = select(*(TICKETS.c[field.name] for field in fields(StoredTicket)))
_FIND = _STORED.where(_THIS_TASK)
_MARK = update(TICKETS).where(_THIS_TASK).values(started=True)


class Tickets:
    """Reads and writes the tickets table. Thread-safe; every write is one committed transaction."""

    def __init__(self, engine: Engine, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock

    def accept(self, ticket: Ticket) -> tuple[StoredTicket, bool]:
        """Saves a new ticket, or finds the saved one; True if it is new. Raises Conflict for a known id with another
        body."""
        digest = body_digest(ticket)
        known = self._find(ticket.task_id)
        if known is None:
            inserted = self._insert(ticket, digest)
            if inserted is not None:
                return inserted, True
            known = self.get(ticket.task_id)  # a simultaneous request saved the same id first
        if known.digest == NO_DIGEST:
            known = self._with_texts(known, ticket, digest)
        return _same(known, digest), False

    def get(self, task_id: str) -> StoredTicket:
        """The ticket of a task. Raises TaskNotFound."""
        known = self._find(task_id)
        if known is None:
            raise TaskNotFound(f"task {task_id} is not in the ledger; check tenant and ticket id")
        return known

    def to_read(self, task_id: str) -> StoredTicket:
        """As `get`, for callers that need the texts. Also raises TaskNotFound for a ticket that a rebuild restored
        without texts."""
        known = self.get(task_id)
        if known.digest == NO_DIGEST:
            raise TaskNotFound(
                f"the texts of ticket {task_id} are not in this ledger: it was restored from the workflow's history; "
                f"send the ticket again, then `task resume {task_id}`"
            )
        return known

    def find(self, task_ids: Sequence[str]) -> dict[str, StoredTicket]:
        """The tickets of those of these tasks that are in the ledger, by task id."""
        with self._engine.connect() as connection:
            rows = connection.execute(_STORED.where(TICKETS.c.task_id.in_(task_ids))).all()
        return {row.task_id: _ticket(row) for row in rows}

    def mark_started(self, task_id: str) -> Future[int]:
        """Saves that Dapr has the ticket's task. Callers need not wait: if a crash loses the write, the next start asks
        Dapr to start the task once more."""
        return self._writer.submit(lambda connection: connection.execute(_MARK, {"the_task": task_id}).rowcount)

    def not_started(self, limit: int) -> list[StoredTicket]:
        """The oldest accepted tickets whose task has not been started, up to `limit`."""
        query = _STORED.where(TICKETS.c.started.is_(False)).order_by(TICKETS.c.sequence).limit(limit)
        with self._engine.connect() as connection:
            return [_ticket(row) for row in connection.execute(query)]

    def _find(self, task_id: str) -> StoredTicket | None:
        with self._engine.connect() as connection:
            row = connection.execute(_FIND, {"the_task": task_id}).one_or_none()
        return None if row is None else _ticket(row)

    def _with_texts(self, known: StoredTicket, ticket: Ticket, digest: str) -> StoredTicket:
        """Adds the texts to a ticket that was restored from a history, if customer and order are the same."""
        if known.customer_id != ticket.customer_id or known.order_id != ticket.order_id:
            return known
        texts = {"digest": digest, "subject": redact(ticket.subject), "text": redact(ticket.text)}
        change = update(TICKETS).where(TICKETS.c.task_id == known.task_id, TICKETS.c.digest == NO_DIGEST).values(texts)
        self._writer.run(lambda connection: connection.execute(change).rowcount)
        return self.get(known.task_id)

    def _insert(self, ticket: Ticket, digest: str) -> StoredTicket | None:
        values = {
            "task_id": ticket.task_id,
            "tenant": ticket.tenant,
            "ticket_id": ticket.ticket_id,
            "customer_id": ticket.customer_id,
            "order_id": ticket.order_id,
            "digest": digest,
            "subject": redact(ticket.subject),
            "text": redact(ticket.text),
            "received_at": self._clock(),
            "started": False,
            "recorded": False,
            "status": TaskStatus.RUNNING.value,
            "stood_at": None,
            "standing": "{}",
            "caveat": "",
        }

        def insert(connection: Connection) -> StoredTicket | None:
            if not connection.execute(insert_or_ignore(connection, TICKETS), values).rowcount:
                return None
            row = connection.execute(_FIND, {"the_task": ticket.task_id}).one_or_none()
            return None if row is None else _ticket(row)

        return self._writer.run_soon(insert)


def body_digest(ticket: Ticket) -> str:
    """The SHA-256 of a ticket's JSON; it identifies the body without its texts."""
    return hashlib.sha256(ticket.model_dump_json().encode()).hexdigest()


def _same(known: StoredTicket, digest: str) -> StoredTicket:
    if known.digest != digest:
        raise Conflict(
            f"task {known.task_id} has another body (received {known.received_at:%Y-%m-%d %H:%M} UTC); "
            "send the changed ticket under a new ticket id"
        )
    return known


def _ticket(row: Row[tuple[object, ...]]) -> StoredTicket:
    return StoredTicket(**row._mapping)


# Built once: composing a statement costs more than running it.
_TEXT = select(REPLIES.c.text).where(
    REPLIES.c.task_id == bindparam("the_task"), REPLIES.c.digest == bindparam("the_digest")
)


class Replies:
    """Reads and writes the replies to customers that the model drafted; histories hold only their digests.
    Thread-safe."""

    def __init__(self, engine: Engine, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock

    def keep(self, task_id: str, text: str) -> str:
        """Saves a reply and returns its digest. Saving the same text again, as a repeated step does, changes
        nothing."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        row = {"task_id": task_id, "digest": digest, "text": text, "written_at": self._clock()}
        self._writer.run(lambda connection: connection.execute(insert_or_ignore(connection, REPLIES), row).rowcount)
        return digest

    def get(self, task_id: str, digest: str) -> str:
        """The text of a reply. Raises TaskNotFound if the ledger does not have it."""
        with self._engine.connect() as connection:
            text = connection.execute(_TEXT, {"the_task": task_id, "the_digest": digest}).scalar_one_or_none()
        if text is None:
            raise TaskNotFound(
                f"task {task_id}: reply {digest[:12]} is not in this ledger; check REFUND_AGENT_LEDGER_URL"
            )
        return str(text)
