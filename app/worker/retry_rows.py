"""The ledger's side of the sidecar's retries: rows of SIDECAR_RETRIES, and what calls are allocated of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, func, insert, or_, select, update

from app.domain.models import CallState
from app.ledger.store.tables import MODEL_CALLS, SIDECAR_RETRIES, WORKERS
from app.worker.metric_windows import End, Gap, Window
from app.worker.sidecar_retries import Call, RetryPolicy, allocate

# Dapr asks a call again for a quarter of an hour at most: what began earlier is not looked for.
_LONGEST_CALL = timedelta(minutes=15)
# A living worker is at most this much older than it says, and some.
_BEAT = timedelta(seconds=10)
_RAISE = (
    update(MODEL_CALLS)
    .where(MODEL_CALLS.c.call_id == bindparam("the_call"))
    .values(retries=MODEL_CALLS.c.retries + bindparam("share"))
)


@dataclass(frozen=True)
class Written:
    """tasks: whose calls were allocated retries. in_vain: calls whose retry the breaker refused, now counted."""

    tasks: frozenset[str] = field(default_factory=frozenset)
    in_vain: frozenset[str] = field(default_factory=frozenset)


def write_window(
    connection: Connection, window: Window, worker: str, policy: RetryPolicy, at: datetime, in_vain: Collection[str]
) -> Written:
    """Writes what was asked again in a window, and allocates it to the calls of `worker`."""
    mine = and_(_ran(window.from_at, window.to_at), MODEL_CALLS.c.component == window.component)
    rows = connection.execute(select(MODEL_CALLS).where(mine, MODEL_CALLS.c.worker == worker)).mappings().all()
    calls = [
        Call(row["call_id"], row["started_at"], row["ended_at"], CallState(row["state"]), row["error"], row["retries"])
        for row in rows
    ]
    found = allocate(window, calls, policy, at, in_vain)
    if found.count:
        _add(connection, window.component, window.from_at, window.to_at, found.count, found.allocated)
    if found.shares:
        connection.execute(_RAISE, [{"the_call": call, "share": share} for call, share in found.shares.items()])
    return Written(frozenset(row["task_id"] for row in rows if row["call_id"] in found.shares), found.in_vain)


def write_gap(connection: Connection, gap: Gap, worker: str) -> Written:
    """Writes that nobody knows what was asked again, for each component that was being asked at that time."""
    whose = MODEL_CALLS.c.worker != worker if gap.predecessors else MODEL_CALLS.c.worker == worker
    asked = select(MODEL_CALLS.c.component).distinct().where(whose)
    for component in (
        connection.execute(asked.where(_ran(gap.from_at, gap.to_at)).order_by("component")).scalars().all()
    ):
        written = _written_until(connection, component) if gap.predecessors else None
        since = max(written, gap.from_at) if written else gap.from_at
        still = asked.where(_ran(since, gap.to_at), MODEL_CALLS.c.component == component)
        if since < gap.to_at and connection.execute(still).first():
            _add_gap(connection, component, since, gap.to_at)
    return Written()


def write_end(connection: Connection, end: End) -> Written:
    """Writes that all is counted until here, so that the next worker at this sidecar knows that nothing is lost."""
    _add(connection, end.component, end.to_at, end.to_at, 0, 0)
    return Written()


def _ran(since: datetime, until: datetime) -> ColumnElement[bool]:
    """Calls that ran at some moment of a time. One that nobody saw end ran for as long as its worker lived."""
    began = MODEL_CALLS.c.started_at.between(since - _LONGEST_CALL, until)
    lived = exists().where(WORKERS.c.worker == MODEL_CALLS.c.worker, WORKERS.c.seen_at > since - _BEAT)
    return and_(began, or_(MODEL_CALLS.c.ended_at > since, and_(MODEL_CALLS.c.ended_at.is_(None), lived)))


def _written_until(connection: Connection, component: str) -> datetime | None:
    last = select(func.max(SIDECAR_RETRIES.c.to_at)).where(SIDECAR_RETRIES.c.component == component)
    found: datetime | None = connection.execute(last).scalar_one()
    return found


def _add_gap(connection: Connection, component: str, since: datetime, until: datetime) -> None:
    """One that goes on is one row, however many looks it lasts."""
    this = and_(SIDECAR_RETRIES.c.component == component, SIDECAR_RETRIES.c["count"].is_(None))
    longer = update(SIDECAR_RETRIES).where(this, SIDECAR_RETRIES.c.to_at == since).values(to_at=until)
    if not connection.execute(longer).rowcount:
        _add(connection, component, since, until, None, 0)


def _add(
    connection: Connection, component: str, since: datetime, until: datetime, count: int | None, allocated: int
) -> None:
    row = {"component": component, "from_at": since, "to_at": until, "count": count, "allocated": allocated}
    connection.execute(insert(SIDECAR_RETRIES).values(row))
