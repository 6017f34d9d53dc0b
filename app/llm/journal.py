"""The write-ahead row of each model call: written before the call and settled after it, so no answer is paid for twice.

A step that is executed again finds its settled answer here. A row that a dead execution left `started` becomes
`interrupted`, and its reserve says what it may have cost at most. Two executions at the same time may both call the
model, but only the first answer settles the step; the other keeps its own row, with its usage.

A run that Dapr rejected by mistake leaves good answers behind. The run that replaces it asks the same questions in
steps with other ids; such an answer is moved to the new step.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, bindparam, case, exists, false, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from app.config.policy import UNLIMITED, ComponentLimits, Losses
from app.domain.errors import ModelRefused, ModelUnavailable
from app.domain.models import CallState, ToolForm
from app.ledger.store.call_rows import GIVEN_UP, reopen_record
from app.ledger.store.tables import BEGINNINGS, MODEL_CALLS, instant, microseconds
from app.ledger.store.writer import Writer, run
from app.llm.call import (
    LOOK_SECONDS,
    FailedRequest,
    LimitReached,
    ModelCall,
    Objection,
    Reserve,
    answer_from_json,
    answer_to_json,
    objection,
)
from app.llm.conversation import Answer
from app.pricing.charge_types import USAGE_COLUMNS, TokenUsage, usage_columns, usage_of

# The provider chooses these texts; PostgreSQL refuses one that is longer than its column.
_MODEL_CHARACTERS, _REASON_CHARACTERS = 200, 32


# Built once: composing a statement costs more than running it.
_OTHER = MODEL_CALLS.alias("other")
_ANSWER_COLUMNS = ("provider", "model", "finish_reason", "answer", "ended_at", *USAGE_COLUMNS)
_THIS_CALL = MODEL_CALLS.c.call_id == bindparam("the_call")
_THIS_STEP = and_(MODEL_CALLS.c.execution_id == bindparam("the_step"), MODEL_CALLS.c.turn == bindparam("the_turn"))
_TAKEN = exists().where(
    _OTHER.c.execution_id == bindparam("the_step"),
    _OTHER.c.turn == bindparam("the_turn"),
    _OTHER.c.state == CallState.SETTLED,
)
_GIVEN: dict[str, Any] = {name: bindparam(name) for name in ("state", "error", *_ANSWER_COLUMNS)}
_FIND_SETTLED = select(MODEL_CALLS).where(_THIS_STEP, MODEL_CALLS.c.state == CallState.SETTLED)
_CLOSE_LEFT = (
    update(MODEL_CALLS)
    .where(_THIS_STEP, MODEL_CALLS.c.state == CallState.STARTED)
    .values(state=CallState.INTERRUPTED, error="the step was executed again")
)
_OF_STEP = select(MODEL_CALLS.c.state, MODEL_CALLS.c.error, MODEL_CALLS.c.ended_at).where(_THIS_STEP)
_BEGUN_AGAIN = select(BEGINNINGS.c.number).where(BEGINNINGS.c.task_id == bindparam("the_task")).limit(1)
_LEFT_BEHIND = (
    select(MODEL_CALLS)
    .where(
        MODEL_CALLS.c.task_id == bindparam("the_task"),
        MODEL_CALLS.c.stage == bindparam("the_stage"),
        MODEL_CALLS.c.component == bindparam("the_component"),
        MODEL_CALLS.c.request_digest == bindparam("the_digest"),
        MODEL_CALLS.c.prompt_version == bindparam("the_version"),
        MODEL_CALLS.c.state == CallState.INTERRUPTED,
        MODEL_CALLS.c.error.startswith(GIVEN_UP, autoescape=True),
        MODEL_CALLS.c.answer.is_not(None),
    )
    .order_by(MODEL_CALLS.c.started_at)
    .limit(1)
)
_ADOPT = (
    update(MODEL_CALLS)
    .where(_THIS_CALL)
    .values(
        execution_id=bindparam("the_step"), turn=bindparam("the_turn"), number=1, state=CallState.SETTLED, error=None
    )
)
_OPEN = insert(MODEL_CALLS)
_IS_OPEN = MODEL_CALLS.c.state == CallState.STARTED
# A little more than the provider's minute: calls do not reach it at even distances.
_WINDOW = timedelta(seconds=61)
_UNDER_WAY = select(func.count()).where(MODEL_CALLS.c.component == bindparam("the_component"), _IS_OPEN)
_USED = case(
    (MODEL_CALLS.c.state == CallState.FAILED, 0),  # most failed calls used nothing
    else_=func.coalesce(
        MODEL_CALLS.c.input_tokens + MODEL_CALLS.c.output_tokens,
        MODEL_CALLS.c.reserve_input + MODEL_CALLS.c.reserve_output,
    ),
)
_STARTED_AT = MODEL_CALLS.c.started_at
_OF_MINUTE = select(func.count(), func.sum(_USED), func.min(_STARTED_AT), func.max(_STARTED_AT)).where(
    MODEL_CALLS.c.component == bindparam("the_component"), MODEL_CALLS.c.started_at > bindparam("the_minute")
)
_SETTLE_OPEN = update(MODEL_CALLS).where(_THIS_CALL, _IS_OPEN, ~_TAKEN).values(_GIVEN)
_SETTLE = update(MODEL_CALLS).where(_THIS_CALL, ~_TAKEN).values(_GIVEN)
_KEEP_LOST = update(MODEL_CALLS).where(_THIS_CALL).values(_GIVEN)


@dataclass(frozen=True)
class SettledCall:
    """The answer that settled a step, and its usage."""

    answer: Answer
    usage: TokenUsage


class Journal:
    """The rows of this worker's model calls. `worker` names this worker process, started once."""

    def __init__(self, writer: Writer, worker: str, clock: Callable[[], datetime], losses: Losses) -> None:
        """`losses` says how many answers a step may lose."""
        self._writer = writer
        self._losses = losses
        self._worker = worker
        self._clock = clock

    async def begin(
        self,
        call: ModelCall,
        component: str,
        provider: str,
        reserve: Reserve,
        form: ToolForm | None = None,
        *,
        limits: ComponentLimits = UNLIMITED,
        has_turn: bool = True,
    ) -> str | SettledCall | LimitReached:
        """Opens a row and returns its id, or returns the answer that has settled the step already. `provider` is the
        component's type before the call, empty when it is not known; `settle` and `fail` confirm it. `form` says how
        the tools are offered; None without tools. Returns LimitReached when the limits do not admit another call now,
        or when the call does not have its turn. Raises AnswersLost when the step has lost too many answers,
        ModelUnavailable when it lost one a moment ago."""
        row = self._row(call, component, reserve) | {"provider": provider, "tool_form": form and form.value}
        now = self._clock()

        def object_(failed: Sequence[FailedRequest]) -> Objection | None:
            return objection(component, failed, self._losses, now)

        result = await self._writer.write(
            lambda connection: _begin(connection, row, object_, limits if has_turn else None)
        )
        if isinstance(result, Exception):
            raise result
        return result

    async def settle(
        self, call_id: str, call: ModelCall, answer: Answer, usage: TokenUsage, provider: str
    ) -> SettledCall:
        """Closes a row with its answer and provider. Returns the answer that settled the step, which may be another
        execution's."""
        values = (
            usage_columns(usage)
            | {
                "provider": provider,
                "state": CallState.SETTLED.value,
                "error": None,  # the row may have been marked interrupted meanwhile, because this worker hung
                "model": answer.model[:_MODEL_CHARACTERS],
                "finish_reason": answer.finish_reason[:_REASON_CHARACTERS],
                "answer": answer_to_json(answer),
                "ended_at": microseconds(self._clock()),
            }
        )
        try:
            before = await self._writer.write(lambda connection: _settle(connection, call_id, call, values))
        except IntegrityError:  # another process settled the step in this very moment
            before = await self._writer.write(lambda connection: _settle(connection, call_id, call, values))
        return before or SettledCall(answer, usage)

    async def fail(self, call_id: str, error: ModelUnavailable | ModelRefused, provider: str) -> None:
        """Closes a row whose call failed; the stored error begins with its code. The row's reserve stays its possible
        cost unless the code says that no model worked."""
        values = {
            "state": CallState.FAILED,
            "error": error.stored_text,
            "ended_at": self._clock(),
            "provider": provider,
        }
        await self._writer.write(lambda connection: _fail(connection, call_id, values))

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
            "state": CallState.STARTED.value,
            "started_at": microseconds(self._clock()),
            "reserve_input": reserve.input_tokens,
            "reserve_output": reserve.output_tokens,
            "usage_basis": "unreported",
        }


