"""One ticket, one refund, whatever crashes and whoever decides again: the stage itself over the books themselves."""

from __future__ import annotations

import asyncio
import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dapr.ext.workflow import WorkflowActivityContext
from dapr.ext.workflow._durabletask.task import ActivityContext
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.domain.errors import Refused, StepNotInHistory, SystemUnavailable, Unreachable
from app.domain.models import Outcome, Refund
from app.workflow.activities.close_case import CloseInput, CloseOutput, close_case
from app.workflow.activities.services import Services, case_key, refund_key
from sandbox.systems import cases, entries, refunds
from sandbox.systems.books import Books
from sandbox.systems.requests import Answer, CloseCase, PostRefund

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
TENANT, TICKET = "bench", "T-1"
TASK = "bench:T-1"


@dataclass
class LossySystems:
    """Refunds and cases, with losses on the way: `before` the work was done or `after` it; then none."""

    books: Books
    losses: Iterator[str] = field(default_factory=lambda: iter(()))

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """As the product's own client answers, or fails."""
        loss = next(self.losses, "")
        if loss == "before":
            raise SystemUnavailable("lost on the way there")
        answer = self._works[system, method](body)
        if loss == "after":
            raise SystemUnavailable("lost on the way back")
        if answer["ok"] is not True:
            raise Refused(str(answer["message"]), reason=str(answer["code"]))
        return answer

    @property
    def _works(self) -> dict[tuple[str, str], Callable[[dict[str, Any]], Answer]]:
        return {
            ("refunds", "post"): lambda body: refunds.post(self.books, PostRefund.model_validate(body), NOW),
            ("cases", "close"): lambda body: cases.close_case(self.books, CloseCase.model_validate(body), NOW),
        }


@contextmanager
def opened(folder: Path) -> Iterator[Books]:
    """New books."""
    books = Books(folder / "systems.sqlite")
    try:
        yield books
    finally:
        books.close()


def attempt(
    systems: LossySystems,
    refund: Refund | None,
    instance_id: str = TASK,
    histories: Callable[[CloseInput], Sequence[str | None]] = lambda question: [question.model_dump_json()],
) -> CloseOutput:
    """One execution of the stage. `histories` is what the task's history asks, look by look. Raises as it does."""
    question = CloseInput(
        tenant=TENANT,
        ticket_id=TICKET,
        customer_id="load-00007",
        outcome=Outcome.REFUNDED if refund else Outcome.REJECTED,
        refund=refund,
    )
    looks: list[str | None] = []

    async def asked(task_id: str, event_id: int, execution_id: str) -> str | None:
        assert (task_id, event_id, execution_id) == (TASK, 7, "e-1")
        looks[:] = looks[1:] or histories(question)
        return looks[0]

    services = cast(Services, SimpleNamespace(systems=systems, scheduled_input=asked))
    context = WorkflowActivityContext(ActivityContext(instance_id, 7, "e-1"))

    async def run() -> CloseOutput:
        output: CloseOutput = await close_case(services)(context, question)
        return output

    return asyncio.run(run())


def refund(amount: str) -> Refund:
    return Refund(order_id="LD-00007", amount=Decimal(amount), currency="EUR")


def test_the_keys_are_made_of_the_ticket_alone() -> None:
    assert refund_key("acme", "T-1") != refund_key("acme", "T-2") != refund_key("lumen", "T-2")
    assert refund_key("acme", "T-1") != case_key("acme", "T-1")


def test_money_is_posted_for_the_task_whose_history_asks_for_it_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module(CloseInput.__module__), "_SAVED_SECONDS", 0.05)
    other = CloseInput(
        tenant=TENANT, ticket_id=TICKET, customer_id="load-00007", outcome=Outcome.REFUNDED, refund=refund("4.00")
    )
    with opened(tmp_path) as books:
        systems = LossySystems(books)
        with pytest.raises(StepNotInHistory, match="asked for bench:T-1 by instance mallory:T-1"):
            attempt(systems, refund("5.00"), instance_id="mallory:T-1")
        with pytest.raises(StepNotInHistory):
            attempt(systems, refund("5.00"), histories=lambda _: [other.model_dump_json()])
        with pytest.raises(Unreachable, match="does not hold this step yet"):
            attempt(systems, refund("5.00"), histories=lambda _: [None])
        assert not entries.book_rows(books, "refunds")
        assert not entries.book_rows(books, "cases")
        saved_late = attempt(systems, refund("5.00"), histories=lambda asked: [None, None, asked.model_dump_json()])
        assert saved_late.refund_id == "RF-000001"


def test_a_case_without_money_asks_no_history(tmp_path: Path) -> None:
    with opened(tmp_path) as books:
        assert attempt(LossySystems(books), None, histories=lambda _: pytest.fail("asked")).refund_id is None


def test_another_amount_after_a_refund_that_nobody_heard_of_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as books:
        with pytest.raises(SystemUnavailable):
            attempt(LossySystems(books, iter(["after"])), refund("5.00"))
        with pytest.raises(Refused, match="with other content"):
            attempt(LossySystems(books), refund("6.00"))
        assert attempt(LossySystems(books), refund("5.00")).refund_id == "RF-000001"


def test_the_books_refuse_a_second_refund_even_to_one_who_makes_other_keys(tmp_path: Path) -> None:
    with opened(tmp_path) as books:
        body = {"tenant": TENANT, "ticket_id": TICKET, "customer_id": "load-00007", **refund("5.00").model_dump()}
        posted = PostRefund.model_validate({**body, "idempotency_key": "of another version", "amount": "5.00"})
        assert refunds.post(books, posted, NOW)["created"] is True
        with pytest.raises(Refused) as refused:
            attempt(LossySystems(books), refund("6.00"))
        assert refused.value.reason == "ticket_already_refunded"


AMOUNTS = st.sampled_from(["5.00", "6.00", "20.00", "20.01"])
LOSSES = st.lists(st.sampled_from(["", "before", "after"]), max_size=4)


@settings(max_examples=80)
@example(runs=[("5.00", ["after"]), ("6.00", [])])
@given(runs=st.lists(st.tuples(AMOUNTS, LOSSES), min_size=1, max_size=4))
def test_one_ticket_one_refund_one_event(runs: list[tuple[str, list[str]]]) -> None:
    """Each run settles on an amount, loses requests and answers on the way, and is given up after some attempts: it was
    terminated, or refused and decided anew, or the ticket is worked again from its start."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as books:
        closed = []
        for amount, losses in runs:
            systems = LossySystems(books, iter(losses))
            for _ in range(2):
                try:
                    closed.append(attempt(systems, refund(amount)))
                    break
                except (Refused, SystemUnavailable):
                    continue
        posted = entries.book_rows(books, "refunds")
        assert len(posted) <= 1
        events = [row["event_id"] for row in entries.book_rows(books, "outbox")]
        ended = [row["refund_id"] for row in entries.book_rows(books, "cases")]
        assert len(ended) <= 1
        assert events == [f"refund.issued-{refund_id}" for refund_id in ended]
        assert {output.refund_id for output in closed} <= {row["refund_id"] for row in posted}
