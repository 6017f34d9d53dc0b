"""Waits and the events that answered them: in histories made by hand, and compared with the SDK's own replay."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

import pytest
from dapr.ext.workflow._durabletask.task import when_any
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dapr.history.model import Payload, RunStatus, WaitOutcome, WorkflowRun
from app.dapr.history.parse import parse
from tests.dapr.history.engine import INSTANCE, Engine
from tests.dapr.history.told import NEVER, Told, at


def run(history: Told) -> WorkflowRun:
    """Parses a history."""
    return parse("i", history.events)


def history() -> Told:
    """A history whose first turn is at 1 s."""
    return Told().turn(1).started(0)


def test_a_wait_that_is_answered() -> None:
    parsed = run(history().waits(1, 1, "Decision").turn(9).raised(8, "decision", '{"verdict": "approve"}'))
    (wait,) = parsed.waits
    assert (wait.name, wait.started_at, wait.ended_at, wait.due_at) == ("Decision", at(1), at(8), None)
    assert (wait.outcome, wait.answer) == (WaitOutcome.ANSWERED, Payload('{"verdict": "approve"}'))
    assert [(event.name, event.wait) for event in parsed.raised] == [("decision", 1)]


def test_a_wait_whose_time_is_up() -> None:
    parsed = run(history().waits(1, 1, "decision", due=5).turn(6).fired(5.5, 1).turn(9).raised(8, "decision"))
    (wait,) = parsed.waits
    assert (wait.due_at, wait.ended_at, wait.outcome) == (at(5), at(5.5), WaitOutcome.TIMED_OUT)
    assert [event.wait for event in parsed.raised] == [None]


def test_an_open_wait() -> None:
    (wait,) = run(history().waits(1, 1, "decision").turn(3).raised(2, "other")).waits
    assert (wait.ended_at, wait.outcome) == (None, WaitOutcome.OPEN)


def test_an_event_that_was_there_first_leaves_no_wait() -> None:
    parsed = run(history().scheduled(1, 1).turn(3).raised(2, "decision").turn(5).completed(4, 1).ended(5))
    assert parsed.waits == ()
    assert [(event.name, event.at, event.wait) for event in parsed.raised] == [("decision", at(2), None)]


def test_several_waits_of_one_name_are_answered_oldest_first() -> None:
    events = history().waits(1, 1, "go").waits(1, 2, "GO").waits(1, 3, "go", due=4)
    events.turn(5).fired(4, 3).turn(6).raised(5.5, "Go", "1").turn(7).raised(6.5, "gO", "2").turn(8).raised(
        7.5, "go", "3"
    )
    parsed = run(events)
    assert [(wait.event_id, wait.outcome, wait.answer) for wait in parsed.waits] == [
        (1, "answered", Payload("1")),
        (2, "answered", Payload("2")),
        (3, "timed_out", None),
    ]
    assert [event.wait for event in parsed.raised] == [1, 2, None]


def test_an_event_that_came_before_the_code_had_waited_is_answered_without_waiting() -> None:
    (wait,) = run(Told().turn(1).started(0).raised(0.5, "go", "1").waits(1.5, 1, "go").ended(2)).waits
    assert (wait.outcome, wait.started_at, wait.ended_at) == (WaitOutcome.ANSWERED, at(1.5), at(1.5))


def test_an_event_before_the_code_advanced_was_kept_and_answers_no_later_wait() -> None:
    events = history().scheduled(1, 1).turn(5).raised(3, "go", "1").completed(4, 1).waits(5, 2, "go")
    parsed = run(events)
    assert parsed.waits[0].outcome is WaitOutcome.OPEN
    assert parsed.raised[0].wait is None


def test_an_event_during_a_suspension_answers_when_it_comes() -> None:
    events = history().waits(1, 1, "go").turn(3).suspended(2).turn(5).raised(4, "go").turn(9).resumed(8).ended(9)
    (wait,) = run(events).waits
    assert (wait.outcome, wait.ended_at) == (WaitOutcome.ANSWERED, at(4))


def test_what_comes_during_a_suspension_is_shown_to_the_code_in_order_at_its_end() -> None:
    events = history().scheduled(1, 1).turn(3).suspended(2).turn(4).completed(3.5, 1).turn(5).raised(4.5, "go", "1")
    (wait,) = run(events.turn(9).resumed(8).waits(9, 2, "go").ended(9.5)).waits
    assert (wait.outcome, wait.answer) == (WaitOutcome.ANSWERED, Payload("1"))


def test_an_event_between_two_advances_answers_only_if_the_code_scheduled_more() -> None:
    """If nothing follows the wait, the event was kept and found later; if something does, it answered."""

    def interleaved() -> Told:
        events = history().scheduled(1, 1, key="k1").scheduled(1, 2, key="k2").turn(9)
        return events.completed(6, 1).raised(7, "go").completed(8, 2).waits(9, 3, "go")

    assert run(interleaved()).waits[0].outcome is WaitOutcome.OPEN
    assert run(interleaved().scheduled(9, 4, key="k4")).waits[0].outcome is WaitOutcome.ANSWERED


def test_a_rerun_waits_again_for_events_that_the_other_run_got() -> None:
    """Dapr moves all timers to the fork, so the copied answer stands before its wait."""
    events = history().turn(3).raised(2, "go", "1").waits(100, 1, "go").waits(100, 2, "go").scheduled(100, 3)
    events.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "first"
    parsed = run(events.turn(102).completed(101, 3))
    assert [(wait.outcome, wait.started_at, wait.ended_at) for wait in parsed.waits] == [
        ("answered", at(100), at(100)),
        ("open", at(100), None),
    ]


@pytest.mark.parametrize(
    ("origin", "due", "name"), [({"name": "old"}, 5.0, "old"), ({}, None, ""), ({"name": "old"}, None, "old")]
)
def test_waits_of_older_sdks(origin: dict[str, Any], due: float | None, name: str) -> None:
    parsed = run(history().timer(1, 1, due, **origin))
    assert [(wait.name, wait.due_at) for wait in parsed.waits] == [(name, None if due is None else at(due))]
    assert parsed.timers == ()


def test_a_timer_without_origin_is_the_codes_own() -> None:
    parsed = run(history().timer(1, 1, 5))
    assert (len(parsed.timers), parsed.waits) == (1, ())


# --- against the SDK -------------------------------------------------------------------------------------------------

Truth = dict[int, tuple[str, Any]]  # what each wait that left a timer got, by the timer's id
Operation = tuple[str, str, bool]  # kind, event name, with time limit
SEQUENTIAL, ANY = ["act", "timer", "wait", "wait"], ["act", "timer", "wait", "wait", "either"]
MOVES = st.tuples(st.sampled_from(["raise", "raise", "complete", "fire", "turn", "turn"]), st.integers(0, 20))


def workflow_of(program: list[Operation], truth: Truth) -> Callable[[Any, Any], Generator[Any, Any, int]]:
    """Workflow code that runs the operations of `program` in order, and records in `truth` what each wait got."""

    def wait(context: Any, name: str, limited: bool) -> tuple[Any, int | None]:
        before = context._sequence_number
        task = context.wait_for_external_event(name, timeout=timedelta(hours=1) if limited else None)
        timer = context._sequence_number if context._sequence_number > before else None
        if timer is not None:
            truth[timer] = ("open", None)
        return task, timer

    def note(timer: int | None, outcome: str, value: Any) -> None:
        if timer is not None:
            truth[timer] = (outcome, value)

    def workflow(context: Any, _: Any) -> Generator[Any, Any, int]:
        truth.clear()  # it is replayed from the start each time
        for kind, name, limited in program:
            if kind == "act":
                yield context.call_activity("a")
            elif kind == "timer":
                yield context.create_timer(timedelta(hours=1))
            elif kind == "wait":
                task, timer = wait(context, name, limited)
                try:
                    note(timer, "answered", (yield task))
                except TimeoutError:
                    note(timer, "timed_out", None)
            else:
                task, _ = wait(context, name, limited=False)
                yield when_any([task, context.call_activity("a")])
        return 1

    return workflow


def play(engine: Engine, moves: list[tuple[str, int]]) -> None:
    """Makes the moves from outside; impossible ones are skipped."""
    for number, (move, choice) in enumerate(moves):
        if engine.ended:
            return
        running = engine.open("taskScheduled", ["taskCompleted"], "taskScheduledId")
        ticking = [timer for timer in engine.open("timerCreated", ["timerFired"], "timerId") if can_fire(engine, timer)]
        if move == "raise":
            engine.raise_event("XxY"[choice % 3], str(number))
        elif move == "complete" and running:
            engine.complete(running[choice % len(running)])
        elif move == "fire" and ticking:
            engine.fire(ticking[choice % len(ticking)])
        elif move == "turn" and engine.inbox:
            engine.turn()


def can_fire(engine: Engine, timer: int) -> bool:
    """Whether a timer has a time limit."""
    event_of_timer = next(
        event for event in engine.history if event.eventId == timer and event.HasField("timerCreated")
    )
    return bool(event_of_timer.timerCreated.fireAt.seconds < NEVER)


def programs(kinds: list[str]) -> Any:
    """Programs of up to six operations."""
    return st.lists(st.tuples(st.sampled_from(kinds), st.sampled_from("XY"), st.booleans()), min_size=1, max_size=6)


def came_together(history: list[Any]) -> set[str]:
    """The names of events that arrived more than once in one turn. A history does not show which of them a wait got."""
    names, turn = set[str](), set[str]()
    for event in history:
        if event.HasField("workflowStarted"):
            turn.clear()
        elif event.HasField("eventRaised"):
            name = event.eventRaised.name.casefold()
            names |= {name} & turn
            turn.add(name)
    return names


def play_program(program: list[Operation], moves: list[tuple[str, int]]) -> tuple[WorkflowRun, Truth, bool, set[str]]:
    """The parsed run, what the code saw, whether it has ended, and the names of ambiguous events."""
    truth: Truth = {}
    engine = Engine(workflow_of(program, truth))
    play(engine, moves)
    if engine.inbox and not engine.ended:
        engine.turn()
    return parse(INSTANCE, engine.history), truth, engine.ended, came_together(engine.history)


@settings(max_examples=500)
@given(programs(SEQUENTIAL), st.lists(MOVES, max_size=40))
def test_the_history_tells_what_the_code_saw(program: list[Operation], moves: list[tuple[str, int]]) -> None:
    run, truth, ended, doubtful = play_program(program, moves)
    assert run.status is (RunStatus.COMPLETED if ended else RunStatus.RUNNING)
    seen = {wait.event_id for wait in run.waits}
    assert seen == set(truth) or (ended and seen < set(truth)), "the last turn keeps nothing but its end"
    for wait in run.waits:
        outcome, value = truth[wait.event_id]
        said = wait.answer.json() if wait.answer else None
        assert wait.outcome == outcome, wait
        assert said == value or wait.name.casefold() in doubtful, wait


@settings(max_examples=200)
@given(programs(ANY), st.lists(MOVES, max_size=40))
def test_side_by_side_each_event_answers_one_wait_of_its_name(
    program: list[Operation], moves: list[tuple[str, int]]
) -> None:
    run, *_ = play_program(program, moves)
    answered = {wait.event_id: wait for wait in run.waits if wait.outcome is WaitOutcome.ANSWERED}
    answers = [event for event in run.raised if event.wait is not None]
    assert sorted(answered) == sorted(event.wait for event in answers if event.wait is not None)
    for event in answers:
        wait = answered[event.wait or 0]
        assert (wait.name.casefold(), wait.answer) == (event.name.casefold(), event.payload)
