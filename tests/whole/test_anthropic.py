"""A provider whose usage Dapr 1.18 drops and whose tools it cannot pass on, on the real runtime: Anthropic's protocol,
against the sandbox's bill. Usage is estimated, and tools are offered in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.models import CallState, ToolForm, UsageBasis
from app.finance.rollup import rollup
from app.pricing import book
from app.pricing.charge_types import CallRecord, Charge, CostBasis, Origin, TokenUsage
from app.pricing.formula import charge_call
from runtime import paths
from sandbox.data import load_expected, load_tickets
from tests.live import Live, make_stack

pytestmark = pytest.mark.runtime

TICKETS = 15
MODEL = "claude-2.1"  # the one whose tokenizer is published, so that the sandbox counts as it does
PROVIDER = "conversation.anthropic"


@pytest.fixture
def anthropic(tmp_path: Path) -> Iterator[Live]:
    """A product that asks the sandbox in Anthropic's protocol."""
    stack = make_stack(tmp_path)
    component = stack.folder / "components" / "llm.yaml"
    asked = component.read_text().replace("conversation.openai", PROVIDER).replace("sandbox-small", MODEL)
    component.write_text(asked)
    with stack:
        live = Live(stack)
        yield live
        live.close()


def charges(call: CallRecord, usage: TokenUsage) -> tuple[Charge, ...]:
    """What this usage costs at the list price of the call's model."""
    origin = Origin(
        task_id=call.task_id,
        tenant=call.tenant,
        agent="refund-agent",
        workflow="refund_ticket",
        at=call.started_at,
        stage=call.stage,
        execution_id=call.execution_id,
        turn=call.turn,
        model=call.model,
        provider=PROVIDER,
    )
    return charge_call(book.load(paths.ROOT / "config" / "prices.yaml"), usage, origin)


def test_what_dapr_does_not_report_is_estimated_near_the_bill(anthropic: Live) -> None:
    task_ids = [anthropic.submit(ticket.model_dump(mode="json")) for ticket in load_tickets()[:TICKETS]]
    views = anthropic.wait_all(task_ids, "completed", "waiting")
    expected = [load_expected()[task_id] for task_id in task_ids]
    assert [view["status"] for view in views] == [result.status.value for result in expected]
    calls, bill = anthropic.calls(), anthropic.bill()
    billed = [row for row in bill if row["billed"]]
    assert {call.state for call in calls} == {CallState.SETTLED}, "nothing is refused"
    assert len(calls) == len(billed) == len(bill)
    assert {(call.stage, call.tool_form) for call in calls} == {
        ("classify", None),
        ("draft_refund", ToolForm.JSON),
    }
    assert len(calls) > 2 * TICKETS, "lookups were asked for and answered"
    _are_near_the_bill(list(calls), sum(row["input_tokens"] + row["output_tokens"] for row in billed))
    _say_in_money_how_they_are_known(list(calls))


def _are_near_the_bill(settled: list[CallRecord], billed: int) -> None:
    for call in settled:
        assert call.usage.basis is UsageBasis.ESTIMATED
        assert call.usage.input_tokens, "no question is for nothing"
        assert call.usage.output_tokens, "no answer is for nothing"
        assert call.usage.cached_tokens is None, "what nobody said is not zero"
        assert call.model == MODEL
    assert _tokens(settled) == pytest.approx(billed, rel=0.05)


def _tokens(calls: list[CallRecord]) -> int:
    return sum((call.usage.input_tokens or 0) + (call.usage.output_tokens or 0) for call in calls)


def _say_in_money_how_they_are_known(settled: list[CallRecord]) -> None:
    estimated = rollup(each for call in settled for each in charges(call, call.usage)).total
    (money,) = estimated.money
    assert money.contracted_cost > 0
    assert dict(money.by_basis) == {CostBasis.ESTIMATED: money.contracted_cost}
    first, *rest = settled
    mixed = rollup(
        (
            *charges(first, replace(first.usage, cached_tokens=0, basis=UsageBasis.REPORTED)),
            *(each for call in rest for each in charges(call, call.usage)),
        )
    ).total
    assert mixed.cost_basis is CostBasis.ESTIMATED
    parts = dict(mixed.money[0].by_basis)
    assert parts[CostBasis.REPORTED] + parts[CostBasis.ESTIMATED] == money.contracted_cost
