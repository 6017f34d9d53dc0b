"""The JSON of what failures cost: a part for each key, decimals as text, null for unknown figures."""

from __future__ import annotations

from typing import Any

from app.finance.failures.failure_figures import INTERRUPTED, Facts
from app.finance.failures.failure_schemas import (
    ENOUGH_FOR_RATES,
    ENOUGH_FOR_SHARES,
    FailureCostView,
    failures_view,
    note,
)
from app.finance.report_schemas import Selection
from app.ledger.store.task_record import FailureKind, TaskRecord
from tests.finance.failures.plain import facts_of
from tests.finance.failures.tasks import crashed, fleet, task


def shown(*records: TaskRecord) -> Any:
    """The JSON for these records."""
    return failures_view(facts_of(records), Selection()).model_dump(mode="json")


def test_a_crash_is_what_the_ledger_calls_interrupted() -> None:
    assert FailureKind.INTERRUPTED.value == INTERRUPTED


def test_parts_have_their_keys_and_groups_have_none() -> None:
    view = shown(*fleet(crashed(3), of=3), task("globex:T-1"))
    assert view["total"]["key"] == {}
    assert [part["key"] for part in view["by_tenant"]] == [{"tenant": "acme"}, {"tenant": "globex"}]
    stages = ["classify", "draft_refund", "retrieve_account"]
    assert [part["key"] for part in view["by_stage"]] == [{"stage": stage} for stage in stages]
    assert [part["key"] for part in view["by_tenant_and_stage"]] == [
        {"tenant": tenant, "stage": stage} for tenant in ("acme", "globex") for stage in stages
    ]
    for part in (view["total"], *view["by_tenant"], *view["by_stage"], *view["by_tenant_and_stage"]):
        assert part["clean"]["key"] == part["wasted"]["key"] == part["crashes"]["replay"]["key"] == {}


def test_shares_are_texts_and_bounds_are_exact() -> None:
    view = shown(*fleet(crashed(3), of=3))["total"]
    assert view["crashes"]["failure_rate"]["value"] == "0.333333"
    (repeated,) = view["crashes"]["repeated"]
    assert repeated["at_most"] == "0.003999996"  # 0.333333 x 0.012
    assert repeated["by_progress"] == "0.000999999"
    assert (repeated["contracted_cost"], repeated["share"]["value"]) == ("0.004", "0.333333")
    assert repeated["durable_ratio"] == "0.75"
    assert view["crashes"]["progress"]["mean"] == "0.25"
    assert view["crashes"]["note"].startswith("1 of 3 tasks crashed: too few")


def test_nothing_is_null_or_empty_and_never_zero_percent() -> None:
    view = failures_view(Facts(), Selection())
    assert (view.total.crashes.failure_rate, view.total.crashes.progress, view.total.durable) == (None, None, ())
    assert (view.by_tenant, view.by_stage, view.by_tenant_and_stage) == ((), (), ())
    assert (view.enough, view.note) == (False, "no task ended in this time")
    alone = shown(task())["total"]
    assert alone["crashes"]["repeated"][0]["by_progress"] is None
    assert alone["crashes"]["repeated"][0]["durable_ratio"] is None
    assert FailureCostView.model_validate(shown(task()))


def test_when_there_is_enough() -> None:
    assert "too few for rates" in note(100, ENOUGH_FOR_RATES - 1)
    assert "enough for a rate" in note(100, ENOUGH_FOR_RATES)
    assert "enough for a rate" in note(100, ENOUGH_FOR_SHARES - 1)
    assert note(100, ENOUGH_FOR_SHARES) == ""
