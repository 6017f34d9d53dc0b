"""The projector records each task that rests or ends, reported or not; a failure of one task affects no other."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, select

from app.dapr.history.model import Step, WorkflowRun
from app.dapr.history.parse import parse
from app.domain.decision_texts import BROKEN
from app.domain.errors import HistoryTampered, TaskNotFound, Unreachable
from app.domain.models import CallState, Category, Progress, TaskStatus
from app.domain.standing import Standing
from app.ledger.recording import projector as projecting
from app.ledger.recording.projector import Observer, Projector
from app.ledger.recording.sources import Sources
from app.ledger.store.standings import ListedTask, Standings
from app.ledger.store.tables import PRICE_BOOKS
from app.ledger.store.task_record import TaskRecord
from app.ledger.store.writer import Writer
from app.pricing.formula import effective_charges
from tests.dapr.history.told import Told
from tests.ledger.kit import NAMING, Ledger, by_id, projected
from tests.ledger.stories import Snapshot, story
from tests.ledger.test_projection import call, one_step
from tests.live import until
from tests.records import price_book

NOW = datetime(2026, 12, 24, tzinfo=UTC)


class Histories:
    """Dapr's histories: runs, or the errors of reading them. Counts the reads."""

    def __init__(self) -> None:
        self.runs: dict[str, WorkflowRun | Exception] = {}
        self.reads: Counter[str] = Counter()
        self.before_read: Callable[[], None] = lambda: None

    def __call__(self, task_id: str) -> WorkflowRun:
        self.reads[task_id] += 1
        self.before_read()
        found = self.runs.get(task_id, TaskNotFound(f"task {task_id} is not known here"))
        if isinstance(found, Exception):
            raise found
        return found

    def tell(self, task_id: str, told: Told) -> WorkflowRun:
        """Sets what Dapr answers for a task from now on."""
        run = parse(task_id, told.events)
        self.runs[task_id] = run
        return run


class Office:
    """A projector with its surroundings; `seen` has what its observer was called with."""

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self.ledger = Ledger(engine)
        self.histories = Histories()
        self.seen: list[str] = []
        self.woken: list[str] = []
        self.sources = Sources(engine, self.histories, price_book(), NAMING, lambda: NOW)
        self.writer = writer
        self._open: list[Projector] = []

    def projector(self, *observers: Observer, start: bool = False) -> Projector:
        """Makes a projector that is stopped after the test."""
        made = Projector(self.sources, self.writer, (*observers, self.observe), wake=self.wake, begin=self.wake)
        if start:
            made.start()
            self._open.append(made)
        return made

    def wake(self, task_id: str) -> None:
        """Notes the request; Dapr has no task whose id says that it is gone."""
        self.woken.append(task_id)
        if task_id.endswith("gone"):
            raise Unreachable("no such instance")

    def observe(self, record: TaskRecord) -> None:
        """Notes a record, which must be in the ledger by now."""
        assert self.ledger.records.record(record.task_id).ended_at == record.ended_at
        self.seen.append(record.task_id)

    def stop(self) -> None:
        """Stops all projectors."""
        for projector in self._open:
            projector.stop()

    def known(self, task_id: str) -> bool:
        """Whether a task has a record."""
        try:
            self.ledger.records.record(task_id)
        except TaskNotFound:
            return False
        return True

    def wait(self, *task_ids: str) -> None:
        """Waits until the records of these tasks are final."""
        until(lambda: self.ledger.recorded() >= set(task_ids), f"{task_ids} to be recorded")


@pytest.fixture
def office(sqlite_engine: Engine) -> Iterator[Office]:
    """A projector's surroundings with an empty ledger."""
    writer = Writer(sqlite_engine)
    made = Office(sqlite_engine, writer)
    yield made
    made.stop()
    writer.close()


def ended() -> Told:
    """A run of one step."""
    return one_step().ended(5)


def waiting() -> Told:
    """A run that waits for a person's decision."""
    return one_step().waits(3, 2, "decision")


# Reported tasks


