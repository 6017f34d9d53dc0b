"""The JSON of `doctor retries`: figures with their limits, and measured figures."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import PlainSerializer

from app.config.policy import RetryLimits
from app.domain.models import Currency, Frozen
from app.domain.money import plain
from app.finance.retry_bounds.policies import PolicyFinding
from app.finance.retry_bounds.worst import Over, TargetKind, Worst

_Exact = Annotated[Decimal, PlainSerializer(plain, return_type=str)]


class LayersView(Frozen):
    """The factor of each layer; null without a bound."""

    client: int | None
    sdk: int
    sidecar: int | None
    workflow: int


class BoundedStepView(Frozen):
    """A step that calls the target, and how many such steps a task may have."""

    name: str
    per_task: int


class CostView(Frozen):
    """The most that one step may cost, in one currency."""

    amount: _Exact
    currency: Currency


class MeasuredView(Frozen):
    """Measured figures: the number of steps, their requests in total, on average, and of the step with the most."""

    steps: int
    requests: int
    mean: _Exact
    most: int


class TargetView(Frozen):
    """One target. `requests_*` and `seconds_until_parked` are null without a bound. `billed_requests_per_step`: how
    many requests may fail after the model has probably worked. `over`: the exceeded limits."""

    name: str
    kind: TargetKind
    type: str
    layers: LayersView
    steps: tuple[BoundedStepView, ...]
    requests_per_step: int | None
    billed_requests_per_step: int | None
    requests_per_task: int | None
    requests_limit: int
    seconds_until_parked: float | None
    money_per_step: tuple[CostView, ...]
    priced_models: tuple[str, ...]
    unpriced_models: tuple[str, ...]
    over: tuple[Over, ...]
    notes: tuple[str, ...]
    measured: MeasuredView | None


class PolicyFindingView(Frozen):
    """A fault in a file (`wrong`), or a setting without effect."""

    where: str
    problem: str
    wrong: bool


class RetryBoundsView(Frozen):
    """The worst cases of all targets. `ok`: no limit is exceeded and no file has a fault."""

    ok: bool
    limits: RetryLimits
    targets: tuple[TargetView, ...]
    findings: tuple[PolicyFindingView, ...]


def mean(requests: int, steps: int) -> Decimal:
    """Requests of a step on average, to three decimal places."""
    return (Decimal(requests) / Decimal(steps)).quantize(Decimal("0.001"))


def target_view(worst: Worst, limits: RetryLimits, measured: MeasuredView | None) -> TargetView:
    """The JSON of a target's worst case, with its limits and measured figures."""
    until_parked = worst.until_parked
    return TargetView(
        name=worst.target.name,
        kind=worst.target.kind,
        type=worst.target.type,
        layers=LayersView.model_validate(worst.layers, from_attributes=True),
        steps=tuple(BoundedStepView(name=calls.step, per_task=calls.per_task) for calls in worst.calls),
        requests_per_step=worst.requests,
        billed_requests_per_step=worst.layers.billed_requests,
        requests_per_task=worst.per_task,
        requests_limit=worst.limit(limits),
        seconds_until_parked=None if until_parked is None else until_parked.total_seconds(),
        money_per_step=tuple(
            CostView(amount=amount, currency=currency) for currency, amount in sorted(worst.money.items())
        ),
        priced_models=worst.price.models,
        unpriced_models=worst.price.unpriced,
        over=worst.over(limits),
        notes=worst.notes,
        measured=measured,
    )


def view(targets: tuple[TargetView, ...], findings: tuple[PolicyFinding, ...], limits: RetryLimits) -> RetryBoundsView:
    """The JSON of all targets and findings, with the verdict."""
    finding_views = tuple(PolicyFindingView.model_validate(finding, from_attributes=True) for finding in findings)
    ok = not any(target.over for target in targets) and not any(finding.wrong for finding in finding_views)
    return RetryBoundsView(ok=ok, limits=limits, targets=targets, findings=finding_views)
