"""Failure rates, wasted spend and the cost of restarting from zero: for all tasks, by tenant, by stage, by both."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple, TypeVar

from app.domain.money import ZERO, add, product
from app.finance.failures.intervals import Interval, Quartiles, quartiles, share_of_sum, wilson
from app.finance.rollup import Dimension, Group, rollup_sums
from app.pricing.charge_types import Charge, CostKind

# The facts, as `app/ledger/reading/failure_facts.py` reads them: one value for each failure, and sums of charges.

INTERRUPTED = "interrupted"  # the kind of a failure that was a crash; any other is an attempt that ended with an error


class SpendRole(StrEnum):
    """What a sum of charges paid for. The last three were paid once; a restart from zero would have paid them again."""

    CLEAN = "clean"  # all charges that are not wasted
    WASTED = "wasted"  # work that brought no result
    REPLAY = "replay"  # steps completed before the failure: their results came from the history
    JOURNAL = "journal"  # answers that the repeated execution found in the journal
    UNDER_WAY = "under_way"  # calls in flight at the failure that still completed their own step


class Spent(NamedTuple):
    """Clean model spend of a failed task in one currency, in the unit of `weights`: before the failure, and in all."""

    currency: str
    before: int
    clean: int


def progress_of(spent: Sequence[Spent], *, whole: bool) -> Decimal | None:
    """The share of its clean model spend that a task had paid at a failure, from 0 to 1.

    None if it is unknown: the task spent nothing, or spent in several currencies, or `spent` is not the `whole`
    because a price or a usage is missing.
    """
    if not whole or len(spent) != 1 or not spent[0].clean:
        return None
    return Decimal(spent[0].before) / Decimal(spent[0].clean)


class FailureFact(NamedTuple):
    """One failure of a task that has ended.

    restarts: whether a runner without a record would have started again here. progress: see `progress_of`; None if
    there is no restart. spent: one entry for each currency.
    """

    task: int
    tenant: str
    stage: str
    kind: str
    cause: str
    restarts: bool
    progress: Decimal | None
    spent: tuple[Spent, ...]

    @property
    def crash(self) -> bool:
        """Whether the worker or sidecar was lost, rather than the attempt ending with an error."""
        return self.kind == INTERRUPTED


class WastedSpend(NamedTuple):
    """Wasted model spend of one task, stage and currency, in the unit of `weights`."""

    task: int
    tenant: str
    stage: str
    currency: str
    spent: int


class Sum(NamedTuple):
    """Charges with the same role, price and dimensions, summed into one, and their number (`times`).

    The stage of a prevented charge is that of the failed step, of any other its own. crash: whether the restart that
    would have repeated the charges was that of a crash. `charge.wasted` is never set: the role says it, and the sums by
    kind show what the wasted work was charged for.
    """

    role: SpendRole
    crash: bool
    charge: Charge
    times: int


@dataclass(frozen=True)
class Facts:
    """The input of the figures, for the tasks that ended in a period. `ended`: the number of tasks by tenant."""

    ended: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[FailureFact] = ()
    wasted_spend: Sequence[WastedSpend] = ()
    sums: Sequence[Sum] = ()


# Spend of single tasks is summed in whole numbers, which is fast and exact. It is only used for proportions within a
# currency (progress, intervals); money is always a quantity times its price.


def weights(prices: Mapping[int, tuple[str, Decimal]]) -> dict[int, tuple[str, int]]:
    """Currency and weight of each price, by its number. The weight is the price times a power of ten, the same for
    all prices, that leaves no decimals."""
    decimals = max((-int(price.as_tuple().exponent) for _, price in prices.values()), default=0)
    factor = 10 ** max(decimals, 0)
    return {number: (currency, int(Fraction(price) * factor)) for number, (currency, price) in prices.items()}


PREVENTED = (SpendRole.REPLAY, SpendRole.JOURNAL, SpendRole.UNDER_WAY)
Key = tuple[str, ...]
Groups = Mapping[Key, Group]
_Fact = TypeVar("_Fact", FailureFact, WastedSpend)
_NOTHING = rollup_sums(()).total


@dataclass(frozen=True, slots=True)
class CostShare:
    """Model spend in one currency, and as a share of the clean model spend (None if that is zero)."""

    currency: str
    contracted_cost: Decimal
    share: Interval | None


@dataclass(frozen=True, slots=True)
class Bound:
    """The upper bound of what restarts from zero repeat, in one currency: failure rate x clean model spend, and that
    x mean progress (None if no progress is known)."""

    currency: str
    at_most: Decimal
    by_progress: Decimal | None


@dataclass(frozen=True, slots=True)
class Runner:
    """The figures of a runner without a record that restarts from zero, at crashes or at every failure.

    failed: tasks with such a failure. unknown: restarts with unknown progress. prevented: charges that the runner
    would have paid again, by what prevented it here. repeated: prevented and measured model spend together.
    """

    failed: int
    rate: Interval | None
    restarts: int
    progress: Quartiles | None
    unknown: int
    bounds: tuple[Bound, ...]
    prevented: Mapping[SpendRole, Group]
    repeated: tuple[CostShare, ...]


@dataclass(frozen=True, slots=True)
class CauseCount:
    """The number of failures of one kind and cause, and of the tasks that had them."""

    kind: str
    cause: str
    failures: int
    tasks: int


@dataclass(frozen=True, slots=True)
class FailureScope:
    """The figures of all tasks, or of a tenant, a stage, or both.

    A stage counts the failures of its steps, and all tasks, because any task might have failed there. Shares are of
    the clean model spend of all stages, so the shares of the stages add up.
    crashes, every: a runner that restarts only at crashes, and one that restarts at every failure.
    """

    key: Key
    tasks: int
    failures: int
    causes: tuple[CauseCount, ...]
    clean: Group
    wasted: Group
    durable: tuple[CostShare, ...]
    crashes: Runner
    every: Runner


@dataclass(frozen=True)
class _Scope:
    """The input of one part. `spend`: the clean model spend of all stages, by currency."""

    key: Key
    tasks: int
    spend: Mapping[str, Decimal]
    failures: Sequence[FailureFact]
    wasted_spend: Sequence[WastedSpend]
    wasted: Group


def failure_costs(facts: Facts, by: Sequence[Dimension] = ()) -> tuple[FailureScope, ...]:
    """The figures for each combination of the dimensions (tenant, stage, or both), ordered by key; without dimensions,
    those of all tasks."""
    across = tuple(dimension for dimension in by if dimension is not Dimension.STAGE)
    failures, wasted_spend = _keyed(facts.failures, by), _keyed(facts.wasted_spend, by)
    clean, wasted = _grouped(facts.sums, by, SpendRole.CLEAN), _grouped(facts.sums, by, SpendRole.WASTED)
    whole = _grouped(facts.sums, across, SpendRole.CLEAN)
    prevented = [
        {role: _grouped(facts.sums, by, role, crashes_alone=alone) for role in PREVENTED} for alone in (True, False)
    ]
    scopes = []
    for key in _keys(facts, by, failures, clean, wasted):
        tasks = facts.ended.get(key[0], 0) if across else sum(facts.ended.values())
        spend = model_money(whole.get(key[: len(across)], _NOTHING))
        scope = _Scope(key, tasks, spend, failures.get(key, ()), wasted_spend.get(key, ()), wasted.get(key, _NOTHING))
        runners = (
            _runner(scope, {role: groups.get(key, _NOTHING) for role, groups in sums.items()}, crashes_alone=alone)
            for sums, alone in zip(prevented, (True, False), strict=True)
        )
        scopes.append(_part(scope, clean.get(key, _NOTHING), *runners))
    return tuple(scopes)


def model_money(group: Group) -> dict[str, Decimal]:
    """The contracted cost of a group's model calls, by currency."""
    kinds = {sum_.currency: sum_.by_kind.get(CostKind.MODEL.value) for sum_ in group.money}
    return {currency: amount for currency, amount in kinds.items() if amount is not None}


