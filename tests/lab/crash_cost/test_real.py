"""The experiment on the real runtime: few tasks, real SIGKILLs, the sandbox's bill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.domain.models import CallState
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS
from lab.crash_cost.__main__ import MAILBOX_WORKER, open_scene
from lab.crash_cost.jobs import Job, mailboxes, tickets
from lab.crash_cost.judging import CleanRun, KilledRun, count_book_differences, repeated_requests
from lab.crash_cost.run import Scene
from lab.crash_cost.trace import Arm, Point, Request, expected_repeats, trace

pytestmark = pytest.mark.runtime

BOOKS = ("refunds", "notifications", "cases")


def ignore(_line: str) -> None:
    """Discards a progress message."""


def amounts(run: KilledRun) -> Counter[tuple[str, int, int, int]]:
    """The bill without times and row numbers."""
    return Counter(
        (row["request_digest"], row["input_tokens"], row["cached_tokens"], row["output_tokens"]) for row in run.rows
    )


def run_both_arms(scene: Scene, jobs: Sequence[Job], points: Sequence[Point], clean: CleanRun) -> dict[Arm, KilledRun]:
    """Runs both arms with these kills, and compares each with the prediction of the trace."""
    runs = {arm: scene.run_with_kills(arm, jobs, points, clean, "killed") for arm in Arm}
    for arm, run in runs.items():
        assert repeated_requests(run, clean) == expected_repeats(arm, points, clean.timelines)
    assert not [book for book in BOOKS if count_book_differences(runs[Arm.RESUME], clean, book)]
    return runs


def test_resumed_tickets_repeat_what_was_in_flight_and_the_same_seed_gives_the_same_bill(tmp_path: Path) -> None:
    jobs = tickets(7, 6)
    with open_scene(tmp_path, None, ignore) as scene:
        clean = scene.run_clean(jobs, "clean")
        points = trace("7 tickets", 0.5, clean.timelines)
        runs = run_both_arms(scene, jobs, points, clean)
        again = scene.run_with_kills(Arm.RESUME, jobs, points, clean, "again")
    resumed, restarted = (repeated_requests(runs[arm], clean).total() for arm in (Arm.RESUME, Arm.RESTART))
    assert 0 < resumed < restarted
    assert amounts(again) == amounts(runs[Arm.RESUME])


def test_a_resumed_mailbox_repeats_one_letter_and_none_when_all_are_sorted(tmp_path: Path) -> None:
    jobs = mailboxes(7, 3, 8)
    with open_scene(tmp_path, MAILBOX_WORKER, ignore) as scene:
        clean = scene.run_clean(jobs, "clean")
        first, second, third = (job.name for job in jobs)
        tally = clean.timelines[third].index(Request("notifications", 1))
        points = (Point(first, 0.5, 4, True), Point(second, 0.6, 5, False), Point(third, 1.0, tally, False))
        runs = run_both_arms(scene, jobs, points, clean)
        interrupted = lost_calls(tmp_path)
    repeats = {arm: repeated_requests(run, clean).total() for arm, run in runs.items()}
    assert repeats == {Arm.RESTART: 4 + 6 + 8, Arm.RESUME: 1}
    assert interrupted == 2, "the journal marks each call in flight, also the one that never arrived"


def lost_calls(folder: Path) -> int:
    """The number of interrupted calls in the journal."""
    engine = database.connect(f"sqlite:///{folder / '.state' / 'ledger.sqlite'}")
    try:
        with engine.connect() as connection:
            return len(
                connection.execute(MODEL_CALLS.select().where(MODEL_CALLS.c.state == CallState.INTERRUPTED)).all()
            )
    finally:
        engine.dispose()
