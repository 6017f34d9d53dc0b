"""What failures cost, the long way: loops over whole records, and fractions. Shares no reckoning with the product.

`facts_of` gathers what the ledger's SQL gathers; `figures` reckons from the records themselves what the product
reckons from those facts.
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
    """The tasks that ended on these days."""
    return [
        record
        for record in records
        if record.ended_at is not None
        and (since is None or record.ended_at.date() >= since)
        and (until is None or record.ended_at.date() < until)
        and (tenants is None or record.tenant in tenants)
    ]


class Told:
    """One task, taken apart."""

    def __init__(self, record: TaskRecord) -> None:
        self.record = record
        self.charges = effective_charges(record.charges)
        self.step_of = {step.execution_id: step for step in record.steps}
        self.numbered = {step.step: step for step in record.steps}

    def failures(self) -> list[FailureRecord]:
        """In the order in which they came."""
        return sorted(self.record.failures, key=lambda each: each.at)

    def stage(self, failure: FailureRecord) -> str:
        """Of the step that failed."""
        return self.numbered[failure.step].stage

    def clean(self) -> list[Charge]:
        """Model charges that are not wasted."""
        return [charge for charge in self.charges if charge.kind is CostKind.MODEL and not charge.wasted]

    def restarts(self, place: int) -> bool:
        """Whether a runner without a record would have begun again at the failure in this place."""
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
        """What stood when it failed, and what kept it from being paid again."""
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
    """When a step was completed, if it was."""
    return next((each.ended_at for each in step.attempts if each.outcome is AttemptOutcome.COMPLETED), None)


def money(charges: Iterable[Charge]) -> dict[str, Fraction]:
    """By currency."""
    found: defaultdict[str, Fraction] = defaultdict(Fraction)
    for charge in charges:
        if charge.currency is not None and charge.contracted_cost is not None:
            found[charge.currency] += Fraction(charge.contracted_cost)
    return dict(found)


def weighed(charges: Iterable[Charge]) -> dict[str, int]:
    """The same as whole numbers."""
    found = {currency: amount * 10 ** (6 + DECIMALS) for currency, amount in money(charges).items()}
    assert all(amount.denominator == 1 for amount in found.values())
    return {currency: int(amount) for currency, amount in found.items()}


def is_known(charges: Iterable[Charge]) -> bool:
    """Whether all that they cost is known; what was not used costs nothing, whatever its price."""
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
    """What the ledger tells of these records."""
    chosen = [Told(record) for record in ended_in(records, since, until, tenants)]
    return Facts(
        ended=dict(Counter(told.record.tenant for told in chosen)),
        failures=tuple(each for task, told in enumerate(chosen) for each in _failures(task, told)),
        wasted_spend=tuple(each for task, told in enumerate(chosen) for each in _vain(task, told)),
        sums=tuple(each for told in chosen for each in _sums(told)),
    )


def _failures(task: int, told: Told) -> Iterator[FailureFact]:
    clean = told.clean()
    for place, failure in enumerate(told.failures()):
        restarts = told.restarts(place)
        before = [c for _, c in told.paid(failure) if c.kind is CostKind.MODEL]
        sums, firsts = weighed(clean), weighed(before)
        spent = tuple(Spent(name, firsts.get(name, 0), sums[name]) for name in sorted(sums) if sums[name])
        names = (told.record.tenant, told.stage(failure), failure.kind.value, failure.cause.value)
        progress = progress_of(spent, whole=is_known(clean)) if restarts else None
        yield FailureFact(task, *names, restarts, progress, spent)


def _vain(task: int, told: Told) -> Iterator[WastedSpend]:
    failed = {failure.step for failure in told.failures()}
    lost: defaultdict[str, list[Charge]] = defaultdict(list)
    for charge in told.charges:
        if charge.wasted and charge.kind is CostKind.MODEL and told.step_of[charge.execution_id].step in failed:
            lost[charge.stage].append(charge)
    for stage, charges in lost.items():
        for currency, spent in weighed(charges).items():
            if spent:
                yield WastedSpend(task, told.record.tenant, stage, currency, spent)


def _sums(told: Told) -> Iterator[Sum]:
    for charge in told.charges:
        yield Sum(SpendRole.WASTED if charge.wasted else SpendRole.CLEAN, False, replace(charge, wasted=False), 1)
    for place, failure in enumerate(told.failures()):
        if told.restarts(place):
            crash = failure.kind is FailureKind.INTERRUPTED
            for role, charge in told.paid(failure):
                yield Sum(role, crash, replace(charge, stage=told.stage(failure)), 1)


@dataclass
class Figures:
    """What a runner would have come to."""

    tasks: int = 0
    failed: int = 0
    restarts: int = 0
    progress: list[Fraction] = field(default_factory=list)
    clean: dict[str, Fraction] = field(default_factory=dict)
    durable: dict[str, Fraction] = field(default_factory=dict)
    prevented: dict[SpendRole, dict[str, Fraction]] = field(default_factory=dict)
    tokens: dict[SpendRole, int] = field(default_factory=dict)


def figures(records: Sequence[TaskRecord], *, crashes_alone: bool, stage: str | None = None) -> Figures:
    """Of tasks that have ended; of failures at a stage's steps."""
    found = Figures(tasks=len(records))
    roles: defaultdict[SpendRole, list[Charge]] = defaultdict(list)
    clean: list[Charge] = []
    lost: list[Charge] = []
    for record in records:
        told = Told(record)
        clean += told.clean()
        lost += [c for c in told.charges if c.wasted and c.kind is CostKind.MODEL and stage in (None, c.stage)]
        places = [
            (place, failure)
            for place, failure in enumerate(told.failures())
            if stage in (None, told.stage(failure)) and (failure.kind is FailureKind.INTERRUPTED or not crashes_alone)
        ]
        found.failed += bool(places)
        for place, failure in places:
            if told.restarts(place):
                found.restarts += 1
                before = [(role, charge) for role, charge in told.paid(failure) if charge.kind is CostKind.MODEL]
                for role, charge in before:
                    roles[role].append(charge)
                whole = {name: amount for name, amount in money(told.clean()).items() if amount}
                if is_known(told.clean()) and len(whole) == 1:
                    (currency,) = whole
                    spent = money(charge for _, charge in before).get(currency, Fraction(0))
                    found.progress.append(spent / whole[currency])
    found.clean, found.durable = money(clean), money(lost)
    found.prevented = {role: money(charges) for role, charges in roles.items()}
    found.tokens = {role: int(sum(c.consumed_quantity or 0 for c in charges)) for role, charges in roles.items()}
    return found
