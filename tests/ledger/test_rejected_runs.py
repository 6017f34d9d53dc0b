"""Which rejected runs are restarted, how often, and how their paid model calls are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.domain.errors import HistoryTampered, Unreachable
from app.domain.models import CallState
from app.ledger.store.tables import MODEL_CALLS
from app.ledger.store.writer import Writer
from app.tasks.rejected_runs import MAX_RESTARTS, PAUSES, SEEN_AFTER, RejectedRuns
from app.worker.execution_log import Heartbeat
from tests.ledger.kit import Ledger
from tests.makers import Clock
from tests.records import call_record

HONEST = "activity completion references unknown task scheduled id 4"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def given_up(task_id: str = "acme:T-1", run: int = 1, words: str = HONEST) -> HistoryTampered:
    """The false tampering verdict on a task's run of that number."""
    return HistoryTampered(task_id, words, NOON - timedelta(hours=1) + run * SECOND)


def rejected(writer: Writer, restart: Callable[[str], None], clock: Clock | None = None) -> RejectedRuns:
    return RejectedRuns(writer, restart, clock or Clock(NOON))


@pytest.fixture
def writer(ledger: Ledger) -> Iterator[Writer]:
    """The ledger's writer."""
    writer = Writer(ledger.engine)
    yield writer
    writer.close()


def states(ledger: Ledger) -> dict[str, str]:
    with ledger.engine.connect() as connection:
        return {
            row.call_id: row.state for row in connection.execute(select(MODEL_CALLS).order_by(MODEL_CALLS.c.call_id))
        }


def test_what_it_had_paid_is_marked_before_it_is_begun_again(ledger: Ledger, writer: Writer) -> None:
    calls = [
        call_record("e-1"),
        call_record("e-2", state=CallState.STARTED, ended_at=None),
        call_record("e-3", state=CallState.FAILED, error="cut: no"),
        call_record("e-4", task_id="acme:T-2"),
    ]
    ledger.journal(calls)
    seen: list[dict[str, str]] = []
    assert rejected(writer, lambda _: seen.append(states(ledger))).begin_again(given_up())
    assert list(seen[0].values()) == ["interrupted", "interrupted", "failed", "settled"]


@pytest.mark.parametrize(
    "words",
    [
        "child completion references unknown task scheduled id 4",
        "activity attestation verification failed for task 4: "
        "ioDigest mismatch: claimed input/output does not match committed digest",
        'activity attestation verification failed for task 4: activity name mismatch: attestation claims "classify", '
        'verifier expected "draft_refund"',
    ],
)
def test_a_late_answer_of_the_run_before_condemns_nobody(writer: Writer, words: str) -> None:
    begun: list[str] = []
    mend = rejected(writer, begun.append)
    assert mend.begin_again(given_up(words=words))
    assert mend.is_restarted("acme:T-1", words, NOON)
    assert begun == ["acme:T-1"]


@pytest.mark.parametrize(
    "words",
    [
        "workflow history signature verification failed",
        f"{HONEST}, or so",
        "activity attestation verification failed for task 4: digest mismatch",
        "activity attestation verification failed for task 4: attestation signature verification failed: bad",
        "activity attestation terminalStatus COMPLETED does not match enclosing event (FAILED)",
        "workflow actor 'acme:T-1': inbox contained 1 events that did not match signed history (state store tampering)",
    ],
)
def test_any_other_word_is_for_people_to_look_into(ledger: Ledger, writer: Writer, words: str) -> None:
    ledger.journal([call_record("e-1")])
    begun: list[str] = []
    assert not rejected(writer, begun.append).begin_again(given_up(words=words))
    assert not rejected(writer, begun.append).begin_again(HistoryTampered("acme:T-1", HONEST)), "Dapr did not end it"
    assert (begun, list(states(ledger).values())) == ([], ["settled"])


def lived(writer: Writer, daprd: str, start: float, end: float) -> None:
    """A worker that ran from `start` to `end` hours before noon, with this version of daprd."""
    times = iter([NOON - timedelta(hours=start), NOON - timedelta(hours=end)])
    life = Heartbeat(writer, lambda: next(times), "node 127.0.0.1:1", daprd)
    life.begin()
    life.end()


