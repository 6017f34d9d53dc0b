"""A provider whose usage Dapr 1.18 drops, on the real runtime: Anthropic's protocol, against the sandbox's bill.

Dapr 1.18 sends `tool_choice` as a bare string, which Anthropic (and the sandbox) refuses with status 400: stages
without tools work, drafts do not, and the tickets are parked there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.errors import FailureCause
from app.domain.models import CallState, UsageBasis
from app.finance.rollup import rollup
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store import database
from app.pricing import book
from app.pricing.charge_types import CallRecord, Charge, CostBasis, Origin, TokenUsage
from app.pricing.formula import NOTHING, charge_call, lost_usage
from runtime import paths
from sandbox.data import load_tickets
from tests.live import Live, make_stack

pytestmark = pytest.mark.runtime

TICKETS = 15
MODEL = "claude-2.1"  # the one whose tokenizer is published, so that the sandbox counts as it does
PROVIDER = "conversation.anthropic"


@pytest.fixture
def anthropic(tmp_path: Path) -> Iterator[Live]:
    """A product that asks the sandbox in Anthropic's protocol, without fast retries: a refusal is final."""
    stack = make_stack(tmp_path)
    component = stack.folder / "components" / "llm.yaml"
    asked = component.read_text().replace("conversation.openai", PROVIDER).replace("sandbox-small", MODEL)
    component.write_text(asked)
    (stack.folder / "resiliency" / "llm.yaml").unlink()
    with stack:
        live = Live(stack)
        yield live
        live.close()


def journal(live: Live) -> tuple[CallRecord, ...]:
    """Every model call of the product."""
    engine = database.connect(f"sqlite:///{live.stack.state / 'ledger.sqlite'}")
    try:
        return LedgerQueries(engine).calls()
    finally:
        engine.dispose()


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
    anthropic.wait_all(task_ids, "parked")
    calls, bill = journal(anthropic), anthropic.bill()
    settled = [call for call in calls if call.state is CallState.SETTLED]
    billed = [row for row in bill if row["billed"]]
    assert {call.stage for call in settled} == {row["stage"] for row in billed} == {"classify"}
    assert len(settled) == len(billed) == TICKETS
    _are_near_the_bill(settled, sum(row["input_tokens"] + row["output_tokens"] for row in billed))
    _say_in_money_how_they_are_known(settled)
    _drafts_were_refused_and_cost_nothing([call for call in calls if call.state is not CallState.SETTLED])


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


def _drafts_were_refused_and_cost_nothing(failed: list[CallRecord]) -> None:
    assert {(call.stage, call.state) for call in failed} == {("draft_refund", CallState.FAILED)}
    assert {FailureCause.told(call.error) for call in failed} == {FailureCause.MODEL_REFUSED}
    assert {lost_usage(call, None) for call in failed} == {NOTHING}
