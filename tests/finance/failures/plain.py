"""What failures cost, computed independently of the product by loops over whole records, with fractions.

`facts_of` collects what the ledger's SQL collects; `figures` computes from the records what the product computes from
those facts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from fractions import Fraction

from app.dapr.history.model import AttemptOutcome
from app.domain.models import AnsweredBy
from app.finance.failures.failure_figures import Facts, FailureFact, SpendRole, Spent, Sum, WastedSpend, progress_of
from app.ledger.store.task_record import FailureKind, FailureRecord, StepRecord, TaskRecord
from app.pricing.charge_types import Charge, CostKind
from app.pricing.formula import effective_charges

DECIMALS = 12  # of prices, in tests


def ended_in(
    records: Iterable[TaskRecord], since: date | None, until: date | None, tenants: frozenset[str] | None
) -> list[TaskRecord]:
    """The records of the tenants' tasks that ended on these days."""
    return [
        record
        for record in records
        if record.ended_at is not None
        and (since is None or record.ended_at.date() >= since)
        and (until is None or record.ended_at.date() < until)
        and (tenants is None or record.tenant in tenants)
    ]


class TaskView:
    """One task with its charges and steps indexed."""

    def __init__(self, record: TaskRecord) -> None:
        self.record = record
        self.charges = effective_charges(record.charges)
        self.step_of = {step.execution_id: step for step in record.steps}
        self.numbered = {step.step: step for step in record.steps}

    def failures(self) -> list[FailureRecord]:
        """The failures in the order of their times."""
        return sorted(self.record.failures, key=lambda failure: failure.at)

    def stage(self, failure: FailureRecord) -> str:
        """The stage of the failed step."""
        return self.numbered[failure.step].stage

    def clean(self) -> list[Charge]:
        """The model charges that are not wasted."""
        return [charge for charge in self.charges if charge.kind is CostKind.MODEL and not charge.wasted]

    def restarts(self, place: int) -> bool:
        """Whether a runner without a record would have restarted at the failure with this index."""
        failures = self.failures()
        failure, before = failures[place], failures[:place]
        if failure.resumed_at is None and not any(c.execution_id and c.at > failure.at for c in self.charges):
            return False
        for other in before:
            if other.kind == failure.kind and failure.at < (other.resumed_at or other.at):
                return False
        if failure.kind is FailureKind.INTERRUPTED:
            return True
        last = next((other for other in reversed(before) if other.step == failure.step), None)
        return last is None or any(last.at <= c.at < failure.at for c in self.charges if not c.wasted)

    def paid(self, failure: FailureRecord) -> Iterator[tuple[SpendRole, Charge]]:
        """The charges before the failure that were not wasted, each with what prevented paying it again."""
        for charge in self.charges:
            step = self.step_of.get(charge.execution_id)
            if step is None or charge.wasted:
                continue
            own = step.step == failure.step
            ended = completed(step)
            if not own and ended is not None and ended <= failure.at:
                yield SpendRole.REPLAY, charge
            elif charge.kind is CostKind.MODEL and charge.at < ((failure.resumed_at if own else None) or failure.at):
                journal = step.answered_by is AnsweredBy.JOURNAL
                yield SpendRole.JOURNAL if journal else SpendRole.UNDER_WAY, charge


def completed(step: StepRecord) -> datetime | None:
    """When a step was completed; None if it was not."""
    return next((attempt.ended_at for attempt in step.attempts if attempt.outcome is AttemptOutcome.COMPLETED), None)


def money(charges: Iterable[Charge]) -> dict[str, Fraction]:
    """The costs by currency."""
    amounts: defaultdict[str, Fraction] = defaultdict(Fraction)
    for charge in charges:
        if charge.currency is not None and charge.contracted_cost is not None:
            amounts[charge.currency] += Fraction(charge.contracted_cost)
    return dict(amounts)


def weighed(charges: Iterable[Charge]) -> dict[str, int]:
    """The costs by currency as whole numbers."""
    amounts = {currency: amount * 10 ** (6 + DECIMALS) for currency, amount in money(charges).items()}
    assert all(amount.denominator == 1 for amount in amounts.values())
    return {currency: int(amount) for currency, amount in amounts.items()}


def is_known(charges: Iterable[Charge]) -> bool:
    """Whether all costs are known; a quantity of zero costs nothing at any price."""
    return all(
        charge.consumed_quantity is not None and (charge.contracted_cost is not None or not charge.consumed_quantity)
        for charge in charges
    )


