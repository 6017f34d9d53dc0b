"""What failures cost by stage, tenant and currency; and what is unknown."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from app.finance.failures.failure_figures import failure_costs
from app.finance.rollup import Dimension
from app.pricing.charge_types import NOT_REPORTED
from tests.finance.failures.figures import cents, part, spent, value
from tests.finance.failures.plain import facts_of
from tests.finance.failures.tasks import TOKENS, call, crashed, failed, failure, fleet, task


def test_a_stage_has_its_own_failures_and_shares_of_all_spend() -> None:
    records = fleet(crashed(3), crashed(1, "acme:T-2", answered=True), failed(2, 1, "acme:T-3"), of=10)
    (whole,) = failure_costs(facts_of(records))
    stages = {scope.key[0]: scope for scope in failure_costs(facts_of(records), (Dimension.STAGE,))}
    assert {stage: scope.every.failed for stage, scope in stages.items()} == {
        "classify": 1,
        "draft_refund": 1,
        "retrieve_account": 1,
    }
    assert {scope.tasks for scope in stages.values()} == {10}
    assert spent(stages["retrieve_account"].clean) == 0
    shares = [share.share.value for scope in stages.values() for share in scope.every.repeated if share.share]
    assert sum(shares) == whole.every.repeated[0].share.value == Decimal("0.15")  # type: ignore[union-attr]
    assert stages["draft_refund"].durable[0].contracted_cost == cents("0.003")
    assert stages["classify"].durable[0].contracted_cost == 0


def test_tenants_are_separate() -> None:
    records = [*fleet(crashed(3), of=4), crashed(1, "globex:T-1", answered=True), task("lumen:T-1")]
    scopes = {scope.key[0]: scope for scope in failure_costs(facts_of(records), (Dimension.TENANT,))}
    assert {tenant: (scope.tasks, scope.failures) for tenant, scope in scopes.items()} == {
        "acme": (4, 1),
        "globex": (1, 1),
        "lumen": (1, 0),
    }
    assert [value(share)[2] for share in scopes["globex"].crashes.repeated] == [Decimal("0.25")]
    both = {
        scope.key: scope.failures for scope in failure_costs(facts_of(records), (Dimension.TENANT, Dimension.STAGE))
    }
    assert both["acme", "draft_refund"] == 1
    assert both["lumen", "classify"] == 0


def test_a_tenant_without_charges_has_a_scope() -> None:
    idle = replace(task("globex:T-1"), charges=())
    assert [scope.key for scope in failure_costs(facts_of([idle]), (Dimension.TENANT,))] == [("globex",)]
    assert failure_costs(facts_of([idle]), (Dimension.STAGE,)) == ()


def test_currencies_are_never_added() -> None:
    euros = tuple(call(number, model="model-e", task_id="acme:T-2") for number in TOKENS)
    in_euros = task("acme:T-2", calls=euros, failures=(failure(2, 3, 4),))
    scope = part(crashed(3), in_euros)
    shares = {share.currency: value(share)[1:] for share in scope.crashes.repeated}
    assert shares == {"EUR": (cents("0.001"), Decimal("0.25")), "USD": (cents("0.004"), Decimal("1"))}
    assert {bound.currency: bound.at_most for bound in scope.crashes.bounds} == {
        "EUR": cents("0.004"),
        "USD": cents("0.004"),
    }
    mixed = tuple(call(number, model=model) for number, model in zip(TOKENS, ("model-a", "model-e"), strict=True))
    both = part(task(calls=mixed, failures=(failure(2, 3, 4),))).crashes
    assert (both.restarts, both.unknown, both.progress) == (1, 1, None)


@pytest.mark.parametrize(
    "changes",
    [{"model": "new"}, {"usage": NOT_REPORTED}],
)
def test_a_call_with_an_unknown_price_or_usage_makes_the_progress_unknown(changes: object) -> None:
    assert isinstance(changes, dict)
    odd = task(calls=(call(1), call(3, **changes)), failures=(failure(2, 3, 4),))
    crashes = part(odd, crashed(3, "acme:T-2")).crashes
    assert (crashes.restarts, crashes.unknown) == (2, 1)
    assert crashes.progress is not None
    assert (crashes.progress.count, crashes.progress.mean) == (1, Decimal("0.25"))
    scope = part(odd)
    assert scope.clean.unpriced + scope.clean.unreported > 0
