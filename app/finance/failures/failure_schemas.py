"""The JSON of what failures cost, of the command line and of the HTTP API. Its keys stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.finance.failures.failure_figures import CostShare, Facts, FailureScope, Runner, SpendRole, failure_costs
from app.finance.failures.intervals import rounded
from app.finance.report_schemas import Exact, GroupView, Selection, View, group_view
from app.finance.rollup import Dimension, Group

# The number of failed tasks from which a figure is meaningful. The 95 % interval of a count of 5 is 1.6 to 11.7 (a
# factor of 7), that of 10 is 4.8 to 18.4 (a factor of 4). Shares of spend need more, because tasks differ in cost.
ENOUGH_FOR_RATES = 5
ENOUGH_FOR_SHARES = 10


class IntervalView(View):
    """A figure with the ends of its 95 % interval."""

    value: Exact
    low: Exact
    high: Exact


class ProgressView(View):
    """The share of its clean model spend that a task had paid (0 to 1): mean and quartiles over `count` restarts."""

    count: int
    mean: Exact
    lower: Exact
    median: Exact
    upper: Exact


class CauseView(View):
    """The number of failures of one kind and cause, and of the tasks that had them."""

    kind: str
    cause: str
    failures: int
    tasks: int


class ShareView(View):
    """Model spend in one currency, and as a share of the clean model spend of all stages (null if that is zero)."""

    currency: str
    contracted_cost: Exact
    share: IntervalView | None


class RepeatedView(ShareView):
    """Model spend that restarts from zero would have repeated. `at_most`: failure rate x clean model spend;
    `by_progress`: x mean progress as well. `durable_ratio`: model spend that durable resume repeated / this spend."""

    at_most: Exact | None
    by_progress: Exact | None
    durable_ratio: Exact | None


class RunnerView(View):
    """The figures of a runner without a record that restarts at the first step. `replay`, `journal` and `under_way` are
    what it would have paid again, by what prevented it; `unknown_progress` counts restarts with unknown progress."""

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
    """The figures of all tasks, or of those with the `key`. `wasted`: measured charges of wasted work; `durable`: the
    model spend among them."""

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
    """What failures cost the tasks that ended on the selected days."""

    total: PartView
    by_tenant: tuple[PartView, ...]
    by_stage: tuple[PartView, ...]
    by_tenant_and_stage: tuple[PartView, ...]
    enough: bool
    note: str


def failures_view(facts: Facts, selection: Selection) -> FailureCostView:
    """The JSON of all figures: in total, by tenant, by stage, and by both."""
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


def note(tasks: int, failed: int, verb: str = "failed") -> str:
    """A remark on figures that rest on few failed tasks; empty if there are enough."""
    if not tasks:
        return "no task ended in this time"
    if failed >= ENOUGH_FOR_SHARES:
        return ""
    text = f"{failed} of {tasks:,} tasks {verb}"
    if failed >= ENOUGH_FOR_RATES:
        return f"{text}: enough for a rate, too few for shares of spend ({ENOUGH_FOR_SHARES}); look at the intervals"
    few = f"rates ({ENOUGH_FOR_RATES}) and for shares of spend ({ENOUGH_FOR_SHARES})"
    return f"{text}: too few for {few}; look at the intervals"


def _parts(facts: Facts, by: Sequence[Dimension]) -> tuple[PartView, ...]:
    names = [dimension.value for dimension in by]
    return tuple(_part(part, dict(zip(names, part.key, strict=True))) for part in failure_costs(facts, by))


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
    """The JSON of a sum without its key, which the part around it has."""
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
