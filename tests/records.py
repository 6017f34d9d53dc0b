"""Makers of task records for tests: each returns a valid value, with the given fields changed.

`task_record()` is a refund that a person approved. The first model call of its drafting was interrupted and repeated:
classify, retrieve_account, draft_refund (calls 1 and 2), lookup_order, draft_refund, notify_customer, close_case.
Unless given, charges are made from the steps and calls, at the prices of `config/prices.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from app.dapr.history.model import AttemptOutcome
from app.dapr.history.times import Span, TimePart
from app.domain.models import AnsweredBy, CallState, Category, Outcome, Refund, TaskStatus, UsageBasis
from app.ledger.store.task_record import AttemptRecord, StepRecord, TaskRecord
from app.pricing import book
from app.pricing.book import PriceBook
from app.pricing.charge_types import NOT_REPORTED, CallRecord, Charge, Origin, Quantity, TokenUsage, Work
from app.pricing.formula import charge_call, charge_work
from tests.paths import ROOT

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
PROVIDER = "conversation.openai"
MODEL = "sandbox-small"
_PRICES = ROOT / "config" / "prices.yaml"
_MODEL_STEPS = frozenset({"classify", "draft_refund"})


def at(seconds: float) -> datetime:
    """The time `seconds` after the task's start."""
    return START + timedelta(seconds=seconds)


@cache
def price_book() -> PriceBook:
    """The price book of `config/prices.yaml`."""
    return book.load(_PRICES)


def attempt_record(start: float, seconds: float = 0.5, **changes: Any) -> AttemptRecord:
    """A completed attempt that was scheduled `start` seconds after the task's start."""
    values: dict[str, Any] = {"number": 1, "outcome": AttemptOutcome.COMPLETED}
    values |= {"scheduled_at": at(start), "ended_at": at(start + seconds)}
    return AttemptRecord(**values | changes)


def step_record(name: str = "classify", step: int = 1, start: float = 0.1, **changes: Any) -> StepRecord:
    """A step with one attempt and the execution id `e-<step>`; a model step or a tool step, depending on its name."""
    is_model_step = name in _MODEL_STEPS
    values: dict[str, Any] = {
        "step": step,
        "execution_id": f"e-{step}",
        "name": name,
        "stage": "draft_refund" if name.startswith("lookup") else name,
        "tool": "" if is_model_step else name,
        "active": timedelta(seconds=0.5),
        "lost": timedelta(0),
        "writes": 2,
        "attempts": (attempt_record(start),),
        "answered_by": AnsweredBy.PROVIDER if is_model_step else None,
    }
    return StepRecord(**values | changes)


def call_record(execution_id: str = "e-1", start: float = 0.2, **changes: Any) -> CallRecord:
    """A settled call of the classify stage that took 0.3 seconds: 900 tokens in (100 of them cached), 80 out."""
    values: dict[str, Any] = {
        "call_id": f"c-{execution_id}-{changes.get('number', 1)}",
        "task_id": "acme:T-1",
        "tenant": "acme",
        "execution_id": execution_id,
        "stage": "classify",
        "turn": 1,
        "number": 1,
        "worker": "w-1",
        "component": "llm",
        "provider": PROVIDER,
        "model": MODEL,
        "prompt_version": "p1",
        "request_digest": "0" * 64,
        "state": CallState.SETTLED,
        "started_at": at(start),
        "ended_at": at(start + 0.3),
        "reserve_input": 950,
        "reserve_output": 1000,
        "usage": TokenUsage(input_tokens=900, output_tokens=80, cached_tokens=100, reasoning_tokens=20),
        "finish_reason": "stop",
    }
    return CallRecord(**values | changes)


def interrupted_call(execution_id: str = "e-3", start: float = 1.2, **changes: Any) -> CallRecord:
    """A call whose worker died: without end and answer, with estimated usage."""
    values: dict[str, Any] = {
        "stage": "draft_refund",
        "state": CallState.INTERRUPTED,
        "ended_at": None,
        "finish_reason": "",
        "error": "the step was executed again",
        "usage": TokenUsage(input_tokens=1_500, output_tokens=1_000, basis=UsageBasis.ESTIMATED),
    }
    return call_record(execution_id, start, **values | changes)