def _begin(
    connection: Connection,
    row: dict[str, Any],
    object_: Callable[[Sequence[FailedRequest]], Objection | None],
    limits: ComponentLimits | None,
) -> str | SettledCall | Objection | LimitReached:
    """Returns the settled answer if there is one. Otherwise marks rows that an earlier execution left open, and opens a
    new row, unless `object_` objects because of the step's failed requests, or the component's limits are reached.
    Without limits it is not the call's turn."""
    step = _step(row["execution_id"], row["turn"])
    before = run(connection, _OF_STEP, step).all()  # nearly always empty
    if any(row.state == CallState.SETTLED for row in before):
        return _stored(connection.execute(_FIND_SETTLED, step).mappings().one())
    if any(row.state == CallState.STARTED for row in before):
        connection.execute(_CLOSE_LEFT, step)
    if not before and (left := _left_behind(connection, row)) is not None:
        return left
    failed = [FailedRequest(row.error or "", instant(row.ended_at)) for row in before if row.state == CallState.FAILED]
    if failed and (against := object_(failed)) is not None:
        return against
    if limits is None:
        return LimitReached(may_pause=not before)
    if (seconds := _seconds_to_wait(connection, row, limits)) is not None:
        return LimitReached(may_pause=not before, seconds=seconds)
    run(connection, _OPEN, row | {"number": len(before) + 1})
    return str(row["call_id"])


