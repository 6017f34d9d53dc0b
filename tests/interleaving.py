"""Several tickets of one order and customer, worked on in interleaved steps that the test chooses.

The workflow, the tools and the sandbox's books are the real ones; only the models' answers are invented.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from dapr.ext.workflow import WorkflowActivityContext
from dapr.ext.workflow._durabletask.task import ActivityContext

from app.domain.errors import Refused, SystemUnavailable
from app.domain.models import Category, Classification, Draft, Frozen, TaskOutput
from app.workflow.activities import STAGES, TOOLS
from app.workflow.activities.classify import ClassifyOutput
from app.workflow.activities.draft_refund import DraftOutput
from app.workflow.activities.services import Services
from app.workflow.refund import refund_ticket
from app.workflow.steps import TaskInput
from sandbox.data import SeedBooks, SeedCustomer, SeedItem, SeedOrder, SeedPolicy, SeedTenant
from sandbox.systems.app import METHODS
from sandbox.systems.books import Books
from sandbox.systems.orders import seed
from tests.makers import RULES, USE
from tests.scripted import Call

ORDER, CUSTOMER, TENANT, CURRENCY = "AC-10442", "ada", "acme", "EUR"
# Longer than the refund system holds the money of an undecided task.
A_HOLD_IS_OVER = timedelta(hours=RULES.approval.time_limit_hours + 25)
_METHODS = {(method.system, method.name): method for method in METHODS}
_MODEL_STAGES = ("classify", "draft_refund")


class Killed(Exception):
    """The worker dies in the middle of a step."""


@dataclass
class Shop:
    """The internal systems of a shop with one customer and one order. `lives` is the number of requests that the worker
    completes before it dies; `answered` says whether the systems still process the request at which it dies."""

    books: Books
    now: datetime = datetime(2026, 3, 10, 12, tzinfo=UTC)
    lives: int | None = None
    answered: bool = True

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answers or fails like the product's client of the systems."""
        if self.lives == 0 and not self.answered:
            raise Killed
        known = _METHODS[system, method]
        answer = known.work(self.books, known.body.model_validate(body), self.now)
        if self.lives == 0:
            raise Killed
        if self.lives is not None:
            self.lives -= 1
        if answer["ok"] is not True:
            raise Refused(str(answer["message"]), reason=str(answer["code"]))
        return {key: value for key, value in answer.items() if key != "ok"}


def open_shop(order: SeedOrder, percent: int = 100) -> Shop:
    """A shop in memory whose policies refund `percent` for a year."""
    shop = Shop(Books(Path(":memory:")))
    policies = tuple(
        SeedPolicy(category=category, window_days=365, counted_from="order", refund_percent=percent, text="Terms.")
        for category in (Category.DAMAGED, Category.DOUBLE_CHARGE, Category.CHANGED_MIND)
    )
    ada = SeedCustomer(customer_id=CUSTOMER, tier="gold", since_days=100, risk="low", refunds_90d=0, orders=(order,))
    seed_books = SeedBooks(tenants=(SeedTenant(tenant=TENANT, name="Acme", policies=policies, customers=(ada,)),))
    assert seed(shop.books, lambda: seed_books, shop.now)
    return shop


def an_order(total: str, overcharged: str, refunded: str, currency: str = CURRENCY) -> SeedOrder:
    """A delivered order of one item."""
    item = {"sku": "T1", "name": "Toaster", "quantity": 1, "unit_price": total}
    return SeedOrder.model_validate(
        {
            "order_id": ORDER,
            "status": "delivered",
            "placed_days_ago": 9,
            "delivered_days_ago": 4,
            "currency": currency,
            "overcharged": overcharged,
            "refunded": refunded,
            "items": (SeedItem.model_validate(item),),
        }
    )


@dataclass
class Run:
    """One run of a ticket's workflow: its open steps, whether it waits for a person, and its output."""

    process: Generator[Any, Any, Any]
    calls: list[Call] = field(default_factory=list)
    waits: bool = False
    output: TaskOutput | None = None


