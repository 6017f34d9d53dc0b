"""Random tasks: Dapr's history and the journal's rows, as they were at any moment (`Story.at`).

A story is determined by its seed. Steps fail and are retried, lookups run in parallel, the task waits for people, and
model calls fail, are interrupted, or are answered by the journal.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app.dapr.history.model import WorkflowRun
from app.dapr.history.parse import parse
from app.domain.errors import FailureCause, with_code
from app.domain.models import CallState, UsageBasis
from app.pricing.charge_types import NOT_REPORTED, CallRecord, TokenUsage
from tests.dapr.history.told import Told, at

OPENAI = "conversation.openai"
MODEL_STEPS = frozenset({"classify", "draft_refund"})
_CAUSES = (*FailureCause, None)
_OUTCOMES = ("refunded", "declined", "answered")
_COMPLETED, _FAILED, _TERMINATED = 1, 3, 5


@dataclass(frozen=True)
class Snapshot:
    """The run and the journal's rows as they were at one moment."""

    run: WorkflowRun
    calls: tuple[CallRecord, ...]
    moment: datetime


@dataclass(frozen=True)
class Story:
    """One task. `turns`: for each turn, the number of events so far and the time when it was saved."""

    task_id: str
    events: tuple[Any, ...]
    calls: tuple[CallRecord, ...]
    turns: tuple[tuple[int, datetime], ...]

    @property
    def end(self) -> Snapshot:
        """The snapshot after the last turn."""
        return self.at(len(self.turns) - 1)

    def at(self, turn: int, later: timedelta = timedelta(0)) -> Snapshot:
        """The snapshot at the time `later` after that turn."""
        count, moment = self.turns[turn]
        moment += later
        calls = tuple(_as_it_was(call, moment) for call in self.calls if call.started_at <= moment)
        return Snapshot(parse(self.task_id, self.events[:count]), calls, moment)


def _as_it_was(call: CallRecord, moment: datetime) -> CallRecord:
    if call.ended_at is None or call.ended_at <= moment:
        return call
    return replace(
        call, state=CallState.STARTED, ended_at=None, model="", usage=NOT_REPORTED, finish_reason="", error=""
    )


