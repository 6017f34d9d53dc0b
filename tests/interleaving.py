"""Several tickets of one order and customer, worked side by side step by step: the workflow's own code, the tools' own
code, and the sandbox's own books. Only the models' answers are made up. Whoever drives it chooses what happens next."""

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
# Longer than the books hold what a person has not decided.
A_HOLD_IS_OVER = timedelta(hours=RULES.approval.time_limit_hours + 25)
_METHODS = {(method.system, method.name): method for method in METHODS}
_MODEL_STAGES = ("classify", "draft_refund")


class Killed(Exception):
    """The worker is gone in the middle of a step."""


@dataclass
class Shop:
    """The books of a shop with one customer and one order, as the tools ask them. `lives` is how many more requests
    the worker makes before it dies; `answered` says whether the last one is still worked by the books."""

    books: Books
    now: datetime = datetime(2026, 3, 10, 12, tzinfo=UTC)
    lives: int | None = None
    answered: bool = True

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """As the product's own client answers, or fails."""
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
    """A shop in memory, where each category pays `percent` back for a year."""
    shop = Shop(Books(Path(":memory:")))
    policies = tuple(
        SeedPolicy(category=each, window_days=365, counted_from="order", refund_percent=percent, text="Terms.")
        for each in (Category.DAMAGED, Category.DOUBLE_CHARGE, Category.CHANGED_MIND)
    )
    ada = SeedCustomer(customer_id=CUSTOMER, tier="gold", since_days=100, risk="low", refunds_90d=0, orders=(order,))
    known = SeedBooks(tenants=(SeedTenant(tenant=TENANT, name="Acme", policies=policies, customers=(ada,)),))
    assert seed(shop.books, lambda: known, shop.now)
    return shop


def an_order(total: str, overcharged: str, refunded: str, currency: str = CURRENCY) -> SeedOrder:
    """A delivered order of one thing."""
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
    """One run of a ticket's workflow: what it waits for, and how it ended."""

    process: Generator[Any, Any, Any]
    calls: list[Call] = field(default_factory=list)
    waits: bool = False
    output: TaskOutput | None = None


class Case:
    """One ticket: its current run, and steps of former runs that a worker may still be at."""

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
            scheduled_input=self._asked,
        )
        self._context = WorkflowActivityContext(ActivityContext(self.task.task_id, 1))
        self._tools = {stage.__name__: stage(cast(Services, services)) for stage in (*STAGES, *TOOLS)}
        self.run = self._begun()

    @property
    def over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.terminated or self.run.output is not None

    def step(self, lives: int | None = None, answered: bool = True) -> None:
        """Works one waiting step, or dies at it after `lives` requests."""
        call = next((each for each in self.run.calls if not each.is_complete), None)
        if self.over or call is None:
            return
        answer = self._worked(call, lives, answered)
        if answer is None:
            return
        call.complete(answer.model_dump(mode="json"))
        if all(each.is_complete for each in self.run.calls):
            done, self.run.calls = self.run.calls, []
            self._go(lambda process: process.send([each.get_result() for each in done]))

    def decide(self, decision: dict[str, Any] | None) -> None:
        """A person's word, where one is waited for; None: nobody decided in time."""
        if self.over or not self.run.waits:
            return
        self.run.waits = False
        self.decisions += decision is not None and decision["verdict"] == "approve"
        if decision is None:
            self._go(lambda process: process.throw(TimeoutError()))
        else:
            self._go(lambda process: process.send(decision))

    def start_over(self, again: bool) -> None:
        """The run is given up, and the ticket worked anew; its worker may still be at a step of it. Where nobody knows
        that it was worked before, the new run is not told (`again`)."""
        if self.over:
            return
        self.left_behind += [each for each in self.run.calls if not each.is_complete]
        self.task = self.task.model_copy(update={"again": again})
        self.run = self._begun()

    def finish_what_was_left(self) -> None:
        """A worker that nobody waits for any more does the step that it was at."""
        if self.left_behind:
            self._worked(self.left_behind.pop(0), None, True)

    def terminate(self) -> None:
        """A person ends the task, unless the customer is being told already."""
        if self.over:
            return
        body = {"tenant": TENANT, "ticket_id": self.task.ticket_id}
        try:
            _answered(self._shop.ask("refunds", "void", body))
        except Refused:
            return
        self.left_behind += [each for each in self.run.calls if not each.is_complete]
        self.terminated = True

    def _begun(self) -> Run:
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

    async def _asked(self, *_: object) -> str | None:
        """Every history asks for the step, also that of a run that is gone: the books alone have to see to it."""
        return self._worked_on.model_dump_json() if self._worked_on else None

    def _worked(self, call: Call, lives: int | None, answered: bool) -> Frozen | None:
        """What came of a step; None when the worker died at it, or it failed and is tried again later."""
        if call.name == "classify":
            found = Classification.model_validate(
                {"category": self.category, "wants_refund": True, "language": "en", "confidence": "0.9"}
            )
            return ClassifyOutput(classification=found, problem=None, use=USE)
        if call.name == "draft_refund":
            return DraftOutput(draft=next(self._drafts, self._last), use=USE)
        self._shop.lives, self._shop.answered, self._worked_on = lives, answered, call.question
        try:
            return cast(Frozen, _answered(self._tools[call.name](self._context, call.question)))
        except (Killed, Refused, SystemUnavailable):
            return None
        finally:
            self._shop.lives = None


class _Context:
    """What the workflow asks of Dapr."""

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
        """Whatever the workflow's code does today, each of these runs has done from its start."""
        return True

    def set_custom_status(self, text: str) -> None:
        """Nobody looks."""


def _answered(work: Any) -> Any:
    return asyncio.run(work)
