"""Builds the history of a synthetic task step by step, as Dapr would, and its model calls."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from app.dapr.history.model import (
    Attempt,
    AttemptOutcome,
    Failure,
    Payload,
    RaisedEvent,
    Replay,
    RetryPause,
    RunStatus,
    Step,
    Wait,
    WaitOutcome,
    WorkflowRun,
)
from app.domain.errors import FailureCause, with_code
from app.domain.models import AnsweredBy, CallState, ModelUse, UsageBasis
from app.pricing.charge_types import NOT_REPORTED, CallRecord, TokenUsage
from app.workflow.steps import DECISION
from lab.bench.ledger import population
from lab.bench.ledger.population import Person

PROMPTS = "afd128ef6544"
_WORKERS = [str(uuid.UUID(int=number, version=4)) for number in range(1, 9)]
_SIGNER = "5e" * 32
_EVENT_BYTES = 170  # size of an event without its payload
_TOOL_FAILS, _CALL_FAILS, _CALL_IS_CUT = 0.012, 0.008, 0.004


class SyntheticHistory:
    """The history of a task up to `now`, which is in microseconds since its start."""

    def __init__(self, person: Person, task_id: str) -> None:
        self.person = person
        self.task_id = task_id
        self.calls: list[CallRecord] = []
        self.now = 0
        self._chance = person.chance
        self._events, self._size, self._ids = 2, 600, 0
        self._steps: list[Step] = []
        self._replays: list[Replay] = []
        self._pauses: list[RetryPause] = []
        self._waits: list[Wait] = []
        self._raised: list[RaisedEvent] = []
        self._execution_id = _uuid(self._chance)
        self._turn()

    def tools(self, *names: str) -> None:
        """Adds parallel steps that call the internal systems."""
        started, ends = self.now, [self._tool(name) for name in names]
        self.now = max(ends, default=started)
        self._turn()

    def model(self, stage: str, turn: int, answer: Callable[[ModelUse], str]) -> None:
        """Adds a step with one model call. `answer` makes the step's result from the call's usage."""
        execution_id, started = _uuid(self._chance), self.now
        attempts: list[Attempt] = []
        rolled = self._chance.random()
        if rolled < _CALL_FAILS:
            attempts.append(self._failed_call(execution_id, stage, turn))
        elif rolled < _CALL_FAILS + _CALL_IS_CUT:
            self._call(execution_id, stage, turn, CallState.INTERRUPTED)
            self._wait_for(60_000, 400_000)  # until another worker takes the step
        scheduled = self.now if attempts else started
        self._wait_for(4_000, 12_000)
        call = self._call(execution_id, stage, turn, CallState.SETTLED)
        self._wait_for(6_000, 20_000)
        use = ModelUse(
            answered_by=AnsweredBy.PROVIDER,
            component=call.component,
            model=call.model,
            prompt_version=call.prompt_version,
            request_digest=call.request_digest,
            input_tokens=call.usage.input_tokens,
            cached_tokens=call.usage.cached_tokens,
            output_tokens=call.usage.output_tokens,
            reasoning_tokens=call.usage.reasoning_tokens,
            usage_basis=call.usage.basis,
        )
        attempts.append(self._attempt(len(attempts) + 1, scheduled, self.now, result=answer(use)))
        self._steps.append(Step(execution_id, stage, tuple(attempts), Payload("{}")))
        self._turn()

    def start_wait(self) -> None:
        """Adds a wait for a person."""
        due = self._at(self.now + 72 * 3_600_000_000)
        self._events += 1
        self._waits.append(Wait(DECISION, self._id(), self._at(self.now), due, None, WaitOutcome.OPEN))

    def end_wait(self, microseconds: int, outcome: WaitOutcome) -> None:
        """Ends the wait after that time with this outcome."""
        self.now += microseconds
        answer = Payload('{"verdict": "approve", "by": "kim"}') if outcome is WaitOutcome.ANSWERED else None
        ended = replace(self._waits.pop(), ended_at=self._at(self.now), outcome=outcome, answer=answer)
        self._waits.append(ended)
        if answer is not None:
            self._raised.append(RaisedEvent(DECISION, ended.ended_at or ended.started_at, answer, ended.event_id))
        self._turn()

    def run(self, status: RunStatus, output: str | None = None, failure: Failure | None = None) -> WorkflowRun:
        """The history up to now."""
        return WorkflowRun(
            instance_id=self.task_id,
            name="refund_ticket",
            status=status,
            started_at=self.person.arrives_at,
            ended_at=self._at(self.now) if status.ended else None,
            execution_id=self._execution_id,
            app_id="agent",
            output=None if output is None else Payload(output),
            failure=failure,
            steps=tuple(self._steps),
            pauses=tuple(self._pauses),
            waits=tuple(self._waits),
            raised=tuple(self._raised),
            replays=tuple(self._replays),
            signers=(_SIGNER,),
            events=self._events,
            size=self._size + _EVENT_BYTES * self._events,
            trace_parent=f"00-{self._execution_id.replace('-', '')}-{self._execution_id[-12:]}0000-01",
        )

    def _tool(self, name: str) -> int:
        """Adds a step that calls the internal systems, and returns its end."""
        execution_id, started = _uuid(self._chance), self.now
        attempts: list[Attempt] = []
        if self._chance.random() < _TOOL_FAILS:
            attempts.append(
                self._failed_attempt(started, self._chance.randint(20_000, 3_000_000), f"{name} answered 503")
            )
            started = self._back_off(execution_id, attempts[-1])
        end = started + self._chance.randint(14_000, 90_000)
        attempts.append(self._attempt(len(attempts) + 1, started, end, result=population.RESULTS[name]))
        self._steps.append(Step(execution_id, name, tuple(attempts), Payload("{}")))
        return end

    def _failed_call(self, execution_id: str, stage: str, turn: int) -> Attempt:
        started = self.now
        call = self._call(execution_id, stage, turn, CallState.FAILED)
        attempt = self._failed_attempt(started, self.now - started + 5_000, call.error)
        self.now = self._back_off(execution_id, attempt)
        return attempt

    def _failed_attempt(self, started: int, microseconds: int, message: str) -> Attempt:
        return self._attempt(1, started, started + microseconds, failure=Failure("Unreachable", message))

    def _back_off(self, execution_id: str, attempt: Attempt) -> int:
        """Adds the pause after a failed attempt, and returns its end."""
        ended = attempt.ended_at or attempt.scheduled_at
        due = ended + timedelta(microseconds=self._chance.randint(5_000_000, 10_000_000))
        self._pauses.append(RetryPause(execution_id, self._id(), ended, due, due))
        self._events += 2
        return (due - self.person.arrives_at) // timedelta(microseconds=1)

    def _attempt(
        self, number: int, started: int, end: int, *, result: str | None = None, failure: Failure | None = None
    ) -> Attempt:
        self._events += 2
        self._size += 220 + len(result or "")
        outcome = AttemptOutcome.COMPLETED if failure is None else AttemptOutcome.FAILED
        payload = None if result is None else Payload(result)
        return Attempt(number, self._id(), self._at(started), self._at(end), outcome, failure, payload, _SIGNER)

    def _call(self, execution_id: str, stage: str, turn: int, state: CallState) -> CallRecord:
        """Adds a model call. A failed one is refused, or not answered in time."""
        started, number = self.now, 1 + sum(call.execution_id == execution_id for call in self.calls)
        self.now += int(1e6 * self._chance.lognormvariate(-0.2 if stage == "classify" else 0.6, 0.5))
        model = self.person.model
        call = CallRecord(
            call_id=_uuid(self._chance),
            task_id=self.task_id,
            tenant=self.person.tenant,
            execution_id=execution_id,
            stage=stage,
            turn=turn,
            number=number,
            worker=self._chance.choice(_WORKERS),
            component=model.component,
            provider=model.provider,
            model="" if state is CallState.FAILED or state is CallState.INTERRUPTED else model.name,
            prompt_version=PROMPTS,
            request_digest=f"{self._chance.getrandbits(256):064x}",
            state=state,
            started_at=self._at(started),
            ended_at=None if state is CallState.INTERRUPTED else self._at(self.now),
            reserve_input=self._chance.randint(500, 1100),
            reserve_output=1000,
            usage=NOT_REPORTED,
        )
        call = replace(call, **self._call_result(call))
        self.calls.append(call)
        return call

    def _call_result(self, call: CallRecord) -> dict[str, Any]:
        if call.state is CallState.INTERRUPTED:
            return {"error": "the step was executed again"}
        if call.state is CallState.FAILED:
            slow = self._chance.random() < 0.3
            cause = FailureCause.NO_ANSWER_IN_TIME if slow else FailureCause.RATE_LIMIT
            return {"error": with_code(cause, "no answer within 60 s" if slow else "the provider answered 429")}
        return {"usage": self._usage(call), "finish_reason": "stop"}

    def _usage(self, call: CallRecord) -> TokenUsage:
        output = self._chance.randint(20, 160)
        if self.person.model.usage_basis is UsageBasis.ESTIMATED:
            return TokenUsage(input_tokens=call.reserve_input, output_tokens=output, basis=UsageBasis.ESTIMATED)
        cached = call.reserve_input // 128 * 128 if self._chance.random() < 0.4 else 0
        return TokenUsage(
            input_tokens=call.reserve_input, output_tokens=output, cached_tokens=cached, reasoning_tokens=output // 3
        )

    def _turn(self) -> None:
        """Adds a turn of the workflow's code."""
        self._events += 1
        self._wait_for(3_000, 15_000)
        started = self.now
        self._wait_for(500, 3_000)
        self._replays.append(Replay(self._at(started), self._at(self.now)))

    def _wait_for(self, least: int, most: int) -> None:
        self.now += self._chance.randint(least, most)

    def _id(self) -> int:
        self._ids += 1
        return self._ids

    def _at(self, microseconds: int) -> datetime:
        return self.person.arrives_at + timedelta(microseconds=microseconds)


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))