def test_a_task_that_has_ended_is_recorded_with_its_calls(office: Office) -> None:
    office.ledger.tickets("acme:T-1", started=False)
    told = story(5)
    office.ledger.journal(told.end.calls)
    office.histories.runs["acme:T-1"] = told.end.run
    office.projector(start=True).hint("acme:T-1", ended=True)
    office.wait("acme:T-1")
    wanted = projected(replace(told.end, moment=NOW))
    found = office.ledger.records.record("acme:T-1")
    assert by_id(found.charges) == by_id(wanted.charges)
    assert replace(found, charges=()) == replace(wanted, charges=())
    until(lambda: office.seen == ["acme:T-1"], "the observer to be told")


def test_a_task_that_waits_is_recorded_as_it_is_and_needs_no_other_look(office: Office) -> None:
    office.histories.tell("acme:T-1", waiting())
    projector = office.projector()
    projector.hint("acme:T-1", ended=False)
    assert projector.waiting == 1
    projector.record(["acme:T-1"])
    assert office.ledger.records.record("acme:T-1").status == "waiting"
    assert office.seen == []
    assert office.histories.reads == {"acme:T-1": 1}


def test_a_task_that_is_not_over_although_it_was_said_to_be_is_looked_at_again(office: Office) -> None:
    """daprd saves the last turn a moment after the worker has delivered it."""
    office.ledger.tickets("acme:T-1", started=False)
    office.histories.tell("acme:T-1", waiting())
    office.projector(start=True).hint("acme:T-1", ended=True)
    until(lambda: office.known("acme:T-1"), "the first look")
    office.histories.tell("acme:T-1", ended())
    office.wait("acme:T-1")
    assert office.histories.reads["acme:T-1"] >= 2


def test_a_task_with_a_call_under_way_is_looked_at_until_that_is_over(office: Office) -> None:
    office.ledger.tickets("acme:T-1", started=False)
    office.ledger.journal([call(state=CallState.STARTED, ended_at=None, model="")])
    office.histories.tell("acme:T-1", ended())
    projector = office.projector(start=True)
    projector.hint("acme:T-1", ended=True)
    until(lambda: office.seen == ["acme:T-1"], "the end to be seen")
    assert office.ledger.recorded() == set()
    office.ledger.journal([call()])
    office.wait("acme:T-1")
    assert len(effective_charges(office.ledger.records.record("acme:T-1").charges)) == 3 + 2 + 3
    assert office.seen == ["acme:T-1"], "it ended once"


def test_a_task_that_dapr_does_not_show_now_is_looked_at_again(office: Office) -> None:
    office.ledger.tickets("acme:T-1", started=False)
    office.histories.runs["acme:T-1"] = Unreachable("daprd does not answer")
    office.projector(start=True).hint("acme:T-1", ended=True)
    until(lambda: office.histories.reads["acme:T-1"] >= 2, "a second look")
    assert not office.known("acme:T-1")
    office.histories.tell("acme:T-1", ended())
    office.wait("acme:T-1")


def test_a_task_that_has_not_begun_is_looked_at_again(office: Office) -> None:
    office.histories.tell("acme:T-1", Told())
    projector = office.projector()
    projector.record(["acme:T-1"])
    assert projector.waiting == 1
    assert not office.known("acme:T-1")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (
            TaskNotFound("task acme:T-1 is not known here"),
            "task acme:T-1 is not recorded: task acme:T-1 is not known here",
        ),
        (HistoryTampered("acme:T-1", "digest mismatch"), "does not verify: digest mismatch"),
    ],
)
def test_what_can_never_be_recorded_is_said_once_and_dropped(
    office: Office, caplog: pytest.LogCaptureFixture, trouble: Exception, words: str
) -> None:
    office.histories.runs["acme:T-1"] = trouble
    projector = office.projector()
    for _ in range(3):  # as sweeps would
        projector.record(["acme:T-1"])
    assert projector.waiting == 0
    assert projector.tampered == isinstance(trouble, HistoryTampered), "once, however often it is looked at"
    errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors) == 1
    assert words in errors[0]
    assert not office.known("acme:T-1")


# Failures