class Case:
    """One ticket: its current run, and steps of earlier runs on which a worker may still be working."""

    def __init__(self, shop: Shop, number: int, category: Category, drafts: Sequence[Draft], letter: str) -> None:
        self.task = TaskInput(tenant=TENANT, ticket_id=f"T-{number}", customer_id=CUSTOMER, order_id=ORDER, rules=RULES)
        self.terminated = False
        self.decisions = 0
        self.runs = 0
        self.left_behind: list[Call] = []
        self._shop = shop
        self.category = category
        self._drafts = iter(drafts)
        self._last = drafts[-1]
        self._worked_on: Frozen | None = None
        services = SimpleNamespace(
            systems=shop,
            replies=SimpleNamespace(get=lambda _task, _digest: letter),
            scheduled_input=self._scheduled_input,
        )
        self._context = WorkflowActivityContext(ActivityContext(self.task.task_id, 1))
        self._tools = {stage.__name__: stage(cast(Services, services)) for stage in (*STAGES, *TOOLS)}
        self.run = self._start_run()

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self.terminated or self.run.output is not None

    def step(self, lives: int | None = None, answered: bool = True) -> None:
        """Executes the next step; with `lives`, the worker dies in it after so many requests."""
        call = next((call for call in self.run.calls if not call.is_complete), None)
        if self.over or call is None:
            return
        answer = self._execute(call, lives, answered)
        if answer is None:
            return
        call.complete(answer.model_dump(mode="json"))
        if all(call.is_complete for call in self.run.calls):
            completed, self.run.calls = self.run.calls, []
            self._go(lambda process: process.send([call.get_result() for call in completed]))

    def decide(self, decision: dict[str, Any] | None) -> None:
        """Sends a person's decision to a waiting task; None means that the time limit is over."""
        if self.over or not self.run.waits:
            return
        self.run.waits = False
        self.decisions += decision is not None and decision["verdict"] == "approve"
        if decision is None:
            self._go(lambda process: process.throw(TimeoutError()))
        else:
            self._go(lambda process: process.send(decision))

    def start_over(self, again: bool) -> None:
        """Gives up the run and starts a new one; a worker may still be working on steps of the old run. `again` is the
        new run's input: whether it looks for effects of earlier runs."""
        if self.over:
            return
        self.left_behind += [call for call in self.run.calls if not call.is_complete]
        self.task = self.task.model_copy(update={"again": again})
        self.run = self._start_run()

    def finish_what_was_left(self) -> None:
        """A worker of a given-up run finishes its step."""
        if self.left_behind:
            self._execute(self.left_behind.pop(0), None, True)

    def terminate(self) -> None:
        """A person terminates the task, unless its refund is committed."""
        if self.over:
            return
        body = {"tenant": TENANT, "ticket_id": self.task.ticket_id}
        try:
            _run(self._shop.ask("refunds", "void", body))
        except Refused:
            return
        self.left_behind += [call for call in self.run.calls if not call.is_complete]
        self.terminated = True

    def _start_run(self) -> Run:
        self.runs += 1
        run = Run(process=cast(Any, None))
        run.process = refund_ticket(_Context(run, self._shop), self.task)
        self.run = run
        self._go(next)
        return run

    def _go(self, on: Callable[[Generator[Any, Any, Any]], Any]) -> None:
        run = self.run
        try:
            waited_for = on(run.process)
        except StopIteration as end:
            run.output = TaskOutput.model_validate(end.value)
            return
        run.waits = isinstance(waited_for, str)

    async def _scheduled_input(self, *_: object) -> str | None:
        """The input of the current step, as every history would give it, also that of a given-up run."""
        return self._worked_on.model_dump_json() if self._worked_on else None

    def _execute(self, call: Call, lives: int | None, answered: bool) -> Frozen | None:
        """The output of a step; None if the worker died in it, or if it failed and will be retried."""
        if call.name == "classify":
            classification = Classification.model_validate(
                {"category": self.category, "wants_refund": True, "language": "en", "confidence": "0.9"}
            )
            return ClassifyOutput(classification=classification, problem=None, use=USE)
        if call.name == "draft_refund":
            return DraftOutput(draft=next(self._drafts, self._last), use=USE)
        self._shop.lives, self._shop.answered, self._worked_on = lives, answered, call.question
        try:
            return cast(Frozen, _run(self._tools[call.name](self._context, call.question)))
        except (Killed, Refused, SystemUnavailable):
            return None
        finally:
            self._shop.lives = None


class _Context:
    """The workflow's context."""

    instance_id = "acme:T-1"

    def __init__(self, run: Run, shop: Shop) -> None:
        self._run = run
        self._shop = shop

    @property
    def current_utc_datetime(self) -> datetime:
        return self._shop.now.replace(tzinfo=None)

    def call_activity(self, name: str, *, input: Frozen, retry_policy: object) -> Call:  # noqa: A002 - the SDK's name
        call = Call(name, input)
        self._run.calls.append(call)
        return call

    def wait_for_external_event(self, name: str, *, timeout: timedelta | None = None) -> str:
        return name

    def is_patched(self, change: str) -> bool:
        """True, because all runs were started with today's code."""
        return True

    def set_custom_status(self, text: str) -> None:
        """Ignores the status."""


def _run(work: Any) -> Any:
    return asyncio.run(work)