class _Teller:
    """Makes one story; `now` (seconds since `T0`) only grows."""

    def __init__(self, dice: random.Random, task_id: str, models: tuple[str, ...], first_day: int, days: int) -> None:
        self.dice = dice
        self.task_id = task_id
        self.models = models
        self.now = first_day * 86_400 + round(dice.uniform(0, days * 86_400), 6)
        self.told = Told()
        self.calls: list[CallRecord] = []
        self.turns: list[tuple[int, datetime]] = []
        self.last_id = 0
        self.over = False
        self.component, self.model = dice.choice([("llm", models[0]), ("spare", dice.choice(models))])
        # The number of turns after which the task is terminated; mostly never.
        self.patience = dice.choice([10**9, 10**9, 10**9, dice.randint(1, 8)])

    def story(self) -> Story:
        """The whole story."""
        self.told.turn(self.pass_time()).started(self.now, name="refund_ticket", app="refund-agent")
        self.work("classify")
        self.work("retrieve_account")
        for _ in range(self.dice.randint(1, 3)):
            self.work("draft_refund")
            self.work(*self.dice.sample(["lookup_order", "lookup_refund_policy"], self.dice.randint(0, 2)))
        if self.dice.random() < 0.4:
            self.wait()
        if self.dice.random() < 0.1:
            self.finish(_FAILED)
        self.work("notify_customer")
        self.work("close_case")
        self.finish(_COMPLETED)
        return Story(self.task_id, tuple(self.told.events), tuple(self.calls), tuple(self.turns))

    def pass_time(self, most: float = 2.0) -> float:
        """Advances the clock by a microsecond or up to `most` seconds."""
        self.now = round(self.now + self.dice.choice([1e-6, self.dice.uniform(0, most)]), 6)
        return self.now

    def number(self) -> int:
        """The id of the next action."""
        self.last_id += 1
        return self.last_id

    def saved(self) -> None:
        """Ends a turn: its outcome is saved in the state store."""
        self.turns.append((len(self.told.events), at(self.now)))

    def work(self, *names: str) -> None:
        """Runs steps in parallel until all are completed."""
        if self.over or not names:
            return
        open_now = {f"{name}-{self.number()}": name for name in names}
        number_of = {key: self.scheduled(key, name) for key, name in open_now.items()}
        self.saved()
        while open_now:
            if len(self.turns) > self.patience:
                return self.finish(_TERMINATED)
            key = self.dice.choice(sorted(open_now))
            fails = self.dice.random() < 0.15
            text = self.asked(key, open_now[key], fails) if open_now[key] in MODEL_STEPS else "{}"
            ended = self.pass_time()
            self.told.turn(self.pass_time(0.01))
            if not fails:
                self.told.completed(ended, number_of[key], text)
                del open_now[key]
            else:
                self.told.failed(ended, number_of[key], message="503")
                number_of[key] = self.tried_again(key, open_now[key])
            if open_now:
                self.saved()
        return None

    def scheduled(self, key: str, name: str) -> int:
        """Schedules a step; returns the schedule's event id."""
        number = self.number()
        self.told.scheduled(self.pass_time(0.001), number, name, key=f"{self.task_id}/{key}"[-36:])
        return number

    def tried_again(self, key: str, name: str) -> int:
        """Adds the back-off and schedules the next attempt; returns its event id."""
        timer = self.number()
        self.told.pauses(self.now, timer, self.now + 5, key=f"{self.task_id}/{key}"[-36:])
        self.saved()
        fired = self.pass_time(5)
        self.told.turn(self.pass_time(0.01)).fired(fired, timer)
        return self.scheduled(key, name)

    def asked(self, key: str, name: str, fails: bool) -> str:
        """The model calls of one attempt; returns the step's result."""
        step = f"{self.task_id}/{key}"[-36:]
        begun = [call for call in self.calls if call.execution_id == step]
        turn = begun[0].turn if begun else 1 + sum(call.number == 1 for call in self.calls if call.stage == name)
        number = len(begun) + 1
        while self.dice.random() < 0.15:
            self.calls.append(self.call(step, name, turn, number, CallState.INTERRUPTED))
            number += 1
        if fails and self.dice.random() < 0.8:
            self.calls.append(self.call(step, name, turn, number, CallState.FAILED))
        if fails:
            return ""
        self.calls.append(self.call(step, name, turn, number, CallState.SETTLED))
        return json.dumps({"use": {"answered_by": self.dice.choice(["provider", "journal"])}})

    def call(self, step: str, name: str, turn: int, number: int, state: CallState) -> CallRecord:
        """Makes one row of the journal."""
        started = at(self.pass_time())
        ended = at(self.pass_time(8))
        cause = self.dice.choice(_CAUSES)
        settled = state is CallState.SETTLED
        gone = state is CallState.INTERRUPTED and self.dice.random() < 0.5
        answered = settled or (state is CallState.INTERRUPTED and not gone)
        return CallRecord(
            call_id=f"{step}-{number}"[-36:],
            task_id=self.task_id,
            tenant=self.task_id.partition(":")[0],
            execution_id=step,
            stage=name,
            turn=turn,
            number=number,
            worker="w-1",
            component=self.component,
            provider=OPENAI,
            model=self.model if answered else "",
            prompt_version="p1",
            request_digest="0" * 64,
            state=state,
            started_at=started,
            ended_at=None if gone else ended,
            reserve_input=self.dice.randint(100, 2_000),
            reserve_output=self.dice.randint(100, 1_000),
            usage=self.usage() if answered else NOT_REPORTED,
            finish_reason="stop" if settled else "",
            error="" if settled else with_code(cause, "no answer") if cause else "no answer",
        )

    def usage(self) -> TokenUsage:
        """The usage of an answer; some providers report none."""
        if self.dice.random() < 0.1:
            return NOT_REPORTED
        tokens, output = self.dice.randint(0, 30_000), self.dice.randint(0, 4_000)
        cached = self.dice.choice([None, 0, self.dice.randint(0, tokens)])
        known = self.dice.choice([UsageBasis.REPORTED, UsageBasis.REPORTED, UsageBasis.ESTIMATED])
        return TokenUsage(
            input_tokens=tokens,
            output_tokens=output,
            cached_tokens=cached,
            reasoning_tokens=self.dice.choice([None, self.dice.randint(0, output)]),
            basis=known,
        )

    def wait(self) -> None:
        """Waits for a person for up to a day, sometimes with a suspension."""
        if self.over:
            return
        self.told.waits(self.pass_time(0.001), self.number(), self.dice.choice(["decision", "resume"]))
        name = self.told.events[-1].timerCreated.externalEvent.name
        self.saved()
        if self.dice.random() < 0.3:
            paused, resumed = self.pass_time(3_000), self.pass_time(3_000)
            self.told.turn(paused).suspended(paused)
            self.saved()
            self.told.turn(resumed).resumed(resumed)
        decided = self.pass_time(90_000)
        self.told.turn(self.pass_time(0.01)).raised(decided, name, "{}")

    def finish(self, status: int) -> None:
        """Ends the run."""
        if self.over:
            return
        self.over = True
        outcome = self.dice.choice(_OUTCOMES)
        result = {"outcome": outcome, "category": self.dice.choice(["damaged", None])}
        if outcome == "refunded":
            refund = {"order_id": "AC-1", "amount": "49.90", "currency": "EUR"}
            result |= {"refund": refund, "refund_id": "R-1"}  # type: ignore[dict-item]
        text = json.dumps(result) if status == _COMPLETED else None
        self.told.ended(self.pass_time(0.01), self.number(), status, text)
        self.saved()


def story(
    seed: int,
    task_id: str = "acme:T-1",
    models: tuple[str, ...] = ("sandbox-small",),
    first_day: int = 0,
    days: int = 3,
) -> Story:
    """The story of a seed. It starts within `days` after `first_day` (0: the day of `T0`) and calls one or two of the
    models."""
    return _Teller(random.Random(f"{seed} {task_id}"), task_id, models, first_day, days).story()
