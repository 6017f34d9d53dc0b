"""A projector over random tasks, for a separate process that is killed at any moment, even inside a transaction."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Engine, event

from app.dapr.history.model import WorkflowRun
from app.ledger.recording.projector import Projector
from app.ledger.recording.sources import Sources
from app.ledger.store import database
from app.ledger.store.writer import Writer
from tests.dapr.history.told import T0
from tests.ledger.kit import MODELS, NAMING, Ledger, two_currencies
from tests.ledger.stories import Story, story

LATER = T0 + timedelta(days=30)
TASKS = tuple(f"{('acme', 'lumen')[seed % 2]}:T-{seed}" for seed in range(200))


def told(task_id: str) -> Story:
    """The story of one of the tasks."""
    return story(int(task_id.rpartition("-")[2]), task_id, MODELS)


def histories(ended: bool) -> Callable[[str], WorkflowRun]:
    """Reads Dapr's histories, as they are halfway or at the end."""

    def read(task_id: str) -> WorkflowRun:
        found = told(task_id)
        return (found.end if ended else found.at(len(found.turns) // 2)).run

    return read


def prepare(ledger: Ledger) -> None:
    """Writes the tickets and the complete journal."""
    ledger.tickets(*TASKS)
    ledger.journal([call for task_id in TASKS for call in told(task_id).calls])


def run(url: str, ended: bool, life: int) -> None:
    """Records tasks until it has run `life` statements and commits; then the process kills itself."""
    engine = database.connect(url)
    sources = Sources(engine, histories(ended), two_currencies(), NAMING, lambda: LATER)
    projector = Projector(sources, Writer(engine))
    die_after(engine, life)
    projector.start()
    threading.Event().wait()


def die_after(engine: Engine, life: int) -> None:
    """Kills this process before the next statement or commit after `life` of them."""
    left = itertools.count(life, -1)

    def live_on(*_: object) -> None:
        if next(left) <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(engine, name, live_on)
