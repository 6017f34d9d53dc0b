"""Restarts tasks whose run daprd rejected as tampered although nobody had changed its history.

The workaround for `REJECTED_RUNS`. With history signing, daprd can take an honest run for a tampered one: when
placement or the sidecar goes down while a turn's steps are handed out, a step's result may arrive before the turn that
scheduled it is saved, or, after a restart of the task, for the new run's step of the same number. daprd then fails the
run for good, since the result belongs to no step that it knows, or to another one. The history is unchanged: the result
was signed by one of our activities, and a daprd without the defect drops it. Such a task is restarted from its ticket;
the refund's idempotency key and the refund system prevent a second posting.

Any other error of verification is left for people to look into. So is this one when no daprd with the defect can have
raised it. An upgrade replaces one sidecar after the other, so the sidecars that count are those that ran beside any
worker when the run was given up, not the one beside this worker now.

Several workers see the same rejected run. The ledger has one row for each restart, and the worker that writes the row
restarts the task. The cause may last, such as a sidecar that hangs, so the pause before each restart grows.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum, auto

from sqlalchemy import Connection, bindparam, delete, select, update

from app.dapr import workarounds
from app.dapr.workarounds import REJECTED_RUNS
from app.domain.errors import HistoryTampered, RefundAgentError
from app.ledger.store.call_rows import GIVEN_UP, mark_calls_wasted
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.tables import BEGINNINGS, WORKERS
from app.ledger.store.writer import Writer

log = logging.getLogger(__name__)

# daprd checks signature and certificate before name and digest, so a difference in name or digest is a late result.
_HONEST = re.compile(
    r"(activity|child) completion references unknown task scheduled id \d+"
    r"|(activity|child) attestation verification failed for task \d+: "
    r"(ioDigest mismatch: claimed input/output does not match committed digest"
    r'|activity name mismatch: attestation claims "[^"]*", verifier expected "[^"]*")'
)
# The pauses between restarts. Each rejection takes a crash at the worst moment; a task that is rejected more often than
# there are pauses has another problem.
PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600))
MAX_RESTARTS = len(PAUSES) + 1
# A restarted run is visible by then. If it is not, the worker that was about to restart it has died.
SEEN_AFTER = timedelta(seconds=30)
# A sidecar may outlive its worker, and clocks differ.
_BESIDE = timedelta(minutes=5)

_RESTARTS = select(BEGINNINGS).where(BEGINNINGS.c.task_id == bindparam("the_task")).order_by(BEGINNINGS.c.number)
_THIS = (BEGINNINGS.c.task_id == bindparam("the_task")) & (BEGINNINGS.c.given_up_at == bindparam("the_end"))
_TAKE_OVER = update(BEGINNINGS).where(_THIS, BEGINNINGS.c.at == bindparam("before")).values(at=bindparam("now"))
_WITHDRAW = delete(BEGINNINGS).where(_THIS)


class Turn(Enum):
    """Whether this worker restarts the task."""

    MINE = auto()
    LATER = auto()  # another worker has restarted it, or its pause is not over
    OVER = auto()  # it was restarted as often as is allowed


class RejectedRuns:
    """Restarts the tasks of rejected runs; of all workers of a ledger, one restarts each task. `restart` starts the new
    run of a task, `clock` returns the time in UTC."""

    def __init__(self, writer: Writer, restart: Callable[[str], None], clock: Callable[[], datetime]) -> None:
        self._writer = writer
        self._restart = restart
        self._clock = clock

    def begin_again(self, error: HistoryTampered) -> bool:
        """Restarts the task if it is this worker's turn. Returns whether the task continues: it was restarted, or this
        must be called again later. The run's model calls are marked as wasted first; the new run reuses the answers of
        those that it would repeat."""
        if error.given_up_at is None or not self._is_mistaken(error.words, error.given_up_at):
            return False
        task_id, ended, now = error.instance_id, error.given_up_at, self._clock()
        turn = self._writer.run(lambda connection: _take_turn(connection, task_id, ended, now))
        if turn is not Turn.MINE:
            return turn is Turn.LATER
        reason = f"{GIVEN_UP}: {error.words}"
        self._writer.run(lambda connection: mark_calls_wasted(connection, task_id, reason))
        try:
            self._restart(task_id)
        except RefundAgentError as failure:
            log.warning("task %s: cannot be restarted yet: %s", task_id, failure)
            key = {"the_task": task_id, "the_end": ended}
            self._writer.run(lambda connection: connection.execute(_WITHDRAW, key).rowcount)
            return True
        log.error("task %s: Dapr rejected its run although nobody changed it (%s); restarted", task_id, error.words)
        return True

    def is_restarted(self, task_id: str, words: str, ended: datetime) -> bool:
        """Whether the task of a run that Dapr failed with the message `words` at `ended` was or will be restarted."""
        if not self._is_mistaken(words, ended):
            return False
        restarts = self._writer.run(lambda connection: connection.execute(_RESTARTS, {"the_task": task_id}).all())
        return len(restarts) < MAX_RESTARTS or self._clock() - restarts[-1].at < SEEN_AFTER

    def _is_mistaken(self, words: str, ended: datetime) -> bool:
        """Whether the message is a false verdict, and a daprd with the defect can have raised it."""
        return _HONEST.fullmatch(words) is not None and self._writer.run(lambda run: _defect_possible(run, ended))


def _defect_possible(connection: Connection, ended: datetime) -> bool:
    """Whether a daprd with the defect, or one of unknown version, ran beside any worker when the run ended."""
    lived = (WORKERS.c.started_at <= ended + _BESIDE) & (WORKERS.c.seen_at >= ended - _BESIDE)
    beside = connection.execute(select(WORKERS.c.daprd).where(lived).distinct()).scalars().all()
    return any(workarounds.is_needed(REJECTED_RUNS, workarounds.parse(version)) for version in beside or [""])


def _take_turn(connection: Connection, task_id: str, ended: datetime, now: datetime) -> Turn:
    """Decides whether this worker restarts the task, and if so writes the restart's row. `ended` is the time at which
    Dapr failed the current run."""
    restarts = connection.execute(_RESTARTS, {"the_task": task_id}).all()
    restart = next((row for row in restarts if row.given_up_at == ended), None)
    if restart is not None:
        if now - restart.at < SEEN_AFTER:
            return Turn.LATER
        values = {"the_task": task_id, "the_end": ended, "before": restart.at, "now": now}
        return Turn.MINE if connection.execute(_TAKE_OVER, values).rowcount else Turn.LATER
    if len(restarts) >= MAX_RESTARTS:
        return Turn.OVER
    if restarts and now - restarts[-1].at < PAUSES[len(restarts) - 1]:
        return Turn.LATER
    row = {"task_id": task_id, "number": len(restarts) + 1, "given_up_at": ended, "at": now}
    return Turn.MINE if connection.execute(insert_or_ignore(connection, BEGINNINGS), row).rowcount else Turn.LATER