def test_a_task_that_cannot_be_recorded_does_not_keep_its_neighbours_from_it(office: Office) -> None:
    office.ledger.tickets("acme:T-1", "acme:T-2", "acme:T-3")
    run = office.histories.tell("acme:T-2", ended())
    office.histories.runs["acme:T-2"] = replace(run, steps=(Step("k", "a step without an attempt", ()),))
    office.histories.tell("acme:T-1", ended())
    office.histories.tell("acme:T-3", ended())
    office.projector(start=True)
    office.wait("acme:T-1", "acme:T-3")
    assert not office.known("acme:T-2")
    until(lambda: office.histories.reads["acme:T-2"] >= 4, "it to be tried again")
    office.histories.runs["acme:T-2"] = run
    office.wait("acme:T-2")
    until(lambda: sorted(office.seen) == ["acme:T-1", "acme:T-2", "acme:T-3"], "everybody is told, after the commit")


def test_nor_does_one_that_the_database_refuses(office: Office) -> None:
    office.ledger.tickets("acme:T-1", "acme:T-2", "acme:T-3")
    for number in (1, 2, 3):
        office.histories.tell(f"acme:T-{number}", ended())
    with office.ledger.engine.begin() as connection:
        condition = "BEFORE INSERT ON tasks WHEN new.task_id = 'acme:T-2'"
        connection.exec_driver_sql(f"CREATE TRIGGER no {condition} BEGIN SELECT RAISE(ABORT, 'no'); END")
    office.projector(start=True)
    office.wait("acme:T-1", "acme:T-3")
    assert not office.known("acme:T-2")
    with office.ledger.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER no")
    office.wait("acme:T-2")


