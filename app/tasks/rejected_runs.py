"""Tasks that Dapr condemned although nobody had touched them, begun again.

Works around `CONDEMNED`. With history signing, daprd can take an honest task for a tampered one: when placement or the
sidecar goes while a turn's steps are handed out, a step's result may come in before the turn that asked for it is
saved, or, once the task was begun again, for the step of the same number of the new run. daprd then fails the run for
good, since the result belongs to no step that it knows, or to another one. Nothing of the history was changed: the
result was signed by an activity of ours, and a daprd without the defect drops it. Such a task is worked again from its
ticket; the refund's key and the books see to it that nothing is posted twice. Any other word about a history that does
not verify is left as it is, for people to look into. So is this one where no daprd with the defect was there to say it:
an upgrade replaces one sidecar after the other, so what counts is not which one runs beside this worker now, but which
ran beside any worker when the run was given up.

Several workers see the same run given up: the ledger has a row for each new beginning, and whoever writes it begins.
What condemned a run may last, a sidecar that stands still for instance, so each new beginning waits longer.
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
from app.ledger.store.call_rows import GIVEN_UP, give_up_calls
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.tables import BEGINNINGS, WORKERS
from app.ledger.store.writer import Writer

log = logging.getLogger(__name__)

# daprd checks signature and certificate before name and digest: what differs in those alone is a late answer.
_HONEST = re.compile(
    r"(activity|child) completion references unknown task scheduled id \d+"
    r"|(activity|child) attestation verification failed for task \d+: "
    r"(ioDigest mismatch: claimed input/output does not match committed digest"
    r'|activity name mismatch: attestation claims "[^"]*", verifier expected "[^"]*")'
)
# From one beginning to the next. It takes a crash at the worst moment each time; a task that meets it more often than
# there are pauses has another trouble.
PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600))
MOST = len(PAUSES) + 1
# A run that was begun is seen by then. If not, whoever was about to begin it has died.
SEEN_AFTER = timedelta(seconds=30)
# A sidecar may outlive its worker, and clocks differ.
_BESIDE = timedelta(minutes=5)

_OF_TASK = select(BEGINNINGS).where(BEGINNINGS.c.task_id == bindparam("the_task")).order_by(BEGINNINGS.c.number)
_THIS = (BEGINNINGS.c.task_id == bindparam("the_task")) & (BEGINNINGS.c.given_up_at == bindparam("the_end"))
_TAKE_OVER = update(BEGINNINGS).where(_THIS, BEGINNINGS.c.at == bindparam("before")).values(at=bindparam("now"))
_WITHDRAW = delete(BEGINNINGS).where(_THIS)


class Turn(Enum):
    """Whose turn it is to begin a task again."""

    MINE = auto()
    LATER = auto()  # another worker has begun it, or its pause is not over
    OVER = auto()  # it was begun again as often as is allowed


class RejectedRuns:
    """Begins them again; `restart` starts a task's run anew. Of all workers of a ledger, one does so for each run that
    was given up. `clock` gives the time in UTC."""

    def __init__(self, writer: Writer, restart: Callable[[str], None], clock: Callable[[], datetime]) -> None:
        self._writer = writer
        self._restart = restart
        self._clock = clock

    def begin_again(self, error: HistoryTampered) -> bool:
        """Whether the task is worked again: it was begun again, or is to be looked at once more for that. Its model
        calls are marked as in vain first; the new run is answered from those that it would ask again."""
        if error.given_up_at is None or not self._is_mistaken(error.words, error.given_up_at):
            return False
        task_id, ended, now = error.instance_id, error.given_up_at, self._clock()
        turn = self._writer.run(lambda connection: _taken(connection, task_id, ended, now))
        if turn is not Turn.MINE:
            return turn is Turn.LATER
        why = f"{GIVEN_UP}: {error.words}"
        self._writer.run(lambda connection: give_up_calls(connection, task_id, why))
        try:
            self._restart(task_id)
        except RefundAgentError as failure:
            log.warning("task %s: cannot be begun again yet: %s", task_id, failure)
            this = {"the_task": task_id, "the_end": ended}
            self._writer.run(lambda connection: connection.execute(_WITHDRAW, this).rowcount)
            return True
        log.error("task %s: Dapr gave its run up although nobody touched it (%s); begun again", task_id, error.words)
        return True

    def is_begun_again(self, task_id: str, words: str, ended: datetime) -> bool:
        """Whether a run that Dapr gave up at that time, with these words, is worked again, now or soon: its task goes
        on."""
        if not self._is_mistaken(words, ended):
            return False
        before = self._writer.run(lambda connection: connection.execute(_OF_TASK, {"the_task": task_id}).all())
        return len(before) < MOST or self._clock() - before[-1].at < SEEN_AFTER

    def _is_mistaken(self, words: str, ended: datetime) -> bool:
        """Whether daprd said so of a run that nobody had touched."""
        return _HONEST.fullmatch(words) is not None and self._writer.run(lambda run: _by_one_that_errs(run, ended))


def _by_one_that_errs(connection: Connection, ended: datetime) -> bool:
    """Whether a daprd with the defect, or one of unknown version, may have ended a run then."""
    lived = (WORKERS.c.started_at <= ended + _BESIDE) & (WORKERS.c.seen_at >= ended - _BESIDE)
    beside = connection.execute(select(WORKERS.c.daprd).where(lived).distinct()).scalars().all()
    return any(workarounds.needed(REJECTED_RUNS, workarounds.parse(version)) for version in beside or [""])


def _taken(connection: Connection, task_id: str, ended: datetime, now: datetime) -> Turn:
    """Writes the row that says who begins the task again. `ended`: when Dapr gave up the run that is there now."""
    before = connection.execute(_OF_TASK, {"the_task": task_id}).all()
    this = next((row for row in before if row.given_up_at == ended), None)
    if this is not None:
        if now - this.at < SEEN_AFTER:
            return Turn.LATER
        values = {"the_task": task_id, "the_end": ended, "before": this.at, "now": now}
        return Turn.MINE if connection.execute(_TAKE_OVER, values).rowcount else Turn.LATER
    if len(before) >= MOST:
        return Turn.OVER
    if before and now - before[-1].at < PAUSES[len(before) - 1]:
        return Turn.LATER
    row = {"task_id": task_id, "number": len(before) + 1, "given_up_at": ended, "at": now}
    return Turn.MINE if connection.execute(insert_or_ignore(connection, BEGINNINGS), row).rowcount else Turn.LATER
