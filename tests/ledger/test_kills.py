"""A projector may be killed at any moment: the next one ends with the same figures as an undisturbed run."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import pytest

from app.finance.rollup import Dimension
from app.ledger.recording.projector import Projector
from app.ledger.recording.sources import Sources
from app.ledger.store import database
from app.ledger.store.writer import Writer
from app.pricing.formula import effective_charges
from tests.ledger import apart, recorder
from tests.ledger.conftest import Databases
from tests.ledger.kit import NAMING, Ledger, by_id, projected, two_currencies
from tests.live import until

KILLS = 15
# Statements per process: enough for a few batches, so that a dozen processes do not record all tasks.
MAX_STATEMENTS = 60


@pytest.fixture
def url(databases: Databases, kind: str) -> str:
    """An empty ledger that another process can open."""
    return databases.migrated(kind)


@pytest.fixture
def prepared(url: str) -> Iterator[Ledger]:
    """The ledger with tickets and model calls."""
    engine = database.connect(url)
    ledger = Ledger(engine)
    recorder.prepare(ledger)
    yield ledger
    engine.dispose()


def test_a_recorder_may_be_killed_at_any_moment(prepared: Ledger, url: str) -> None:
    dice = random.Random(20_261_122)
    for number in range(KILLS):
        life = dice.randint(0, MAX_STATEMENTS)
        process = apart.start(recorder.run, url, number >= KILLS // 3, life)
        assert apart.exit_code(process) == -signal.SIGKILL
        prepared.check()
    assert 0 < len(prepared.recorded()) < len(recorder.TASKS), "some are done, some are left"
    finish(prepared)
    quiet = [projected(recorder.told(task_id).end, two_currencies()) for task_id in recorder.TASKS]
    assert by_id(effective_charges(prepared.records.charges())) == by_id(
        charge for each in quiet for charge in each.charges
    )
    assert {group.key for group in prepared.records.report([Dimension.TASK]).groups} == {
        (each.task_id,) for each in quiet
    }
    prepared.check()


def finish(ledger: Ledger) -> None:
    """Records the remaining tasks without a kill."""
    writer = Writer(ledger.engine)
    sources = Sources(ledger.engine, recorder.histories(True), two_currencies(), NAMING, lambda: recorder.LATER)
    projector = Projector(sources, writer)
    projector.start()
    until(lambda: len(ledger.recorded()) == len(recorder.TASKS), "all tasks to be recorded")
    projector.stop()
    writer.close()
