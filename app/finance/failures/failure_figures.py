"""From what the ledger tells to the figures: for all tasks, by tenant, by stage, by both."""

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

# What the ledger tells of failures: frozen values, one for each failure, and sums of charges.

INTERRUPTED = "interrupted"  # a failure of this kind was a crash; of any other, an attempt that ended with an error


class SpendRole(StrEnum):
    """What a sum of charges stands for. All but the first two were paid once and would have been paid again."""

    CLEAN = "clean"  # charges that are not wasted
    WASTED = "wasted"  # work in vain
    REPLAY = "replay"  # of steps that were completed before the failure: their results came from history
    JOURNAL = "journal"  # of answers that a repeated execution of their step found in the journal
    UNDER_WAY = "under_way"  # of calls that were begun before, and brought their steps' answers themselves


class Spent(NamedTuple):
    """Model spend of a failure's task in one currency, in weights: before the failure, and in all. None that were
    wasted."""

    currency: str
    before: int
    clean: int


def progress_of(spent: Sequence[Spent], *, whole: bool) -> Decimal | None:
    """How much of its clean model spend a task had paid, from 0 to 1. None where that is not known: it spent nothing,
    or in several currencies; or it is not the `whole`, since a price or a usage is not known."""
    if not whole or len(spent) != 1 or not spent[0].clean:
        return None
    return Decimal(spent[0].before) / Decimal(spent[0].clean)


class FailureFact(NamedTuple):
    """One failure of a task that has ended.

    restarts: a runner without a record would have begun again here. progress: see `progress_of`; None where nothing
    restarts. spent: one for each currency.
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
        """Whether the process went away, rather than an attempt ending with an error."""
        return self.kind == INTERRUPTED


class WastedSpend(NamedTuple):
    """Model spend in vain of one task, stage and currency, in weights."""

    task: int
    tenant: str
    stage: str
    currency: str
    spent: int


class Sum(NamedTuple):
    """Charges that equal each other in role, price and so on, as one, and how many they are.

    Their stage is that of the failed step for what was prevented, else their own. crash: of a crash's restart.
    """

    role: SpendRole
    crash: bool
    charge: Charge
    times: int


@dataclass(frozen=True)
class Facts:
    """All that the figures are made of, for the tasks that ended in a period. `ended`: how many, by tenant."""

    ended: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[FailureFact] = ()
    wasted_spend: Sequence[WastedSpend] = ()
    sums: Sequence[Sum] = ()


# Prices as whole numbers: what single tasks spent is added up quickly, and exactly.
#
# Shares of a task's spend and intervals need no more than proportions within a currency. Sums of money are not made
# this way: they are made of quantities at one price.


def weights(prices: Mapping[int, tuple[str, Decimal]]) -> dict[int, tuple[str, int]]:
    """Currency and weight of each price: the price times a power of ten, the same one for all, that leaves no
    decimals."""
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
    """Model spend in one currency, and as a share of the clean model spend; None where there is none of that."""

    currency: str
    contracted_cost: Decimal
    share: Interval | None


@dataclass(frozen=True, slots=True)
class Bound:
    """What a restart from zero repeats at most, in one currency: failure rate x clean model spend, and that x mean
    progress; None where no progress is known."""

    currency: str
    at_most: Decimal
    by_progress: Decimal | None


@dataclass(frozen=True, slots=True)
class Runner:
    """A runner without a record, that begins again from zero at some failures.

    failed: tasks with such a failure. unknown: restarts of which the progress is not known. prevented: what it would
    have paid again and was not, by what prevented it. repeated: that and what is measured, in each currency.
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
    """How many failures of a kind had a cause, and in how many tasks."""

    kind: str
    cause: str
    failures: int
    tasks: int


@dataclass(frozen=True, slots=True)
class FailureScope:
    """The figures of all tasks, or of a tenant, a stage, or both.

    A stage has the failures of its steps, and all tasks, since each might have failed there. Shares are of the clean
    model spend of all stages: those of the stages add up.
    crashes, every: a runner that begins again at crashes alone, and one that does at every failure.
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
    """What a part is made of. `spend`: the clean model spend of all stages."""

    key: Key
    tasks: int
    spend: Mapping[str, Decimal]
    failures: Sequence[FailureFact]
    wasted_spend: Sequence[WastedSpend]
    wasted: Group


def parts(facts: Facts, by: Sequence[Dimension] = ()) -> tuple[FailureScope, ...]:
    """The figures for each combination of the dimensions (of tenant and stage), in the order of their keys; without
    any, those of all tasks."""
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
    """What a group's model calls cost, by currency."""
    kinds = {sum_.currency: sum_.by_kind.get(CostKind.MODEL.value) for sum_ in group.money}
    return {currency: amount for currency, amount in kinds.items() if amount is not None}


def _keys(facts: Facts, by: Sequence[Dimension], *groups: Iterable[Key]) -> list[Key]:
    """A tenant without failures and charges is one as well; so are all together."""
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
    """The most frequent first."""
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
    """Sums by currency."""
    sums: dict[str, Decimal] = {}
    for amounts in moneys:
        for currency, amount in amounts.items():
            sums[currency] = add(sums.get(currency, ZERO), amount)
    return sums


def _shares(scope: _Scope, amounts: Mapping[str, Decimal], restarts: Iterable[FailureFact]) -> tuple[CostShare, ...]:
    """One for each currency of the spend: what was in vain, and what would have been paid again at the restarts."""
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
