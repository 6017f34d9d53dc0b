"""The write-ahead row of each model call: written before the call, settled after it, never paid twice.

A step that is executed again finds the settled answer here. A row that was left `started` by an execution that is gone
becomes `interrupted`, and its reserve says what it may have cost at most. Two executions at once may both ask, but
only the first answer settles the step; the other keeps its own row, with what it used.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.gateway.call import ModelCall, Reserve, Usage
from app.gateway.conversation import Answer
from app.gateway.stored import answer_from_json, answer_to_json
from app.ledger.schema import MODEL_CALLS
from app.ledger.writer import Writer

Result = TypeVar("Result")


class CallState(StrEnum):
    """Where a model call is."""

    STARTED = "started"
    SETTLED = "settled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # begun by an execution that is gone, or overtaken by another one's answer


@dataclass(frozen=True)
class Settled:
    """The answer that settled a step, and what it used."""

    answer: Answer
    usage: Usage


class Journal:
    """The rows of this worker's model calls. `worker` names this incarnation of the process."""

    def __init__(self, writer: Writer, worker: str, clock: Callable[[], datetime]) -> None:
        self._writer = writer
        self._worker = worker
        self._clock = clock

    async def begin(self, call: ModelCall, component: str, reserve: Reserve) -> str | Settled:
        """Opens a row and returns its id; or returns what has settled the step already."""
        row = self._row(call, component, reserve)
        return await self._write(lambda connection: _begun(connection, row))

    async def settle(self, call_id: str, call: ModelCall, answer: Answer, usage: Usage) -> Settled:
        """Closes a row with its answer. Returns the answer that settled the step, which may be another's."""
        values = _used(usage) | {
            "state": CallState.SETTLED,
            "model": answer.model,
            "finish_reason": answer.finish_reason,
            "answer": answer_to_json(answer),
            "ended_at": self._clock(),
        }
        try:
            return await self._write(lambda connection: _settled(connection, call_id, call, values))
        except IntegrityError:  # another process settled the step in this very moment
            return await self._write(lambda connection: _settled(connection, call_id, call, values))

    async def fail(self, call_id: str, error: str) -> None:
        """Closes a row whose call failed. What it may have cost stays its reserve: unknown is not zero."""
        values = {"state": CallState.FAILED, "error": error, "ended_at": self._clock()}
        change = update(MODEL_CALLS).where(MODEL_CALLS.c.call_id == call_id).values(values)
        await self._write(lambda connection: connection.execute(change).rowcount)

    async def _write(self, operation: Callable[[Connection], Result]) -> Result:
        return await asyncio.wrap_future(self._writer.submit(operation))

    def _row(self, call: ModelCall, component: str, reserve: Reserve) -> dict[str, Any]:
        return {
            "call_id": str(uuid.uuid4()),
            "execution_id": call.execution_id,
            "turn": call.turn,
            "task_id": call.task_id,
            "tenant": call.tenant,
            "stage": call.stage,
            "component": component,
            "request_digest": call.digest,
            "prompt_version": call.prompt_version,
            "worker": self._worker,
            "state": CallState.STARTED,
            "started_at": self._clock(),
            "reserve_input": reserve.input_tokens,
            "reserve_output": reserve.output_tokens,
            "known": "unreported",
        }


def _begun(connection: Connection, row: dict[str, Any]) -> str | Settled:
    """Looks for the settled row, marks what an earlier execution left open, and opens a row."""
    step = _step(row["execution_id"], row["turn"])
    settled = connection.execute(select(MODEL_CALLS).where(step, MODEL_CALLS.c.state == CallState.SETTLED))
    found = settled.mappings().one_or_none()
    if found is not None:
        return _stored(found)
    left = update(MODEL_CALLS).where(step, MODEL_CALLS.c.state == CallState.STARTED)
    connection.execute(left.values(state=CallState.INTERRUPTED, error="the step was executed again"))
    connection.execute(insert(MODEL_CALLS).values(row))
    return str(row["call_id"])


def _settled(connection: Connection, call_id: str, call: ModelCall, values: dict[str, Any]) -> Settled:
    step = _step(call.execution_id, call.turn)
    other = MODEL_CALLS.alias("other")
    taken = exists().where(
        other.c.execution_id == call.execution_id, other.c.turn == call.turn, other.c.state == CallState.SETTLED
    )
    mine = MODEL_CALLS.c.call_id == call_id
    if connection.execute(update(MODEL_CALLS).where(mine, ~taken).values(values)).rowcount == 0:
        lost = values | {"state": CallState.INTERRUPTED, "error": "another execution of the step settled first"}
        connection.execute(update(MODEL_CALLS).where(mine).values(lost))
    query = select(MODEL_CALLS).where(step, MODEL_CALLS.c.state == CallState.SETTLED)
    return _stored(connection.execute(query).mappings().one())


def _step(execution_id: str, turn: int) -> ColumnElement[bool]:
    return and_(MODEL_CALLS.c.execution_id == execution_id, MODEL_CALLS.c.turn == turn)


def _used(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "known": usage.known,
    }


def _stored(row: RowMapping) -> Settled:
    usage = Usage(
        input_tokens=row["input_tokens"],
        cached_tokens=row["cached_tokens"],
        output_tokens=row["output_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        known=row["known"],
    )
    return Settled(answer_from_json(row["answer"]), usage)
