"""The limits of a component, which the journal enforces for all workers together, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from sqlalchemy import Engine, update

from app.config.policy import ComponentLimits
from app.domain.models import CallState
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS
from app.ledger.store.writer import Writer
from app.llm.call import LimitReached, Reserve
from app.llm.journal import Journal, SettledCall
from tests.llm.test_journal import NOON, REPORTED, call, engine, postgres, writer
from tests.makers import LOSSES, Clock

__all__ = ["engine", "postgres", "writer"]
RESERVE = Reserve(500, 500)
Begun = str | SettledCall | LimitReached


@pytest.fixture
def clock() -> Clock:
    """At noon."""
    return Clock(NOON)


@pytest.fixture
def journal(writer: Writer, clock: Clock) -> Journal:
    """The journal of one worker."""
    return Journal(writer, "w1", clock, LOSSES)


def begin(journal: Journal, step: str, component: str = "llm", **limits: Any) -> Begun:
    """Tries to begin a call."""
    asked = call(execution_id=step)
    return asyncio.run(
        journal.begin(asked, component, "conversation.openai", RESERVE, limits=ComponentLimits(**limits))
    )


def end(engine: Engine, call_id: Begun, **values: Any) -> None:
    """Ends a call, answered or as `values` say."""
    usage = {"input_tokens": REPORTED.input_tokens, "output_tokens": REPORTED.output_tokens}
    row = {"state": CallState.SETTLED, "ended_at": NOON, **usage, **values}
    with engine.begin() as connection:
        connection.execute(update(MODEL_CALLS).where(MODEL_CALLS.c.call_id == call_id).values(row))


def test_no_more_calls_at_once_than_allowed(journal: Journal, engine: Engine) -> None:
    first, second = (begin(journal, step, concurrent_calls=2) for step in ("e1", "e2"))
    assert begin(journal, "e3", concurrent_calls=2) == LimitReached(True, ANY)
    assert isinstance(begin(journal, "e4", "other", concurrent_calls=2), str), "another component has its own limit"
    end(engine, first)
    assert isinstance(begin(journal, "e3", concurrent_calls=2), str)
    end(engine, second, state=CallState.INTERRUPTED)
    assert isinstance(begin(journal, "e5", concurrent_calls=2), str), "what a dead worker left is under way no more"


def test_no_more_requests_a_minute_than_allowed(journal: Journal, engine: Engine, clock: Clock) -> None:
    limits: dict[str, Any] = {"requests_per_minute": 4}
    for step in ("e1", "e2"):
        end(engine, begin(journal, step, **limits))
    assert begin(journal, "e3", **limits) == LimitReached(True, ANY), "the second half goes out evenly"
    clock.now = NOON + timedelta(seconds=16)
    end(engine, begin(journal, "e3", **limits))
    clock.now = NOON + timedelta(seconds=32)
    end(engine, begin(journal, "e4", **limits))
    clock.now = NOON + timedelta(seconds=60.5)
    assert isinstance(begin(journal, "e5", **limits), LimitReached), "the provider may count a little later"
    clock.now = NOON + timedelta(seconds=61)
    assert isinstance(begin(journal, "e5", **limits), str)


def test_no_more_tokens_a_minute_than_allowed(journal: Journal, engine: Engine, clock: Clock) -> None:
    limit: dict[str, Any] = {"tokens_per_minute": 1_900}
    end(engine, begin(journal, "e1", **limit))  # 843 tokens in the end
    assert isinstance(begin(journal, "e2", **limit), str), "843 and a reserve of 1,000"
    assert begin(journal, "e3", **limit) == LimitReached(True, ANY), "843, and two reserves"
    clock.now += timedelta(seconds=61)
    assert isinstance(begin(journal, "e3", **limit), str)


def test_a_failed_call_used_no_tokens_but_was_a_request(journal: Journal, engine: Engine) -> None:
    failed = begin(journal, "e1", tokens_per_minute=1_500)
    end(engine, failed, state=CallState.FAILED, error="rate_limit: no", input_tokens=None, output_tokens=None)
    assert isinstance(begin(journal, "e2", tokens_per_minute=1_500), str)
    assert isinstance(begin(journal, "e3", requests_per_minute=2), LimitReached)


def test_a_call_larger_than_a_minute_is_admitted_alone(journal: Journal, clock: Clock) -> None:
    assert isinstance(begin(journal, "e1", tokens_per_minute=10), str)
    assert isinstance(begin(journal, "e2", tokens_per_minute=10), LimitReached)
    clock.now += timedelta(seconds=61)
    assert isinstance(begin(journal, "e2", tokens_per_minute=10), str)


def test_an_answer_in_the_journal_needs_no_admission(journal: Journal, engine: Engine) -> None:
    end(
        engine,
        begin(journal, "e1"),
        answer='{"text":"x","tool_calls":[],"finish_reason":"stop","model":"m"}',
        model="m",
    )
    begin(journal, "e2")
    assert isinstance(begin(journal, "e1", concurrent_calls=1), SettledCall)
    assert isinstance(
        asyncio.run(journal.begin(call(execution_id="e1"), "llm", "", RESERVE, has_turn=False)), SettledCall
    )


def test_a_step_that_has_asked_before_may_not_pause(journal: Journal, engine: Engine) -> None:
    end(engine, begin(journal, "e1"), state=CallState.FAILED, error="cut: no")
    begin(journal, "e2")
    assert begin(journal, "e1", concurrent_calls=1) == LimitReached(False, ANY)


@pytest.fixture
def others(engine: Engine, clock: Clock) -> Iterator[list[Journal]]:
    """The journals of other workers, each with a connection of its own to the same ledger."""
    engines = [database.connect(engine.url.render_as_string(hide_password=False)) for _ in range(3)]
    writers = [Writer(one) for one in engines]
    yield [Journal(one, f"w{number}", clock, LOSSES) for number, one in enumerate(writers, start=2)]
    for one in writers:
        one.close()
    for two in engines:
        two.dispose()


def test_workers_share_the_limit_also_in_the_same_moment(others: list[Journal]) -> None:
    limits = ComponentLimits(concurrent_calls=5)

    async def main() -> list[Begun]:
        tries = (
            journal.begin(call(execution_id=f"{number}-{step}"), "llm", "", RESERVE, limits=limits)
            for step in range(12)
            for number, journal in enumerate(others)
        )
        return await asyncio.gather(*tries)

    begun = asyncio.run(main())
    assert sum(isinstance(one, str) for one in begun) == 5
