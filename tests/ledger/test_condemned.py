"""Which runs are begun again, how often, and what becomes of what they had paid."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from app.condemned import Condemned
from app.errors import HistoryTampered, Unreachable
from app.ledger.tables import MODEL_CALLS
from app.ledger.writer import Writer
from app.models import CallState
from tests.ledger.kit import Ledger
from tests.records import call_record

HONEST = "activity completion references unknown task scheduled id 4"


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
    assert Condemned(writer, lambda _: seen.append(states(ledger))).begin_again(HistoryTampered("acme:T-1", HONEST))
    assert list(seen[0].values()) == ["interrupted", "interrupted", "failed", "settled"]


@pytest.mark.parametrize(
    "words",
    [
        "workflow history signature verification failed",
        f"{HONEST}, or so",
        "child completion references unknown task scheduled id 4",
        "activity attestation verification failed for task 4: digest mismatch",
    ],
)
def test_any_other_word_is_for_people_to_look_into(ledger: Ledger, writer: Writer, words: str) -> None:
    ledger.journal([call_record("e-1")])
    begun: list[str] = []
    assert not Condemned(writer, begun.append).begin_again(HistoryTampered("acme:T-1", words))
    assert (begun, list(states(ledger).values())) == ([], ["settled"])


def test_not_without_end(writer: Writer) -> None:
    begun: list[str] = []
    condemned = Condemned(writer, begun.append)
    assert [condemned.begin_again(HistoryTampered("acme:T-1", HONEST)) for _ in range(5)] == [True] * 3 + [False] * 2
    assert condemned.begin_again(HistoryTampered("acme:T-2", HONEST))
    assert begun == ["acme:T-1"] * 3 + ["acme:T-2"]


def test_one_that_cannot_be_begun_now_is_left_for_the_next_look(writer: Writer) -> None:
    away, begun = [True] * 4, list[str]()

    def restart(task_id: str) -> None:
        if away and away.pop():
            raise Unreachable(f"task {task_id}: the sidecar is away")
        begun.append(task_id)

    condemned = Condemned(writer, restart)
    given = [condemned.begin_again(HistoryTampered("acme:T-1", HONEST)) for _ in range(8)]
    assert given == [False] * 4 + [True] * 3 + [False], "only what was begun counts"
    assert begun == ["acme:T-1"] * 3
