"""Against the real runtime: few tasks, real SIGKILLs, the sandbox's bill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.domain.models import CallState
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS
from lab.crash_cost.__main__ import MAILBOX_WORKER, scene
from lab.crash_cost.jobs import Job, mailboxes, tickets
from lab.crash_cost.judging import Clean, Seen, extra, otherwise
from lab.crash_cost.run import Scene
from lab.crash_cost.trace import Arm, Point, Request, expected_repeats, trace

pytestmark = pytest.mark.runtime

BOOKS = ("refunds", "notifications", "cases")


def nothing(_line: str) -> None:
    """Says nothing."""


def amounts(seen: Seen) -> Counter[tuple[str, int, int, int]]:
    """The bill without times and numbers."""
    return Counter(
        (row["request_digest"], row["input_tokens"], row["cached_tokens"], row["output_tokens"]) for row in seen.rows
    )


def worked(scene: Scene, jobs: Sequence[Job], points: Sequence[Point], clean: Clean) -> dict[Arm, Seen]:
    """Both arms, each held against its theory."""
    found = {arm: scene.under(arm, jobs, points, clean, "killed") for arm in Arm}
    for arm, seen in found.items():
        assert extra(seen, clean) == expected_repeats(arm, points, clean.timelines)
    assert not [book for book in BOOKS if otherwise(found[Arm.RESUME], clean, book)]
    return found


def test_resumed_tickets_repeat_what_was_in_flight_and_the_same_seed_gives_the_same_bill(tmp_path: Path) -> None:
    jobs = tickets(7, 6)
    with scene(tmp_path, None, nothing) as stage:
        clean = stage.clean(jobs, "clean")
        points = trace("7 tickets", 0.5, clean.timelines)
        found = worked(stage, jobs, points, clean)
        again = stage.under(Arm.RESUME, jobs, points, clean, "again")
    assert 0 < extra(found[Arm.RESUME], clean).total() < extra(found[Arm.RESTART], clean).total()
    assert amounts(again) == amounts(found[Arm.RESUME])


def test_a_resumed_mailbox_repeats_one_letter_and_none_when_all_are_sorted(tmp_path: Path) -> None:
    jobs = mailboxes(7, 3, 8)
    with scene(tmp_path, MAILBOX_WORKER, nothing) as stage:
        clean = stage.clean(jobs, "clean")
        first, second, third = (job.name for job in jobs)
        tally = clean.timelines[third].index(Request("notifications", 1))
        points = (Point(first, 0.5, 4, True), Point(second, 0.6, 5, False), Point(third, 1.0, tally, False))
        found = worked(stage, jobs, points, clean)
        interrupted = lost_calls(tmp_path)
    assert {arm: extra(seen, clean).total() for arm, seen in found.items()} == {Arm.RESTART: 4 + 6 + 8, Arm.RESUME: 1}
    assert interrupted == 2, "each call in flight has its name in the journal, the one that never arrived as well"


def lost_calls(folder: Path) -> int:
    """The calls that the journal calls interrupted."""
    engine = database.connect(f"sqlite:///{folder / '.state' / 'ledger.sqlite'}")
    try:
        with engine.connect() as connection:
            return len(
                connection.execute(MODEL_CALLS.select().where(MODEL_CALLS.c.state == CallState.INTERRUPTED)).all()
            )
    finally:
        engine.dispose()
