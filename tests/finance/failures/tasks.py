"""Tasks whose figures can be computed by hand. An input token costs a millionth of a dollar, a second of compute
0.00002, a million writes 1.25; output tokens are free.

    task()             classify (1,000 tokens), retrieve_account, draft_refund (3,000 tokens): 0.004 dollars, no failure
    crashed(step)      the same; its worker was lost at the step, and with it a call of the same size if it makes one
    failed(step, n)    the same; n attempts of the step ended with an error
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from app.dapr.history.causes import Cause
from app.domain.models import AnsweredBy, CallState, UsageBasis
from app.ledger.store.task_record import FailureKind, FailureRecord, StepRecord, TaskRecord
from app.pricing.book import PriceBook
from app.pricing.charge_types import CallRecord, Charge, Origin, Quantity, TokenUsage, Work
from app.pricing.formula import charge_call, charge_work
from tests.pricing.makers import OPENAI, agreement, price_book
from tests.records import at, attempt_record, call_record, step_record, task_record

TOKENS = {1: 1_000, 3: 3_000}  # of the steps that call a model
STEP = 10  # seconds from one step's start to the next
_NAMES = {1: "classify", 2: "retrieve_account", 3: "draft_refund"}


def book() -> PriceBook:
    """The prices above; those of `model-e` are in euros."""
    prices = {"input": "1", "cached_input": "1", "output": "0"}
    dollars = agreement(model="model-a", per_million_tokens=prices)
    return price_book(dollars, agreement(id="euros", model="model-e", currency="EUR", per_million_tokens=prices))


def task(task_id: str = "acme:T-1", **changes: Any) -> TaskRecord:
    """A task of three steps, started after 0, 10 and 20 seconds, each completed 9 seconds later."""
    steps = tuple(step(number) for number in _NAMES)
    calls = tuple(call(number, task_id=task_id) for number in TOKENS)
    values: dict[str, Any] = {"task_id": task_id, "steps": steps, "calls": calls, "ended_at": at(60), "pauses": ()}
    values |= {"tenant": task_id.partition(":")[0], "charges": ()} | changes
    record = task_record(**values)
    return task_record(**values | {"charges": changes.get("charges") or tuple(charges(record))})


def step(number: int, **changes: Any) -> StepRecord:
    """One of the three steps."""
    start = (number - 1) * STEP
    values: dict[str, Any] = {"attempts": (attempt_record(start, 9),), "active": timedelta(seconds=1)}
    return step_record(_NAMES[number], number, **values | changes)


def call(of: int, start: float = 1, **changes: Any) -> CallRecord:
    """The model call of a step, `start` seconds after the step's start."""
    usage = TokenUsage(input_tokens=TOKENS[of], output_tokens=0, cached_tokens=0)
    values: dict[str, Any] = {"usage": usage, "model": "model-a", "provider": OPENAI, "stage": _NAMES[of]}
    return call_record(f"e-{of}", (of - 1) * STEP + start, **values | changes)


def lost(number: int, start: float, task_id: str) -> CallRecord:
    """An interrupted call."""
    usage = TokenUsage(input_tokens=TOKENS[number], output_tokens=0, cached_tokens=0, basis=UsageBasis.ESTIMATED)
    return call(number, start, state=CallState.INTERRUPTED, usage=usage, number=1, task_id=task_id)


def failure(number: int, after: float, resumed: float | None = None, **changes: Any) -> FailureRecord:
    """Work of a step that was lost `after` seconds from the step's start."""
    start = (number - 1) * STEP
    values: dict[str, Any] = {"step": number, "attempt": 1, "execution": 1, "worker": "w-1"}
    values |= {"kind": FailureKind.INTERRUPTED, "cause": Cause.WORKER_GONE, "at": at(start + after)}
    values["resumed_at"] = None if resumed is None else at(start + resumed)
    return FailureRecord(**values | changes)


def crashed(number: int, task_id: str = "acme:T-1", *, answered: bool = False, **changes: Any) -> TaskRecord:
    """A task whose worker was lost 3 seconds into the step; another worker continued after 4 seconds. `answered`: the
    step's answer was already in the journal."""
    failures = (failure(number, 3, 4),)
    asked = number in TOKENS
    calls = [
        call(step_number, 1 if answered or step_number != number else 5, task_id=task_id, number=2)
        for step_number in TOKENS
    ]
    steps = [step(step_number) for step_number in _NAMES]
    if asked and answered:
        steps[number - 1] = step(number, answered_by=AnsweredBy.JOURNAL)
    if asked and not answered:
        calls.append(lost(number, 1, task_id))
    return task(task_id, **{"steps": tuple(steps), "calls": tuple(calls), "failures": failures} | changes)


def failed(number: int, times: int = 1, task_id: str = "acme:T-1", **changes: Any) -> TaskRecord:
    """A task with failed attempts of the step, one second apart, each retried half a second later."""
    error: dict[str, Any] = {"kind": FailureKind.FAILED, "cause": Cause.TOOL_ERROR}
    failures = tuple(failure(number, 1 + index, 1.5 + index, attempt=index + 1, **error) for index in range(times))
    calls = [call(step_number, 8 if step_number == number else 1, task_id=task_id) for step_number in TOKENS]
    return task(task_id, **{"calls": tuple(calls), "failures": failures} | changes)


def charges(record: TaskRecord) -> Iterator[Charge]:
    """The charges of the calls, and of a second of compute and two writes for each step."""
    for step in record.steps:
        origin = _origin(record, step)
        for asked in record.calls_of(step):
            named = {"turn": asked.turn, "number": asked.number, "at": asked.started_at, "model": asked.model}
            where = Origin(**_values(origin) | named | {"provider": asked.provider})
            yield from charge_call(book(), asked.usage, where, wasted=asked.wasted)
        yield from charge_work(book(), Work(_count(1), _count(2)), origin)
        if step.lost:
            lost_seconds = Quantity(Decimal(str(step.lost.total_seconds())))
            yield from charge_work(book(), Work(lost_seconds, _count(0)), origin, wasted=True)


def own_charges(record: TaskRecord) -> tuple[Charge, ...]:
    """The charges of the workflow itself at its end: ten writes."""
    origin = Origin(**_values(_origin(record, record.steps[0])) | {"at": record.ended_at, "execution_id": ""})
    return charge_work(book(), Work(step_writes=_count(10)), replace(origin, stage="", step="", tool=""))


def fleet(*records: TaskRecord, of: int) -> list[TaskRecord]:
    """These records, filled up with tasks without failures to the number `of`."""
    return [*records, *(task(f"acme:F-{number}") for number in range(of - len(records)))]


def _origin(record: TaskRecord, step: StepRecord) -> Origin:
    return Origin(
        task_id=record.task_id,
        tenant=record.tenant,
        agent=record.agent,
        workflow=record.workflow,
        at=step.attempts[0].scheduled_at,
        stage=step.stage,
        step=step.name,
        tool=step.tool,
        execution_id=step.execution_id,
        outcome=record.outcome.value if record.outcome else "",
    )


def _values(origin: Origin) -> dict[str, Any]:
    return {name: getattr(origin, name) for name in Origin.__dataclass_fields__}


def _count(number: int) -> Quantity:
    return Quantity(Decimal(number))