@pytest.mark.parametrize(
    ("workers", "mistaken"),
    [
        ([("1.18.4", 2, 0)], False),
        ([("1.18.6", 2, 0), ("1.18.12", 2, 0)], False),
        ([("1.18.3", 2, 0)], True),
        ([("1.18.4", 2, 0), ("1.18.2", 2, 0.95)], True),
        ([("1.18.4", 0.5, 0), ("1.18.2", 2, 0.9)], True),
        ([("1.18.4", 2, 0), ("1.18.2", 9, 3)], False),
        ([("", 2, 0)], True),
        ([("edge", 2, 0)], True),
        ([("1.18.4", 0.5, 0)], True),
    ],
    ids=str,
)
def test_what_no_daprd_with_the_defect_can_have_said_is_for_people_to_look_into(
    writer: Writer, workers: list[tuple[str, float, float]], *, mistaken: bool
) -> None:
    """The run was rejected an hour before noon: the daprd of workers running then counts, not that of later ones."""
    for daprd, start, end in workers:
        lived(writer, daprd, start, end)
    begun: list[str] = []
    mend = rejected(writer, begun.append)
    error = given_up()
    assert error.given_up_at is not None
    assert mend.is_restarted("acme:T-1", HONEST, error.given_up_at) == mistaken
    assert mend.begin_again(error) == mistaken
    assert begun == (["acme:T-1"] if mistaken else [])


def test_each_beginning_waits_longer_and_there_are_not_any_number_of_them(writer: Writer) -> None:
    begun, clock = list[str](), Clock(NOON)
    mend = rejected(writer, begun.append, clock)
    assert mend.begin_again(given_up(run=1))
    for run, pause in enumerate(PAUSES, start=2):
        clock.now += pause - SECOND
        assert mend.begin_again(given_up(run=run)), "it will be"
        assert len(begun) == run - 1
        clock.now += SECOND
        assert mend.begin_again(given_up(run=run))
        assert len(begun) == run
        assert mend.is_restarted("acme:T-1", HONEST, NOON)
    clock.now += timedelta(days=1)
    assert not mend.begin_again(given_up(run=MAX_RESTARTS + 1))
    assert not mend.is_restarted("acme:T-1", HONEST, NOON)
    assert mend.is_restarted("acme:T-2", HONEST, NOON)
    assert not mend.is_restarted("acme:T-2", "the model failed", NOON)
    assert mend.begin_again(given_up("acme:T-2"))
    assert begun == ["acme:T-1"] * MAX_RESTARTS + ["acme:T-2"]


def test_of_all_workers_one_begins_a_run_again_and_all_count_together(ledger: Ledger, writer: Writer) -> None:
    """Each worker has its own writer; none must restart a task that another one has restarted already."""
    begun: list[str] = []
    others = [Writer(ledger.engine) for _ in range(3)]
    workers = [rejected(each, begun.append) for each in (writer, *others)]
    with ThreadPoolExecutor(len(workers)) as pool:
        assert all(pool.map(lambda worker: worker.begin_again(given_up()), workers * 5))
    assert begun == ["acme:T-1"]
    assert all(worker.begin_again(given_up(run=2)) for worker in workers)
    assert begun == ["acme:T-1"], "the pause is everybody's"
    for each in others:
        each.close()


def test_who_died_before_it_could_begin_is_followed_by_another(writer: Writer) -> None:
    class Died(BaseException):
        pass

    def dies(_task_id: str) -> None:
        raise Died

    begun, clock = list[str](), Clock(NOON)
    with pytest.raises(Died):
        rejected(writer, dies, clock).begin_again(given_up())
    another = rejected(writer, begun.append, clock)
    assert another.begin_again(given_up())
    assert begun == []
    clock.now += SEEN_AFTER
    assert another.begin_again(given_up())
    assert another.begin_again(given_up())
    assert begun == ["acme:T-1"]


def test_one_that_cannot_be_begun_now_is_left_for_the_next_look(writer: Writer) -> None:
    away, begun = [True] * 4, list[str]()

    def restart(task_id: str) -> None:
        if away and away.pop():
            raise Unreachable(f"task {task_id}: the sidecar is away")
        begun.append(task_id)

    mend = rejected(writer, restart)
    assert all(mend.begin_again(given_up()) for _ in range(8))
    assert begun == ["acme:T-1"], "only what was begun counts"
