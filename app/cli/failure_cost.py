"""`refund-agent cost failures`: what failures cost, and what they would have cost a runner that starts again from
zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from app.cli import opening
from app.cli.client import AsJson
from app.cli.opening import Since, Tenant, Until, known_tenants, selection, tenants, when
from app.cli.screen import (
    AsCsv,
    Column,
    CsvCell,
    Exact,
    Wide,
    figures,
    one_form,
    rounding,
    say,
    show_csv,
    show_json,
    show_table,
)
from app.domain.formatting import Digits, digits_for, percent, rounded, share_places
from app.finance.cost_texts import WORKFLOW, amounts, of_kind, remarks, tokens
from app.pricing.charge_types import TOKEN_METERS, CostKind

if TYPE_CHECKING:
    from app.finance.failures.failure_schemas import FailureCostView, IntervalView, PartView, RunnerView
    from app.finance.report_schemas import GroupView

FEW = "*"
_CURRENCY = Column("currency", common=True)
_RUNNERS: tuple[Column | str, ...] = (
    "begins again after",
    *figures("failure rate", "at most", "by progress", "restart from zero", "durable resume", "ratio"),
    _CURRENCY,
)
_MONEY: tuple[Column | str, ...] = (
    "model spend",
    *figures("crashes", "tokens", "every failure", "tokens", "compute", "orchestration"),
    _CURRENCY,
)
_PLACES: tuple[Column | str, ...] = (
    "tenant, stage",
    *figures("tasks", "failed", "failure rate", "progress", "from zero", "durable", "ratio"),
    _CURRENCY,
)
_CSV = (
    *("tenant", "stage", "tasks", "failed_tasks", "failures"),
    *("failure_rate", "failure_rate_low", "failure_rate_high", "currency"),
    *("durable_cost", "durable_share", "durable_share_low", "durable_share_high"),
    *("from_zero_cost", "from_zero_share", "from_zero_share_low", "from_zero_share_high", "ratio"),
)
_CAUSES: tuple[Column | str, ...] = ("kind", "cause", *figures("failures", "tasks"))


def failures(
    since: Since = None,
    until: Until = None,
    tenant: Tenant = None,
    exact: Exact = False,
    wide: Wide = False,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Says what failures cost the tasks that ended, and what starting again from zero would have cost."""
    from app.finance.failures.failure_schemas import failures_view

    one_form(as_csv=as_csv, as_json=as_json)
    chosen = selection(since, until, tenant)
    records = opening.open_records()
    known_tenants(chosen, records)
    view = failures_view(records.failures(chosen.since, chosen.until, tenants(chosen)), chosen)
    if as_json:
        show_json(view)
    else:
        show_csv(_CSV, _csv_rows(view)) if as_csv else _show(view, exact=exact)


def _show(view: FailureCostView, *, exact: bool) -> None:
    whole, digits = view.total, _digits_of(view.total, exact=exact)
    if whole.tasks:
        failed = f"{whole.every_failure.failed_tasks:,} of them failed, {whole.failures:,} times in all"
        say(f"{whole.tasks:,} tasks ended{when(view.since, view.until)}; {failed}")
        for line in _in_a_sentence(whole, digits):
            say(line)
        say("shares are of the clean model spend, with their 95 % intervals")
        _table(_RUNNERS, _runners(whole))
        _table(_MONEY, _sources(whole, digits))
        _table(_PLACES, _places(view))
        _table(_CAUSES, _causes(whole))
    for note in (*_notes(view), *rounding(digits)):
        say(f"note: {note}")


def _in_a_sentence(whole: PartView, digits: Digits) -> Iterator[str]:
    """What was wasted, and what it would have been, for those who read no table."""
    durable = {share.currency: share for share in whole.durable}
    for again in whole.every_failure.repeated:
        ours = durable.get(again.currency)
        if ours and ours.share and again.share:
            wasted = f"{digits.show(ours.contracted_cost, again.currency)} {again.currency} of model spend was wasted"
            cost = digits.show(again.contracted_cost, again.currency)
            zero = f"a restart from zero would have cost {cost} {again.currency}"
            yield f"{wasted} ({percent(ours.share.value)}); {zero} ({percent(again.share.value)})"


def _csv_rows(view: FailureCostView) -> Iterator[list[CsvCell]]:
    """A row for each part and currency, of all tasks (neither tenant nor stage) and of each cut of them; what any
    failure would have cost a runner that begins again."""
    for part in (view.total, *view.by_tenant, *view.by_stage, *view.by_tenant_and_stage):
        runner, durable = part.every_failure, {share.currency: share for share in part.durable}
        key = [part.key.get("tenant"), part.key.get("stage")]
        cells = [part.tasks, runner.failed_tasks, part.failures, *_ends(runner.failure_rate)]
        for again in runner.repeated:
            ours = durable.get(again.currency)
            resumed = [ours.contracted_cost, *_ends(ours.share)] if ours else [None] * 4
            yield [
                *key,
                *cells,
                again.currency,
                *resumed,
                again.contracted_cost,
                *_ends(again.share),
                again.durable_ratio,
            ]
        if not runner.repeated:
            yield [*key, *cells, *[None] * (len(_CSV) - len(key) - len(cells))]


def _ends(interval: IntervalView | None) -> list[Decimal | None]:
    return [interval.value, interval.low, interval.high] if interval else [None] * 3


def _digits_of(whole: PartView, *, exact: bool) -> Digits:
    runners = whole.crashes, whole.every_failure
    groups = [group for runner in runners for group in (runner.replay, runner.journal, runner.under_way)]
    again = [(share.contracted_cost, share.currency) for runner in runners for share in runner.repeated]
    durable = [(share.contracted_cost, share.currency) for share in whole.durable]
    return digits_for([*amounts(whole.wasted, *groups), *again, *durable], exact=exact)