def _keys(facts: Facts, by: Sequence[Dimension], *groups: Iterable[Key]) -> list[Key]:
    """The keys of all parts. A tenant without failures and charges has a part; so has the whole."""
    keys = {key for group in groups for key in group}
    if tuple(by) == (Dimension.TENANT,):
        keys |= {(tenant,) for tenant in facts.ended}
    return sorted(keys) if by else [()]


def _keyed(facts: Iterable[_Fact], by: Sequence[Dimension]) -> dict[Key, list[_Fact]]:
    names = [dimension.value for dimension in by]
    by_key: defaultdict[Key, list[_Fact]] = defaultdict(list)
    for fact in facts:
        by_key[tuple(getattr(fact, name) for name in names)].append(fact)
    return by_key


def _grouped(sums: Iterable[Sum], by: Sequence[Dimension], role: SpendRole, *, crashes_alone: bool = False) -> Groups:
    chosen = ((sum_.charge, sum_.times) for sum_ in sums if sum_.role is role and (sum_.crash or not crashes_alone))
    summed = rollup_sums(chosen, by)
    return {group.key: group for group in summed.groups}


def _part(scope: _Scope, clean: Group, crashes: Runner, every: Runner) -> FailureScope:
    return FailureScope(
        key=scope.key,
        tasks=scope.tasks,
        failures=len(scope.failures),
        causes=_causes(scope.failures),
        clean=clean,
        wasted=scope.wasted,
        durable=_shares(scope, model_money(scope.wasted), ()),
        crashes=crashes,
        every=every,
    )