# Nothing but one of these may look and open a row at the same time, in whichever worker.
_HOLD = text("SELECT pg_advisory_xact_lock(4711201)")
_HOLD_SQLITE = update(MODEL_CALLS).where(false()).values(turn=MODEL_CALLS.c.turn)  # takes the write lock


def _seconds_to_wait(connection: Connection, row: dict[str, Any], limits: ComponentLimits) -> float | None:
    """None when another call of the component stays within its limits, else in how many seconds to look again. A single
    call larger than the tokens of a minute is admitted when no other call was made in that minute."""
    requests_limit, tokens_limit = limits.requests_per_minute, limits.tokens_per_minute
    if (limits.concurrent_calls, requests_limit, tokens_limit) == (None, None, None):
        return None
    connection.execute(_HOLD if connection.dialect.name == "postgresql" else _HOLD_SQLITE)
    component = {"the_component": row["component"]}
    most = limits.concurrent_calls
    if most is not None and connection.execute(_UNDER_WAY, component).scalar_one() >= most:
        return LOOK_SECONDS
    if requests_limit is None and tokens_limit is None:
        return None
    now = instant(row["started_at"])
    in_minute = component | {"the_minute": now - _WINDOW}
    requests, tokens, first, last = connection.execute(_OF_MINUTE, in_minute).one()
    if not requests:
        return None
    if requests_limit is not None and requests >= requests_limit:
        return _seconds(now, first + _WINDOW)
    if requests_limit is not None and 2 * requests >= requests_limit and now < last + _WINDOW / requests_limit:
        # The second half of a minute's requests goes out evenly, so that the queue keeps moving.
        return _seconds(now, last + _WINDOW / requests_limit)
    if tokens_limit is not None and (tokens or 0) + row["reserve_input"] + row["reserve_output"] > tokens_limit:
        return min(LOOK_SECONDS, _seconds(now, first + _WINDOW))
    return None


def _seconds(now: datetime, until: datetime) -> float:
    return (until - now).total_seconds()


def _left_behind(connection: Connection, row: dict[str, Any]) -> SettledCall | None:
    """The answer to the same question from a rejected run of the task; from now on it settles this step."""
    if run(connection, _BEGUN_AGAIN, {"the_task": row["task_id"]}).first() is None:
        return None
    same = {
        "the_task": row["task_id"],
        "the_stage": row["stage"],
        "the_component": row["component"],
        "the_digest": row["request_digest"],
        "the_version": row["prompt_version"],
    }
    found = connection.execute(_LEFT_BEHIND, same).mappings().first()
    if found is None:
        return None
    connection.execute(_ADOPT, {"the_call": found["call_id"], **_step(row["execution_id"], row["turn"])})
    return _stored(found)


def _settle(connection: Connection, call_id: str, call: ModelCall, values: dict[str, Any]) -> SettledCall | None:
    """None when the row settled the step, else the answer that had settled it before."""
    step = _step(call.execution_id, call.turn)
    given = {"the_call": call_id, **step, **values}
    if run(connection, _SETTLE_OPEN, given).rowcount:
        return None
    reopen_record(connection, call.task_id)  # another worker closed the row, and the task may be recorded that way
    if run(connection, _SETTLE, given).rowcount:
        return None
    lost = {"state": CallState.INTERRUPTED.value, "error": "another execution of the step settled first"}
    run(connection, _KEEP_LOST, {"the_call": call_id, **values, **lost})
    return _stored(connection.execute(_FIND_SETTLED, step).mappings().one())


def _fail(connection: Connection, call_id: str, values: dict[str, Any]) -> None:
    this = update(MODEL_CALLS).where(MODEL_CALLS.c.call_id == call_id).values(values)
    if connection.execute(this.where(_IS_OPEN)).rowcount:
        return
    task_id = connection.execute(this.returning(MODEL_CALLS.c.task_id)).scalar_one_or_none()
    if task_id is not None:
        reopen_record(connection, task_id)  # as above


def _step(execution_id: str, turn: int) -> dict[str, Any]:
    return {"the_step": execution_id, "the_turn": turn}


def _stored(row: RowMapping) -> SettledCall:
    usage = usage_of(row)
    return SettledCall(answer_from_json(row["answer"], usage), usage)