def test_an_observer_s_trouble_is_its_own(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    def fails(record: TaskRecord) -> None:
        raise RuntimeError(f"no room for {record.task_id}")

    names = [f"acme:T-{number}" for number in range(3)]
    for name in names:
        office.histories.tell(name, ended())
    office.projector(fails).record(names)
    assert sorted(office.seen) == names
    assert sum("recorded, but an observer failed" in each.getMessage() for each in caplog.records) == 3


def test_every_end_is_observed_once(office: Office) -> None:
    names = [f"acme:T-{number}" for number in range(5)]
    for name in names:
        office.histories.tell(name, waiting())
    projector = office.projector()
    projector.record(names)
    assert office.seen == []
    for name in names[1:]:
        office.histories.tell(name, ended())
    projector.record(names)
    projector.record(names)
    assert sorted(office.seen) == names[1:]


def test_what_had_ended_in_the_ledger_before_is_not_observed(office: Office) -> None:
    run = office.histories.tell("acme:T-1", ended())
    office.ledger.save(projected(Snapshot(run, (), NOW)))
    office.projector().record(["acme:T-1"])
    assert office.seen == []


# Tasks that were not reported


def test_at_the_start_all_are_recorded_that_were_left(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "app.ledger.recording.projector._SWEEP_SECONDS", 3600.0
    )  # otherwise the waiting task is read again
    names = [f"acme:T-{number}" for number in range(130)]
    office.ledger.tickets(*names)
    office.ledger.tickets("acme:not-started", started=False)
    for name in names[:-1]:
        office.histories.tell(name, ended())
    office.histories.tell(names[-1], waiting())
    projector = office.projector(start=True)
    office.wait(*names[:-1])
    until(lambda: office.known(names[-1]), "the one that waits")
    office.histories.tell("acme:new", ended())
    projector.hint("acme:new", ended=True)
    until(lambda: office.known("acme:new"), "news, when the list is done")
    assert office.ledger.recorded() == set(names[:-1])
    once = dict.fromkeys((*names, "acme:new"), 1)
    assert office.histories.reads == once, "and the one that was not started never"
    assert projector.waiting == 0


def test_news_do_not_wait_for_all_that_was_left(office: Office) -> None:
    names = [f"acme:T-{number}" for number in range(400)]
    office.ledger.tickets(*names, "acme:new")
    for name in (*names, "acme:new"):
        office.histories.tell(name, ended())
    projector = office.projector()
    hinted = threading.Event()

    def hint() -> None:
        if not hinted.is_set():
            hinted.set()
            projector.hint("acme:new", ended=True)
        threading.Event().wait(0.005)  # a sweep of the whole list takes longer than a reported task

    office.histories.before_read = hint
    projector.start()
    until(lambda: office.histories.reads["acme:new"], "the news to be read")
    assert list(office.histories.reads).index("acme:new") < 400
    projector.stop()


def test_the_book_is_kept_that_charges_are_made_by(office: Office) -> None:
    for _ in range(2):
        office.projector(start=True)
    with office.ledger.engine.connect() as connection:
        rows = connection.execute(select(PRICE_BOOKS)).all()
    assert [tuple(row) for row in rows] == [(price_book().digest, price_book().content, NOW)]


# Stopping


def test_what_has_just_ended_is_recorded_before_the_projector_stops(office: Office) -> None:
    names = [f"acme:T-{number}" for number in range(40)]
    for name in names:
        office.histories.tell(name, ended())
    projector = office.projector()
    projector.start()
    for name in names:
        projector.hint(name, ended=True)
    projector.stop()
    assert sorted(office.seen) == sorted(names)
    assert projector.waiting == 0


def test_a_projector_stops_although_nobody_answers(office: Office) -> None:
    office.histories.runs["acme:T-1"] = Unreachable("daprd does not answer")
    projector = office.projector()
    projector.hint("acme:T-1", ended=True)
    projector.start()
    stopped = threading.Thread(target=projector.stop, daemon=True)
    stopped.start()
    stopped.join(60)
    assert not stopped.is_alive()


def test_a_projector_stops_although_much_was_left(office: Office) -> None:
    names = [f"acme:T-{number}" for number in range(1500)]
    office.ledger.tickets(*names)
    for name in names:
        office.histories.runs[name] = TaskNotFound("gone")
    projector = office.projector()
    stopper = threading.Thread(target=projector.stop, daemon=True)

    def stop() -> None:
        if stopper.ident is None:
            stopper.start()
        until(lambda: projector._due_queue.closed, "the end to have begun")

    office.histories.before_read = stop
    projector.start()
    until(lambda: stopper.ident is not None, "the first read")
    stopper.join(60)
    assert not stopper.is_alive()
    assert sum(office.histories.reads.values()) < 1000, "the rest is found at the next start"


def test_at_the_end_a_sidecar_that_is_gone_is_asked_once(office: Office) -> None:
    names = [f"acme:T-{number}" for number in range(40)]
    office.ledger.tickets(*names)
    for name in names:
        office.histories.runs[name] = Unreachable("it has gone first")
    projector = office.projector()
    for name in names:
        projector.hint(name, ended=True)
    stopper = threading.Thread(target=projector.stop, daemon=True)

    def stop() -> None:
        if stopper.ident is None:
            stopper.start()
        until(lambda: projector._due_queue.closed, "the end to have begun")

    office.histories.before_read = stop
    projector.start()
    until(lambda: stopper.ident is not None, "the first read")
    stopper.join(60)
    assert not stopper.is_alive()
    assert sum(office.histories.reads.values()) == 1, "each would be waited for"


# Standings


def standing_of(office: Office, task_id: str = "acme:T-1") -> ListedTask:
    return Standings(office.ledger.engine, office.writer, lambda: NOW).get(task_id)


def test_what_a_dead_worker_could_not_tell_is_found(office: Office) -> None:
    said = Progress(status=TaskStatus.WAITING, reason="above_limit", category=Category.DAMAGED)
    office.ledger.tickets("acme:T-1", "acme:T-2")
    office.histories.tell("acme:T-1", waiting())
    office.histories.tell("acme:T-2", ended())
    office.sources = replace(office.sources, custom_status=lambda _: said.model_dump_json())
    office.projector().record(["acme:T-1", "acme:T-2"])
    waits, done = standing_of(office), standing_of(office, "acme:T-2")
    assert (waits.standing.status, waits.standing.waiting_for, waits.final) == ("waiting", "above_limit", False)
    assert (done.standing.status, done.final) == ("completed", True)


def test_tasks_that_a_worker_could_not_run_are_tried_again_by_the_next_one_and_then_now_and_then(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.ledger.tickets("acme:gone", "acme:T-1", "acme:T-2", "acme:T-3", "acme:T-4")
    standings = Standings(office.ledger.engine, office.writer, lambda: NOW)
    for task_id, status, reason in (
        ("acme:gone", TaskStatus.PARKED, f"{BROKEN} raised KeyError"),
        ("acme:T-1", TaskStatus.PARKED, f"{BROKEN} raised KeyError"),
        ("acme:T-2", TaskStatus.PARKED, "notify_customer: no answer"),
        ("acme:T-3", TaskStatus.WAITING, "above_limit"),
        ("acme:T-4", TaskStatus.PARKED, f"{BROKEN} does not fit"),
    ):
        standings.report(task_id, Standing(status=status, at=NOW, waiting_for=reason)).result()
    monkeypatch.setattr(projecting, "_FIRST_TRY_SECONDS", 0.05)
    monkeypatch.setattr(projecting, "_SWEEP_SECONDS", 0.01)
    office.projector(start=True)
    until(lambda: len(office.woken) >= 9, "the broken ones to be tried thrice")
    assert office.woken[:9] == ["acme:gone", "acme:T-1", "acme:T-4"] * 3


def test_what_the_worker_told_of_the_same_turn_stands(office: Office) -> None:
    office.ledger.tickets("acme:T-1")
    run = office.histories.tell("acme:T-1", waiting())
    told = Standing(status=TaskStatus.WAITING, at=run.replays[-1].started_at, waiting_for="above_limit")
    Standings(office.ledger.engine, office.writer, lambda: NOW).report("acme:T-1", told).result()
    office.sources = replace(office.sources, custom_status=lambda _: pytest.fail("Dapr is not asked"))
    office.projector().record(["acme:T-1"])
    assert standing_of(office).standing == told


def test_a_task_that_dapr_does_not_know_is_said_to_be_so_until_it_does(office: Office) -> None:
    office.ledger.tickets("acme:T-1")
    projector = office.projector()
    projector.record(["acme:T-1"])
    assert standing_of(office).caveat.startswith("not known to the workflow engine")
    office.histories.tell("acme:T-1", waiting())
    projector.record(["acme:T-1"])
    assert standing_of(office).caveat == ""
    office.histories.runs.clear()
    projector.record(["acme:T-1"])
    assert standing_of(office).caveat.startswith("not known to the workflow engine"), "again"


def test_a_run_that_dapr_gave_up_has_failed_and_one_that_cannot_be_read_is_as_it_was(office: Office) -> None:
    office.ledger.tickets("acme:T-1", "acme:T-2")
    for task_id, given_up_at in (("acme:T-1", NOW), ("acme:T-2", None)):
        office.histories.runs[task_id] = HistoryTampered(task_id, "digest mismatch", given_up_at)
    office.projector().record(["acme:T-1", "acme:T-2"])
    for task_id, status in (("acme:T-1", "failed"), ("acme:T-2", "running")):
        found = standing_of(office, task_id)
        assert found.standing.status == status
        assert "its history does not verify: digest mismatch" in found.caveat


def test_an_older_state_store_does_not_take_a_completed_task_back(office: Office) -> None:
    """A restored state store still has the task as waiting, possibly for longer than before."""
    office.ledger.tickets("acme:T-1")
    office.histories.tell("acme:T-1", ended())
    projector = office.projector()
    projector.record(["acme:T-1"])
    before = office.ledger.content()
    office.histories.tell("acme:T-1", waiting())
    projector.record(["acme:T-1"])
    longer = one_step()
    for number in range(2, 30):
        longer.scheduled(100 + number, number, "lookup_order").completed(100.5 + number, number, "{}")
    office.histories.tell("acme:T-1", longer.waits(200, 40, "decision"))
    projector.record(["acme:T-1"])
    assert office.ledger.content() == before
