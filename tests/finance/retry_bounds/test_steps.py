"""The figures about our own process equal those counted in runs of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast

import pytest
from dapr.ext.workflow import RetryPolicy, WorkflowActivityContext
from dapr.ext.workflow._durabletask.task import ActivityContext, RetryableTask

from app.config.policy import Retries
from app.dapr import systems
from app.domain.errors import Refused
from app.domain.models import MAX_TICKET_CHARACTERS, Category, Frozen, Outcome
from app.finance.retry_bounds import worst
from app.finance.retry_bounds.worst import LONGEST, LOOKUPS_A_TURN, MODEL, calls_by_step, pauses
from app.ledger.store.tickets import StoredTicket
from app.llm import estimate, gateway
from app.workflow.activities import STAGES, TOOLS, tools
from app.workflow.activities.close_case import CloseInput, close_case
from app.workflow.activities.draft_refund import DraftInput, DraftOutput, HoldInput, Lookup, _messages, hold_refund
from app.workflow.activities.notify_customer import NotifyInput, notify_customer
from app.workflow.activities.retrieve_account import AccountInput, retrieve_account
from app.workflow.activities.services import Services
from app.workflow.activities.tools import OrderInput, PolicyInput, ToolCall, lookup_order, lookup_refund_policy
from app.workflow.steps import retry_policy
from tests.makers import RULES, USE, account, order, task
from tests.scripted import Script, run
from tests.workflow.test_refund import FOUND, REFUND, World

CALLS_BY_STEP = {calls.step: calls for calls in calls_by_step(RULES)}


class RecordingSystems:
    """Internal systems that refuse everything and record which system was called."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """An answer with which every stage can continue, or a refusal."""
        self.asked.append(system)
        if system in ("accounts", "orders", "policies") or method == "hold":
            raise Refused("no", reason="no_such_thing")
        return {"refund_id": "R-1", "notification_id": "N-1", "case_id": "C-1", "effects": {}}


def count_steps(script: Script) -> Counter[str]:
    """The number of steps of each kind that the process takes."""
    run(script, task())
    return Counter(script.steps())


@pytest.mark.parametrize(("tool", "argument"), [("lookup_order", "AC-1"), ("lookup_refund_policy", "damaged")])
def test_the_stated_number_of_steps_is_the_maximum_of_a_task(tool: Any, argument: str) -> None:
    calls = tuple(ToolCall(id=f"c{n}", tool=tool, argument=argument) for n in range(tools.MAX_CALLS_A_TURN))
    world = World(DraftOutput(tool_calls=calls, use=USE), classified=[None, FOUND])
    step_counts = count_steps(Script(world, events=[REJECT]))
    for step, times in step_counts.items():
        assert times <= CALLS_BY_STEP[step].per_task
    assert [step_counts[step] for step in ("classify", "draft_refund", tool)] == [
        CALLS_BY_STEP[step].per_task for step in ("classify", "draft_refund", tool)
    ]
    assert step_counts["close_case"] == CALLS_BY_STEP["close_case"].per_task


NOON = datetime(2026, 11, 22, 12)  # noqa: DTZ001 - as the SDK's replays have it
REJECT = {"verdict": "reject", "by": "kim", "refund": None}
HOLDING = {"refund": REFUND, "hours": 96}
NOTICE = {
    "task_id": "acme:T-1",
    "order_id": None,
    "outcome": Outcome.REFUNDED,
    "refund": REFUND,
    "reply_digest": None,
}
CLOSING = {"outcome": Outcome.REFUNDED, "refund": REFUND}
# Each stage or tool that calls systems, with its input.
QUESTIONS: tuple[tuple[Any, type[Frozen], dict[str, Any]], ...] = (
    (retrieve_account, AccountInput, {"again": True}),
    (lookup_order, OrderInput, {"order_id": "AC-1"}),
    (lookup_refund_policy, PolicyInput, {"category": Category.DAMAGED}),
    (hold_refund, HoldInput, HOLDING),
    (notify_customer, NotifyInput, NOTICE),
    (close_case, CloseInput, CLOSING),
)


@pytest.mark.parametrize(("stage", "shape", "values"), QUESTIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_step_calls_the_stated_systems(stage: Any, shape: type[Frozen], values: dict[str, Any]) -> None:
    recorder, nothing = RecordingSystems(), cast(Any, None)
    fields = {"tenant": "acme", "ticket_id": "T-1", "customer_id": "C-1"} | values
    question = shape.model_validate({name: value for name, value in fields.items() if name in shape.model_fields})

    async def history(*_: object) -> str:
        return question.model_dump_json()

    services = Services(gateway=nothing, systems=recorder, tickets=nothing, replies=nothing, scheduled_input=history)
    asyncio.run(stage(services)(WorkflowActivityContext(ActivityContext("acme:T-1", 1)), question))
    assert tuple(recorder.asked) == CALLS_BY_STEP[stage.__name__].targets


def test_every_step_that_calls_a_system_is_known() -> None:
    assert {stage.__name__ for stage, *_ in QUESTIONS} == {
        step for step, calls in CALLS_BY_STEP.items() if MODEL not in calls.targets
    }
    assert set(CALLS_BY_STEP) == {function.__name__ for function in (*STAGES, *TOOLS)}


def test_our_figures_are_those_of_the_code() -> None:
    assert LOOKUPS_A_TURN == tools.MAX_CALLS_A_TURN
    assert worst.GIVE_UP.total_seconds() == systems._TIMEOUT_SECONDS
    assert LONGEST.output_tokens == gateway._RESERVED_OUTPUT_TOKENS


@pytest.mark.parametrize("retries", [RULES.retries, Retries(first_seconds=0.5, max_seconds=2, attempts=7)])
def test_no_task_pauses_longer_than_stated(retries: Retries) -> None:
    ids = [f"acme:T-{number}" for number in range(300)]
    longest = max(sum(_sdk_pauses(retry_policy(retries, name))) for name in ids)
    said = pauses(retries).total_seconds()
    assert 0.9 * said <= longest <= said


def _sdk_pauses(policy: RetryPolicy) -> Iterator[float]:
    """The pauses that the SDK derives from a policy."""
    running: Any = RetryableTask(policy.obj, NOON, is_sub_orch=False, task_name="any")
    while (pause := running.compute_next_delay()) is not None:
        yield pause.total_seconds()
        running.increment_attempt_count()


def test_the_longest_letter_fits_into_the_reserve_that_is_priced() -> None:
    words = "The toaster that I ordered last week arrived broken and I would like my money back, please. "
    letter = (words * 1_000)[:MAX_TICKET_CHARACTERS]
    lookup = Lookup(turn=1, call=ToolCall(id="c", tool="lookup_order", argument="AC-1"), order=order())
    most = [
        lookup.model_copy(update={"turn": turn})
        for turn in range(1, RULES.drafting.max_turns)
        for _ in range(LOOKUPS_A_TURN)
    ]
    question = DraftInput(
        task_id="acme:T-1", turn=4, category=Category.DAMAGED, order_id="AC-1", account=account(), lookups=tuple(most)
    )
    stored = StoredTicket("acme:T-1", 1, "acme", "T-1", "C-1", "AC-1", "d", "Broken " * 70, letter, NOON, True, False)
    messages = _messages(stored, question)
    used = estimate.input_tokens(messages, tools.definitions(), estimate.PLAIN)
    assert 0.75 * LONGEST.input_tokens <= used <= LONGEST.input_tokens