def _table(columns: Sequence[Column | str], rows: Iterator[Sequence[str]]) -> None:
    """Below an empty line; none without rows."""
    if lines := list(rows):
        say("")
        show_table(columns, lines)


def _runners(whole: PartView) -> Iterator[tuple[str, ...]]:
    """The upper bound and what was measured, for who begins again after crashes, and for who does after any failure."""
    for name, runner in (("a crash", whole.crashes), ("any failure", whole.every_failure)):
        rate, at_most, by_progress = _interval(runner.failure_rate), "", ""
        if runner.failure_rate:
            at_most = percent(runner.failure_rate.value)
        if runner.failure_rate and runner.progress:
            by_progress = percent(runner.failure_rate.value * runner.progress.mean)
        for shares in _shares(whole, runner, with_ends=True):
            yield (name, rate, at_most, by_progress, *shares)
            name, rate, at_most, by_progress = "", "", "", ""


def _shares(part: PartView, runner: RunnerView, *, with_ends: bool) -> Iterator[tuple[str, str, str, str]]:
    """From zero, durable, the ratio, and the currency: for each of them."""
    durable = {share.currency: share.share for share in part.durable}
    for repeated in runner.repeated:
        ratio = "" if repeated.durable_ratio is None else rounded(repeated.durable_ratio, 2)
        from_zero = _interval(repeated.share, with_ends=with_ends)
        yield from_zero, _interval(durable.get(repeated.currency), with_ends=with_ends), ratio, repeated.currency
    if not runner.repeated:
        yield ("", "", "", "")


def _sources(whole: PartView, digits: Digits) -> Iterator[tuple[str, ...]]:
    """What was repeated, and what prevented the rest: together what a restart from zero would have repeated."""
    crashes, every = whole.crashes, whole.every_failure
    parts = {
        "repeated: wasted": (whole.wasted, whole.wasted),
        "prevented: replay": (crashes.replay, every.replay),
        "prevented: journal": (crashes.journal, every.journal),
        "not lost: under way": (crashes.under_way, every.under_way),
    }
    for name, groups in parts.items():
        yield from _source(name, *groups, digits)
    name = "restart from zero"
    for one, other in zip(crashes.repeated, every.repeated, strict=True):
        crashes_, failures_ = (digits.show(share.contracted_cost, share.currency) for share in (one, other))
        yield (name, crashes_, "", failures_, "", "", "", other.currency)
        name = ""


def _source(name: str, one: GroupView, other: GroupView, digits: Digits) -> Iterator[tuple[str, ...]]:
    """A row for each currency; the tokens, which have none, stand in the first. None where nothing was charged."""
    counts = tokens(one, *TOKEN_METERS), tokens(other, *TOKEN_METERS)
    crashes = {sum_.currency: sum_ for sum_ in one.money}
    for sum_ in other.money or (None,) * bool(other.charges):
        model, *rest = (of_kind(sum_, kind, digits) for kind in CostKind)
        first = of_kind(crashes.get(sum_.currency), CostKind.MODEL, digits) if sum_ else ""
        yield (name, first, counts[0], model, counts[1], *rest, sum_.currency if sum_ else "")
        name, counts = "", ("", "")


def _places(view: FailureCostView) -> Iterator[tuple[str, ...]]:
    """Tenants, where there are several, and the stages of all of them."""
    tenants = view.by_tenant if len(view.by_tenant) > 1 else ()
    stages = [part for part in view.by_stage if part.key["stage"] or part.failures]
    for part in (*tenants, *stages):
        runner, name = part.every_failure, ", ".join(part.key.values()) or WORKFLOW
        failed = f"{runner.failed_tasks:,}{'' if runner.enough else FEW}"
        row = (name, f"{part.tasks:,}", failed, _interval(runner.failure_rate), _progress(runner))
        for shares in _shares(part, runner, with_ends=False):
            yield (*row, *shares)
            row = ("", "", "", "", "")


def _causes(whole: PartView) -> Iterator[tuple[str, ...]]:
    for cause in whole.causes:
        yield cause.kind, cause.cause.replace("_", " "), f"{cause.failures:,}", f"{cause.tasks:,}"


def _notes(view: FailureCostView) -> Iterator[str]:
    whole = view.total
    if view.note:
        yield view.note
    elif whole.crashes.note:
        yield whole.crashes.note
    if not whole.tasks:
        return
    if any(not part.every_failure.enough for part in (*view.by_tenant, *view.by_stage)):
        yield f"{FEW} few tasks failed there; `--json` has the intervals of their shares"
    if whole.every_failure.progress:
        yield "progress: mean (and quartiles) of the task's clean model spend that was paid when it failed"
    if unknown := whole.every_failure.unknown_progress:
        yield f"{unknown:,} restarts have no progress: their task asked no model, or its price or usage is not known"
    yield from (f"of the clean spend, {remark}" for remark in remarks(whole.clean))
    yield from (f"of what was wasted, {remark}" for remark in remarks(whole.wasted))


def _progress(runner: RunnerView) -> str:
    if runner.progress is None:
        return ""
    middle = (runner.progress.mean, runner.progress.lower, runner.progress.upper)
    mean, lower, upper = (rounded(100 * share, 0) for share in middle)
    return f"{mean} % ({lower}-{upper})"


def _interval(interval: IntervalView | None, *, with_ends: bool = True) -> str:
    """`15.5 % (13.6-17.7)`."""
    if interval is None:
        return ""
    if not with_ends:
        return percent(interval.value)
    places = share_places(interval.high)
    low, high = (rounded(100 * bound, places) for bound in (interval.low, interval.high))
    return f"{percent(interval.value, places)} ({low}-{high})"
