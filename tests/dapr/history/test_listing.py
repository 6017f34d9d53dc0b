"""A history as rows: step, attempt and size of each event, and no text that a person wrote."""

from __future__ import annotations

from app.dapr.history.entries import list_events
from tests.dapr.history.told import Told, at

CARD = "my card 4111 1111 1111 1111"


def told() -> Told:
    """A step that failed once, waited and succeeded, and a wait for a person that was answered."""
    run = Told().turn(1).started(0, text=CARD)
    run.scheduled(1, 1, "classify", "k-1", text=CARD).turn(2).failed(2, 1, "ModelUnavailable", CARD)
    run.pauses(2, 2, 3, "k-1").turn(3).fired(3, 2).scheduled(3, 3, "classify", "k-1").turn(4).completed(4, 3, CARD)
    run.waits(4, 4, "decision", 60).turn(5).raised(5, "decision", CARD)
    return run.ended(6, text=CARD)


def test_events_name_their_step_and_attempt() -> None:
    events = list_events(told().events)
    assert [event.number for event in events] == list(range(1, len(told().events) + 1))
    steps = [
        (event.kind, event.name, event.attempt, event.event_id, event.ends, event.error)
        for event in events
        if event.attempt
    ]
    assert steps == [
        ("taskScheduled", "classify", 1, 1, None, ""),
        ("taskFailed", "classify", 1, None, 1, "ModelUnavailable"),
        ("taskScheduled", "classify", 2, 3, None, ""),
        ("taskCompleted", "classify", 2, None, 3, ""),
    ]
    assert {event.execution_id for event in events if event.attempt} == {"k-1"}
    assert [(event.name, event.turn) for event in events if event.kind == "eventRaised"] == [("decision", 5)]
    assert events[0].at == at(1)
    assert [event.ends for event in events if event.kind == "timerFired"] == [2]
    assert [event.name for event in events if event.kind == "timerCreated"] == ["retry of classify", "decision"]


def test_sizes_sum_to_the_history_and_no_text_is_in_it() -> None:
    run = told()
    assert sum(event.size for event in list_events(run.events)) == sum(event.ByteSize() for event in run.events)
    assert "4111" not in repr(list_events(run.events))


def test_a_run_that_is_pending_has_no_event() -> None:
    assert list_events(()) == ()