def _causes(failures: Iterable[FailureFact]) -> tuple[CauseCount, ...]:
    """Causes, the most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    tasks: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for failure in failures:
        counts[failure.kind, failure.cause] += 1
        tasks[failure.kind, failure.cause].add(failure.task)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(CauseCount(*key, count, len(tasks[key])) for key, count in ordered)


def _runner(scope: _Scope, prevented: Mapping[SpendRole, Group], *, crashes_alone: bool) -> Runner:
    chosen = [failure for failure in scope.failures if failure.crash or not crashes_alone]
    failed = len({failure.task for failure in chosen})
    restarts = [failure for failure in chosen if failure.restarts]
    positions = [failure.progress for failure in restarts if failure.progress is not None]
    rate, progress = wilson(failed, scope.tasks), quartiles(positions)
    return Runner(
        failed=failed,
        rate=rate,
        restarts=len(restarts),
        progress=progress,
        unknown=len(restarts) - len(positions),
        bounds=tuple(_bound(currency, spend, rate, progress) for currency, spend in sorted(scope.spend.items())),
        prevented=prevented,
        repeated=_shares(scope, _add_up(model_money(group) for group in (scope.wasted, *prevented.values())), restarts),
    )


def _bound(currency: str, spend: Decimal, rate: Interval | None, progress: Quartiles | None) -> Bound:
    at_most = product(spend, rate.value) if rate else ZERO
    return Bound(currency, at_most, product(at_most, progress.mean) if progress else None)


def _add_up(moneys: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    """The amounts summed by currency."""
    sums: dict[str, Decimal] = {}
    for amounts in moneys:
        for currency, amount in amounts.items():
            sums[currency] = add(sums.get(currency, ZERO), amount)
    return sums


def _shares(scope: _Scope, amounts: Mapping[str, Decimal], restarts: Iterable[FailureFact]) -> tuple[CostShare, ...]:
    """The amount of each currency as a share of the clean spend, with an interval from what single tasks lost."""
    by_task: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for lost in scope.wasted_spend:
        by_task[lost.currency][lost.task] += lost.spent
    for failure in restarts:
        for spent in failure.spent:
            by_task[spent.currency][failure.task] += spent.before
    return tuple(
        _share(currency, amounts.get(currency, ZERO), spend, by_task[currency].values(), scope.tasks)
        for currency, spend in sorted((dict.fromkeys(amounts, ZERO) | dict(scope.spend)).items())
    )


def _share(currency: str, amount: Decimal, spend: Decimal, weights: Iterable[int], tasks: int) -> CostShare:
    if spend <= 0:
        return CostShare(currency, amount, None)
    return CostShare(currency, amount, share_of_sum(amount / spend, weights, tasks))