def facts_of(
    records: Iterable[TaskRecord],
    since: date | None = None,
    until: date | None = None,
    tenants: frozenset[str] | None = None,
) -> Facts:
    """The facts that the ledger would return for these records."""
    chosen = [TaskView(record) for record in ended_in(records, since, until, tenants)]
    return Facts(
        ended=dict(Counter(view.record.tenant for view in chosen)),
        failures=tuple(fact for task, view in enumerate(chosen) for fact in _failures(task, view)),
        wasted_spend=tuple(spend for task, view in enumerate(chosen) for spend in _wasted_spend(task, view)),
        sums=tuple(sum_ for view in chosen for sum_ in _sums(view)),
    )


def _failures(task: int, view: TaskView) -> Iterator[FailureFact]:
    clean = view.clean()
    for place, failure in enumerate(view.failures()):
        restarts = view.restarts(place)
        before = [c for _, c in view.paid(failure) if c.kind is CostKind.MODEL]
        sums, firsts = weighed(clean), weighed(before)
        spent = tuple(Spent(name, firsts.get(name, 0), sums[name]) for name in sorted(sums) if sums[name])
        names = (view.record.tenant, view.stage(failure), failure.kind.value, failure.cause.value)
        progress = progress_of(spent, whole=is_known(clean)) if restarts else None
        yield FailureFact(task, *names, restarts, progress, spent)


def _wasted_spend(task: int, view: TaskView) -> Iterator[WastedSpend]:
    failed = {failure.step for failure in view.failures()}
    lost: defaultdict[str, list[Charge]] = defaultdict(list)
    for charge in view.charges:
        if charge.wasted and charge.kind is CostKind.MODEL and view.step_of[charge.execution_id].step in failed:
            lost[charge.stage].append(charge)
    for stage, charges in lost.items():
        for currency, spent in weighed(charges).items():
            if spent:
                yield WastedSpend(task, view.record.tenant, stage, currency, spent)


def _sums(view: TaskView) -> Iterator[Sum]:
    for charge in view.charges:
        yield Sum(SpendRole.WASTED if charge.wasted else SpendRole.CLEAN, False, replace(charge, wasted=False), 1)
    for place, failure in enumerate(view.failures()):
        if view.restarts(place):
            crash = failure.kind is FailureKind.INTERRUPTED
            for role, charge in view.paid(failure):
                yield Sum(role, crash, replace(charge, stage=view.stage(failure)), 1)


@dataclass
class Figures:
    """The figures of a runner without a record."""

    tasks: int = 0
    failed: int = 0
    restarts: int = 0
    progress: list[Fraction] = field(default_factory=list)
    clean: dict[str, Fraction] = field(default_factory=dict)
    durable: dict[str, Fraction] = field(default_factory=dict)
    prevented: dict[SpendRole, dict[str, Fraction]] = field(default_factory=dict)
    tokens: dict[SpendRole, int] = field(default_factory=dict)


def figures(records: Sequence[TaskRecord], *, crashes_alone: bool, stage: str | None = None) -> Figures:
    """The figures of ended tasks, for failures of any stage or of one."""
    result = Figures(tasks=len(records))
    roles: defaultdict[SpendRole, list[Charge]] = defaultdict(list)
    clean: list[Charge] = []
    lost: list[Charge] = []
    for record in records:
        view = TaskView(record)
        clean += view.clean()
        lost += [c for c in view.charges if c.wasted and c.kind is CostKind.MODEL and stage in (None, c.stage)]
        places = [
            (place, failure)
            for place, failure in enumerate(view.failures())
            if stage in (None, view.stage(failure)) and (failure.kind is FailureKind.INTERRUPTED or not crashes_alone)
        ]
        result.failed += bool(places)
        for place, failure in places:
            if view.restarts(place):
                result.restarts += 1
                before = [(role, charge) for role, charge in view.paid(failure) if charge.kind is CostKind.MODEL]
                for role, charge in before:
                    roles[role].append(charge)
                whole = {name: amount for name, amount in money(view.clean()).items() if amount}
                if is_known(view.clean()) and len(whole) == 1:
                    (currency,) = whole
                    spent = money(charge for _, charge in before).get(currency, Fraction(0))
                    result.progress.append(spent / whole[currency])
    result.clean, result.durable = money(clean), money(lost)
    result.prevented = {role: money(charges) for role, charges in roles.items()}
    result.tokens = {role: int(sum(c.consumed_quantity or 0 for c in charges)) for role, charges in roles.items()}
    return result