def steps() -> tuple[StepRecord, ...]:
    """The steps of `task_record()`."""
    return (
        step_record("classify", 1, 0.1),
        step_record("retrieve_account", 2, 0.7),
        step_record("draft_refund", 3, 1.2, attempts=(attempt_record(1.2, 5),), active=timedelta(seconds=5)),
        step_record("lookup_order", 4, 6.3),
        step_record("draft_refund", 5, 6.9),
        step_record("notify_customer", 6, 67.5),
        step_record("close_case", 7, 68.1),
    )


def calls() -> tuple[CallRecord, ...]:
    """The calls of `task_record()`."""
    return (
        call_record("e-1", 0.2),
        interrupted_call("e-3", 1.3, worker="w-1"),
        call_record("e-3", 5.8, stage="draft_refund", number=2, worker="w-2", finish_reason="tool_calls"),
        call_record("e-5", 7.0, stage="draft_refund", turn=2, worker="w-2"),
    )


def unreported_call() -> CallRecord:
    """A further call of `task_record()`, with unknown usage."""
    return call_record("e-5", 7.2, stage="draft_refund", turn=3, worker="w-2", usage=NOT_REPORTED)


def task_record(**changes: Any) -> TaskRecord:
    """A task of 70 seconds, 60 of which it waited for a decision (see the module's docstring)."""
    values: dict[str, Any] = {
        "task_id": "acme:T-1",
        "tenant": "acme",
        "agent": "refund-agent",
        "workflow": "refund_ticket",
        "version": "0.1.0",
        "execution_id": "run-1",
        "rerun_of": None,
        "status": TaskStatus.COMPLETED,
        "outcome": Outcome.REFUNDED,
        "category": Category.DAMAGED.value,
        "refund": Refund(order_id="AC-10442", amount=Decimal("49.90"), currency="EUR"),
        "refund_id": "R-1",
        "started_at": START,
        "ended_at": at(70),
        "projected_at": at(70.5),
        "pauses": (Span(TimePart.WAITING, at(7.4), at(67.4), "decision"),),
        "turns": 9,
        "events": 40,
        "size": 12_000,
        "steps": steps(),
        "failures": (),
        "calls": calls(),
    } | changes
    values.setdefault("parts", _parts(values))
    record = TaskRecord(**{"charges": ()} | values)
    return record if "charges" in changes else TaskRecord(**values, charges=charges(record))


def charges(record: TaskRecord) -> tuple[Charge, ...]:
    """The charges of the record's steps, calls and workflow."""
    lines = [line for step in record.steps for line in _step_charges(record, step)]
    nothing = Quantity(Decimal(0))
    work = Work(nothing, _count(record.turns), _count(record.size), nothing)
    return (*lines, *charge_work(price_book(), work, _origin(record)))


def _step_charges(record: TaskRecord, step: StepRecord) -> Iterator[Charge]:
    origin = _origin(record, stage=step.stage, step=step.name, tool=step.tool, execution_id=step.execution_id)
    for call in record.calls_of(step):
        key = {"turn": call.turn, "number": call.number, "at": call.started_at}
        model = {"model": call.model, "provider": call.provider, "component": call.component}
        yield from charge_call(price_book(), call.usage, _with_changes(origin, key | model), wasted=call.wasted)
    work = Work(Quantity(Decimal(str(step.active.total_seconds()))), _count(step.writes))
    start = step.attempts[0].scheduled_at if step.attempts else record.started_at
    yield from charge_work(price_book(), work, _with_changes(origin, {"at": start}))


def _origin(record: TaskRecord, **changes: Any) -> Origin:
    values = {name: getattr(record, name) for name in ("task_id", "tenant", "agent", "workflow")}
    outcome = record.outcome.value if record.outcome else ""
    return Origin(**values | {"at": record.ended_at or record.projected_at, "outcome": outcome} | changes)


def _with_changes(origin: Origin, changes: dict[str, Any]) -> Origin:
    return Origin(**{name: getattr(origin, name) for name in Origin.__dataclass_fields__} | changes)


def _count(number: int) -> Quantity:
    return Quantity(Decimal(number))


def _parts(values: dict[str, Any]) -> dict[TimePart, timedelta]:
    """The parts of the task's time: the pauses, and the rest as active."""
    pauses: Sequence[Span] = values["pauses"]
    parts = dict.fromkeys(TimePart, timedelta(0))
    for pause in pauses:
        parts[pause.part] += pause.length
    whole = (values["ended_at"] or values["projected_at"]) - values["started_at"]
    parts[TimePart.ACTIVE] = whole - sum(parts.values(), timedelta(0))
    return parts
