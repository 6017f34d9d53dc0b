"""The standing of each ticket's task in the ledger: its status, and what it waits for. Lists and views read it.

The worker writes a standing after the turn that changed it, the projector one that it reads from a history; the later
turn wins. A task with a final record keeps its standing, even if the state store was restored from an older backup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, Select, bindparam, func, not_, or_, select, update

from app.dapr.history.model import WorkflowRun
from app.domain.decision_texts import BROKEN
from app.domain.errors import TaskNotFound
from app.domain.models import TaskStatus
from app.domain.standing import Standing, ended_standing, lost_task_message, running_standing
from app.ledger.store.call_rows import prepare_new_run
from app.ledger.store.tables import TICKETS
from app.ledger.store.writer import Writer

# Built once: composing a statement costs more than running it. A ticket's texts are not read for a list.
_LISTED = select(
    TICKETS.c.task_id,
    TICKETS.c.sequence,
    TICKETS.c.tenant,
    TICKETS.c.ticket_id,
    TICKETS.c.received_at,
    TICKETS.c.started,
    TICKETS.c.recorded,
    TICKETS.c.status,
    TICKETS.c.stood_at,
    TICKETS.c.standing,
    TICKETS.c.caveat,
)
_THIS = TICKETS.c.task_id == bindparam("the_task")
_GET = _LISTED.where(_THIS)
_NEW_VALUES = {
    "status": bindparam("now_status"),
    "stood_at": bindparam("now_at"),
    "standing": bindparam("now_standing"),
    "caveat": "",
}
_EARLIER = or_(TICKETS.c.stood_at.is_(None), TICKETS.c.stood_at < bindparam("now_at"))
_REPORT = update(TICKETS).where(_THIS, TICKETS.c.recorded.is_(False), _EARLIER).values(_NEW_VALUES)
_UPDATE = update(TICKETS).where(_THIS, _EARLIER).values(_NEW_VALUES)
_SAME_CAVEAT = func.substr(TICKETS.c.caveat, 1, bindparam("length")) == bindparam("words")
_STATUS = select(TICKETS.c.status).where(_THIS)
_NOT_ENDED = frozenset(status.value for status in TaskStatus if not status.ended)
_MAY_GET_CAVEAT = _THIS, TICKETS.c.recorded.is_(False), not_(_SAME_CAVEAT)
_SET_CAVEAT = update(TICKETS).where(*_MAY_GET_CAVEAT).values(caveat=bindparam("the_caveat"))
_STOOD = select(TICKETS.c.task_id, TICKETS.c.stood_at).where(TICKETS.c.task_id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True)
class ListedTask:
    """A ticket's task, without the ticket's texts. started: whether Dapr has the task. final: whether it has ended and
    its record cannot change any more. caveat: why the standing may be outdated; empty if there is no reason to think
    so."""

    task_id: str
    sequence: int
    tenant: str
    ticket_id: str
    received_at: datetime
    started: bool
    final: bool
    standing: Standing
    caveat: str


class Standings:
    """Reads and writes the standings of tickets' tasks. Thread-safe. `clock` gives the time in UTC."""

    def __init__(self, engine: Engine, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock

    def report(self, task_id: str, standing: Standing) -> Future[int]:
        """Saves a task's standing after a turn, unless a later one is saved. Callers need not wait: the projector
        finds what a crash loses."""
        values = _values(task_id, standing)
        return self._writer.submit(lambda connection: connection.execute(_REPORT, values).rowcount)

    def set_caveat(self, task_id: str, words: str) -> None:
        """Saves why a task's standing may be outdated, until its history is read again. The caveat names the time at
        which these words were first saved."""
        caveat = f"{words} (since {self._clock():%Y-%m-%d %H:%M} UTC at the latest)"
        values = {"the_task": task_id, "words": words, "length": len(words), "the_caveat": caveat}
        self._writer.run(lambda connection: connection.execute(_SET_CAVEAT, values).rowcount)

    def mark_unknown(self, task_id: str) -> None:
        """Saves as a caveat that Dapr no longer has a task; an ended task needs none."""
        with self._engine.connect() as connection:
            status = connection.execute(_STATUS, {"the_task": task_id}).scalar()
        if status in _NOT_ENDED:
            self.set_caveat(task_id, lost_task_message(task_id))

    def prepare_new_run(self, task_id: str, why: str) -> None:
        """Prepares a task for a new run: resets its standing and marks its model calls as wasted because of `why`."""
        self._writer.run(lambda connection: prepare_new_run(connection, task_id, why))

    def get(self, task_id: str) -> ListedTask:
        """One task. Raises TaskNotFound."""
        with self._engine.connect() as connection:
            row = connection.execute(_GET, {"the_task": task_id}).mappings().one_or_none()
        if row is None:
            raise TaskNotFound(f"task {task_id} is not in the ledger; check tenant and ticket id")
        return _listed(row)

    def page(
        self, tenants: frozenset[str] | None, status: TaskStatus | None, after: int, limit: int
    ) -> tuple[list[ListedTask], bool]:
        """Up to `limit` tasks of tickets with a sequence number above `after`, in order of arrival, and whether more
        follow. None matches any tenant or status."""
        query = _LISTED.where(TICKETS.c.sequence > after).order_by(TICKETS.c.sequence)
        return self._read(query, tenants, status, limit)

    def newest(
        self, tenants: frozenset[str] | None, status: TaskStatus | None, before: int | None, limit: int
    ) -> tuple[list[ListedTask], bool]:
        """As `page`, newest first, for tickets with a sequence number below `before`; None starts at the newest."""
        query = _LISTED.order_by(TICKETS.c.sequence.desc())
        return self._read(query if before is None else query.where(TICKETS.c.sequence < before), tenants, status, limit)

    def waiting(
        self,
        tenants: frozenset[str] | None,
        reason: str | None,
        asked_before: datetime | None,
        after: int,
        limit: int,
    ) -> tuple[list[ListedTask], bool]:
        """Up to `limit` tasks that wait for a person because of `reason`, since before `asked_before`, in order of
        arrival, and whether more follow. None matches any."""
        query = _LISTED.where(TICKETS.c.sequence > after).order_by(TICKETS.c.sequence)
        return self._read(query.where(*_waiting_conditions(reason, asked_before)), tenants, TaskStatus.WAITING, limit)

    def count(
        self,
        tenants: frozenset[str] | None,
        status: TaskStatus | None,
        reason: str | None = None,
        asked_before: datetime | None = None,
    ) -> int:
        """The number of tasks with these attributes; None matches any."""
        query = _filtered(select(func.count()).select_from(TICKETS), tenants, status)
        with self._engine.connect() as connection:
            return int(connection.execute(query.where(*_waiting_conditions(reason, asked_before))).scalar_one())

    def reasons(self, tenants: frozenset[str] | None) -> dict[str, dict[str, int]]:
        """The number of tasks that wait for a person, by tenant and reason."""
        counts: dict[str, dict[str, int]] = {}
        query = _filtered(select(TICKETS.c.tenant, TICKETS.c.standing), tenants, TaskStatus.WAITING)
        with self._engine.connect() as connection:
            for tenant, standing in connection.execute(query):
                by_reason, reason = counts.setdefault(tenant, {}), _reason(standing)
                by_reason[reason] = by_reason.get(reason, 0) + 1
        return counts

    def broken(self) -> list[str]:
        """The tasks that are parked because the workflow's code could not run them."""
        is_broken = TICKETS.c.standing.contains(f'"waiting_for":"{BROKEN}', autoescape=True)
        query = select(TICKETS.c.task_id).where(TICKETS.c.status == TaskStatus.PARKED.value, is_broken)
        with self._engine.connect() as connection:
            return list(connection.execute(query.order_by(TICKETS.c.sequence)).scalars())

    def _read(
        self, query: Select[Any], tenants: frozenset[str] | None, status: TaskStatus | None, limit: int
    ) -> tuple[list[ListedTask], bool]:
        """Up to `limit` tasks, and whether more follow: one more row is read to find out."""
        with self._engine.connect() as connection:
            rows = connection.execute(_filtered(query, tenants, status).limit(limit + 1)).mappings().all()
        return [_listed(row) for row in rows[:limit]], len(rows) > limit


def _filtered(query: Select[Any], tenants: frozenset[str] | None, status: TaskStatus | None) -> Select[Any]:
    if tenants is not None:
        query = query.where(TICKETS.c.tenant.in_(sorted(tenants)))
    return query if status is None else query.where(TICKETS.c.status == status.value)


def _waiting_conditions(reason: str | None, before: datetime | None) -> Iterator[ColumnElement[bool]]:
    """Conditions on a waiting task's reason and time. The reason is searched in the standing's JSON text, which is fast
    enough because few tasks wait."""
    if reason is not None:
        yield TICKETS.c.standing.contains(f'"waiting_for":{json.dumps(reason, ensure_ascii=False)}', autoescape=True)
    if before is not None:
        yield TICKETS.c.stood_at < before


def _reason(standing: str) -> str:
    try:
        return str(json.loads(standing).get("waiting_for") or "")
    except ValueError:
        return ""


def of_run(run: WorkflowRun, status: TaskStatus, custom_status: str | None) -> Standing:
    """The standing of a task according to its history. `custom_status`: of a run that has not ended."""
    at = run.ended_at or (run.replays[-1].started_at if run.replays else run.started_at)
    if at is None:
        return Standing(status=status)
    if status.ended:
        output = run.output.text if run.output else None
        return ended_standing(status, at, output, run.failure.message if run.failure else None)
    return running_standing(custom_status, at, status)


def update_standings(connection: Connection, from_histories: Mapping[str, Standing]) -> None:
    """Writes standings that were read from histories, by task id, unless the ledger has one of a later turn."""
    if from_histories:
        connection.execute(_UPDATE, [_values(task_id, standing) for task_id, standing in from_histories.items()])


def stood_at(connection: Connection, task_ids: Iterable[str]) -> dict[str, datetime | None]:
    """The time of the turn of each task's saved standing, by task id; None if no standing was saved."""
    rows = connection.execute(_STOOD, {"ids": list(task_ids)})
    return {row.task_id: row.stood_at for row in rows}


def _values(task_id: str, standing: Standing) -> dict[str, Any]:
    rest = standing.model_dump_json(exclude={"status", "at"}, exclude_defaults=True)
    return {"the_task": task_id, "now_status": standing.status.value, "now_at": standing.at, "now_standing": rest}


def _listed(row: RowMapping) -> ListedTask:
    return ListedTask(
        task_id=row["task_id"],
        sequence=row["sequence"],
        tenant=row["tenant"],
        ticket_id=row["ticket_id"],
        received_at=row["received_at"],
        started=row["started"],
        final=row["recorded"],
        standing=standing_in(row),
        caveat=row["caveat"],
    )


def standing_in(row: RowMapping) -> Standing:
    """The standing in a row of `tickets`. If its JSON is unreadable (written by a later version, or damaged), only
    status and time are returned, so that one row does not make a list fail."""
    bare: dict[str, Any] = {"status": row["status"], "at": row["stood_at"]}
    try:
        return Standing.model_validate(json.loads(row["standing"]) | bare)
    except ValueError:
        return Standing.model_validate(bare)
