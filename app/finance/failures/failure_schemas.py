"""What failures cost, for programs: the JSON of the command line and of the HTTP API. Its keys stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.finance.failures.failure_figures import CostShare, Facts, FailureScope, Runner, SpendRole, parts
from app.finance.failures.intervals import rounded
from app.finance.report_schemas import Exact, GroupView, Selection, View, group_view
from app.finance.rollup import Dimension, Group

# As many failed tasks as a figure is worth looking at for. What happens k times is known to 95 % within a factor of 7
# for 5 (1.6 to 11.7) and of 4 for 10 (4.8 to 18.4); shares of spend need the more, since tasks cost unequally much.
ENOUGH_FOR_RATES = 5
ENOUGH_FOR_SHARES = 10


class IntervalView(View):
    """A figure with the ends of its 95 % interval."""

    value: Exact
    low: Exact
    high: Exact


class ProgressView(View):
    """Where in its clean model spend a task was at `count` restarts: 0 nothing was paid, 1 all of it."""

    count: int
    mean: Exact
    lower: Exact
    median: Exact
    upper: Exact


class CauseView(View):
    """How many failures of a kind had a cause, and in how many tasks."""

    kind: str
    cause: str
    failures: int
    tasks: int


class ShareView(View):
    """Model spend in one currency, and as a share of the clean model spend of all stages; null without any."""

    currency: str
    contracted_cost: Exact
    share: IntervalView | None


class RepeatedView(ShareView):
    """What a restart from zero would have repeated. `at_most`: failure rate x clean model spend; `by_progress`: x mean
    progress as well. `durable_ratio`: what durable resume repeated, for each of it."""

    at_most: Exact | None
    by_progress: Exact | None
    durable_ratio: Exact | None


class RunnerView(View):
    """A runner without a record that begins again at the first step. `replay`, `journal` and `under_way` are what it
    would have paid again, by what prevented it; `unknown_progress` restarts have no progress that is known."""

    failed_tasks: int
    failure_rate: IntervalView | None
    restarts: int
    progress: ProgressView | None
    unknown_progress: int
    replay: GroupView
    journal: GroupView
    under_way: GroupView
    repeated: tuple[RepeatedView, ...]
    enough: bool
    note: str


class PartView(View):
    """The figures of all tasks, or of those with the `key`. `wasted` is what was measured; `durable` its model
    spend."""

    key: dict[str, str]
    tasks: int
    failures: int
    causes: tuple[CauseView, ...]
    clean: GroupView
    wasted: GroupView
    durable: tuple[ShareView, ...]
    crashes: RunnerView
    every_failure: RunnerView


class FailureCostView(Selection):
    """What failures cost, of the tasks that ended on the selected days."""

    total: PartView
    by_tenant: tuple[PartView, ...]
    by_stage: tuple[PartView, ...]
    by_tenant_and_stage: tuple[PartView, ...]
    enough: bool
    note: str


def failures_view(facts: Facts, selection: Selection) -> FailureCostView:
    """All the figures."""
    (total,) = _parts(facts, ())
    return FailureCostView(
        **dict(selection),
        total=total,
        by_tenant=_parts(facts, (Dimension.TENANT,)),
        by_stage=_parts(facts, (Dimension.STAGE,)),
        by_tenant_and_stage=_parts(facts, (Dimension.TENANT, Dimension.STAGE)),
        enough=total.every_failure.enough,
        note=total.every_failure.note,
    )


def note(tasks: int, failed: int, what: str = "failed") -> str:
    """What is to be said of so many failed tasks; empty when they are enough."""
    if not tasks:
        return "no task ended in this time"
    if failed >= ENOUGH_FOR_SHARES:
        return ""
    text = f"{failed} of {tasks:,} tasks {what}"
    if failed >= ENOUGH_FOR_RATES:
        return f"{text}: enough for a rate, too few for shares of spend ({ENOUGH_FOR_SHARES}); look at the intervals"
    few = f"rates ({ENOUGH_FOR_RATES}) and for shares of spend ({ENOUGH_FOR_SHARES})"
    return f"{text}: too few for {few}; look at the intervals"


def _parts(facts: Facts, by: Sequence[Dimension]) -> tuple[PartView, ...]:
    names = [dimension.value for dimension in by]
    return tuple(_part(part, dict(zip(names, part.key, strict=True))) for part in parts(facts, by))


def _part(part: FailureScope, key: dict[str, str]) -> PartView:
    return PartView(
        key=key,
        tasks=part.tasks,
        failures=part.failures,
        causes=tuple(CauseView.model_validate(cause) for cause in part.causes),
        clean=_group(part.clean),
        wasted=_group(part.wasted),
        durable=tuple(ShareView.model_validate(share) for share in part.durable),
        crashes=_runner(part, part.crashes, note(part.tasks, part.crashes.failed, "crashed")),
        every_failure=_runner(part, part.every, note(part.tasks, part.every.failed)),
    )


def _group(group: Group) -> GroupView:
    """A sum of the part that it stands in, which has the key."""
    return group_view(replace(group, key=()))


def _runner(part: FailureScope, runner: Runner, note_text: str) -> RunnerView:
    return RunnerView(
        failed_tasks=runner.failed,
        failure_rate=IntervalView.model_validate(runner.rate) if runner.rate else None,
        restarts=runner.restarts,
        progress=ProgressView.model_validate(runner.progress) if runner.progress else None,
        unknown_progress=runner.unknown,
        **{
            role.value: _group(runner.prevented[role])
            for role in (SpendRole.REPLAY, SpendRole.JOURNAL, SpendRole.UNDER_WAY)
        },
        repeated=tuple(_repeated(part, runner, share) for share in runner.repeated),
        enough=not note_text,
        note=note_text,
    )


def _repeated(part: FailureScope, runner: Runner, share: CostShare) -> RepeatedView:
    bound = next((candidate for candidate in runner.bounds if candidate.currency == share.currency), None)
    durable = next((durable.contracted_cost for durable in part.durable if durable.currency == share.currency), None)
    return RepeatedView(
        currency=share.currency,
        contracted_cost=share.contracted_cost,
        share=IntervalView.model_validate(share.share) if share.share else None,
        at_most=bound.at_most if bound else None,
        by_progress=bound.by_progress if bound else None,
        durable_ratio=rounded((durable or 0) / share.contracted_cost) if share.contracted_cost else None,
    )
