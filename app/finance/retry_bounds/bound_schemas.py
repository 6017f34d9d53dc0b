"""What `doctor retries` shows, as documented JSON: figures beside their limits and beside what was measured."""

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
    """How many times each layer multiplies; null without a bound."""

    client: int | None
    sdk: int
    sidecar: int | None
    workflow: int


class BoundedStepView(Frozen):
    """A step that asks the target, and how many such steps a task may have."""

    name: str
    per_task: int


class CostView(Frozen):
    """Money of one step at worst."""

    amount: _Exact
    currency: Currency


class MeasuredView(Frozen):
    """What steps did so far: how many there were, what they asked in all, on average and at most."""

    steps: int
    requests: int
    mean: _Exact
    most: int


class TargetView(Frozen):
    """One target. `requests_*` and `seconds_until_parked` are null without a bound. `billed_requests_per_step`: how
    many may be lost after the model has probably worked. `over` names the limits passed."""

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
    """What is wrong with a file, or has no effect there."""

    where: str
    problem: str
    wrong: bool


class RetryBoundsView(Frozen):
    """All of it. `ok`: no limit is passed and no file is wrong."""

    ok: bool
    limits: RetryLimits
    targets: tuple[TargetView, ...]
    findings: tuple[PolicyFindingView, ...]


def mean(requests: int, steps: int) -> Decimal:
    """Requests of a step on average, to three places."""
    return (Decimal(requests) / Decimal(steps)).quantize(Decimal("0.001"))


def target_view(worst: Worst, limits: RetryLimits, measured: MeasuredView | None) -> TargetView:
    """The worst of a target beside its limits."""
    parked = worst.until_parked
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
        seconds_until_parked=None if parked is None else parked.total_seconds(),
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
    """Everything, with the verdict."""
    shown = tuple(PolicyFindingView.model_validate(finding, from_attributes=True) for finding in findings)
    ok = not any(target.over for target in targets) and not any(finding.wrong for finding in shown)
    return RetryBoundsView(ok=ok, limits=limits, targets=targets, findings=shown)
