"""`refund-agent cost failures`: what failures cost, and what restarting from zero would have cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from app.cli import opening
from app.cli.client import AsJson
from app.cli.opening import Since, Tenant, Until, period_text, require_known_tenants, selection, tenants
from app.cli.screen import (
    AsCsv,
    Column,
    CsvCell,
    Exact,
    Wide,
    figures,
    require_one_format,
    rounding_notes,
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
    "restarts after",
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
    """Shows what failures cost the tasks that ended, and what restarting from zero would have cost."""
    from app.finance.failures.failure_schemas import failures_view

    require_one_format(as_csv=as_csv, as_json=as_json)
    chosen = selection(since, until, tenant)
    records = opening.open_records()
    require_known_tenants(chosen, records)
    view = failures_view(records.failures(chosen.since, chosen.until, tenants(chosen)), chosen)
    if as_json:
        show_json(view)
    else:
        show_csv(_CSV, _csv_rows(view)) if as_csv else _show(view, exact=exact)


def _show(view: FailureCostView, *, exact: bool) -> None:
    whole, digits = view.total, _digits_of(view.total, exact=exact)
    if whole.tasks:
        failed = f"{whole.every_failure.failed_tasks:,} of them failed, {whole.failures:,} times in all"
        say(f"{whole.tasks:,} tasks ended{period_text(view.since, view.until)}; {failed}")
        for line in _summary(whole, digits):
            say(line)
        say("shares are of the clean model spend, with their 95 % intervals")
        _show_section(_RUNNERS, _runner_rows(whole))
        _show_section(_MONEY, _source_rows(whole, digits))
        _show_section(_PLACES, _part_rows(view))
        _show_section(_CAUSES, _cause_rows(whole))
    for note in (*_notes(view), *rounding_notes(digits)):
        say(f"note: {note}")


def _summary(whole: PartView, digits: Digits) -> Iterator[str]:
    """One sentence for each currency: what was wasted, and what a restart from zero would have wasted."""
    durable = {share.currency: share for share in whole.durable}
    for restart in whole.every_failure.repeated:
        resume = durable.get(restart.currency)
        if resume and resume.share and restart.share:
            currency = restart.currency
            wasted = f"{digits.show(resume.contracted_cost, currency)} {currency} of model spend was wasted"
            cost = digits.show(restart.contracted_cost, currency)
            zero = f"a restart from zero would have cost {cost} {currency}"
            yield f"{wasted} ({percent(resume.share.value)}); {zero} ({percent(restart.share.value)})"


def _csv_rows(view: FailureCostView) -> Iterator[list[CsvCell]]:
    """One row for each currency of each part: all tasks (no tenant, no stage), tenants, stages, and both together.
    Figures count every failure."""
    for part in (view.total, *view.by_tenant, *view.by_stage, *view.by_tenant_and_stage):
        runner, durable = part.every_failure, {share.currency: share for share in part.durable}
        key = [part.key.get("tenant"), part.key.get("stage")]
        cells = [part.tasks, runner.failed_tasks, part.failures, *_interval_cells(runner.failure_rate)]
        for restart in runner.repeated:
            resume = durable.get(restart.currency)
            yield [
                *key,
                *cells,
                restart.currency,
                *([resume.contracted_cost, *_interval_cells(resume.share)] if resume else [None] * 4),
                restart.contracted_cost,
                *_interval_cells(restart.share),
                restart.durable_ratio,
            ]
        if not runner.repeated:
            yield [*key, *cells, *[None] * (len(_CSV) - len(key) - len(cells))]


def _interval_cells(interval: IntervalView | None) -> list[Decimal | None]:
    return [interval.value, interval.low, interval.high] if interval else [None] * 3


def _digits_of(whole: PartView, *, exact: bool) -> Digits:
    runners = whole.crashes, whole.every_failure
    groups = [group for runner in runners for group in (runner.replay, runner.journal, runner.under_way)]
    restart = [(share.contracted_cost, share.currency) for runner in runners for share in runner.repeated]
    resume = [(share.contracted_cost, share.currency) for share in whole.durable]
    return digits_for([*amounts(whole.wasted, *groups), *restart, *resume], exact=exact)


def _show_section(columns: Sequence[Column | str], rows: Iterator[Sequence[str]]) -> None:
    """Prints an empty line and the table; nothing if there are no rows."""
    if lines := list(rows):
        say("")
        show_table(columns, lines)


def _runner_rows(whole: PartView) -> Iterator[tuple[str, ...]]:
    """Upper bounds and measured shares for a runner that restarts from zero after crashes, and for one that does so
    after any failure."""
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
    """For each currency: the shares of a restart from zero and of resuming, their ratio, and the currency."""
    durable = {share.currency: share.share for share in part.durable}
    for repeated in runner.repeated:
        ratio = "" if repeated.durable_ratio is None else rounded(repeated.durable_ratio, 2)
        from_zero = _interval(repeated.share, with_ends=with_ends)
        yield from_zero, _interval(durable.get(repeated.currency), with_ends=with_ends), ratio, repeated.currency
    if not runner.repeated:
        yield ("", "", "", "")


def _source_rows(whole: PartView, digits: Digits) -> Iterator[tuple[str, ...]]:
    """What was repeated, and what prevented further repeats; together, what a restart from zero would have repeated."""
    crashes, every = whole.crashes, whole.every_failure
    parts = {
        "repeated: wasted": (whole.wasted, whole.wasted),
        "prevented: replay": (crashes.replay, every.replay),
        "prevented: journal": (crashes.journal, every.journal),
        "not lost: under way": (crashes.under_way, every.under_way),
    }
    for name, groups in parts.items():
        yield from _currency_rows(name, *groups, digits)
    name = "restart from zero"
    for crash, failure in zip(crashes.repeated, every.repeated, strict=True):
        crash_cost, cost = (digits.show(share.contracted_cost, share.currency) for share in (crash, failure))
        yield (name, crash_cost, "", cost, "", "", "", failure.currency)
        name = ""


def _currency_rows(name: str, crashes: GroupView, every: GroupView, digits: Digits) -> Iterator[tuple[str, ...]]:
    """One row for each currency, with the tokens in the first; none if nothing was charged."""
    counts = tokens(crashes, *TOKEN_METERS), tokens(every, *TOKEN_METERS)
    crash_sums = {sum_.currency: sum_ for sum_ in crashes.money}
    for sum_ in every.money or (None,) * bool(every.charges):
        model, *rest = (of_kind(sum_, kind, digits) for kind in CostKind)
        crash_model = of_kind(crash_sums.get(sum_.currency), CostKind.MODEL, digits) if sum_ else ""
        yield (name, crash_model, counts[0], model, counts[1], *rest, sum_.currency if sum_ else "")
        name, counts = "", ("", "")


def _part_rows(view: FailureCostView) -> Iterator[tuple[str, ...]]:
    """The tenants, if there are several, then the stages of all tenants."""
    tenants = view.by_tenant if len(view.by_tenant) > 1 else ()
    stages = [part for part in view.by_stage if part.key["stage"] or part.failures]
    for part in (*tenants, *stages):
        runner, name = part.every_failure, ", ".join(part.key.values()) or WORKFLOW
        failed = f"{runner.failed_tasks:,}{'' if runner.enough else FEW}"
        row = (name, f"{part.tasks:,}", failed, _interval(runner.failure_rate), _progress(runner))
        for shares in _shares(part, runner, with_ends=False):
            yield (*row, *shares)
            row = ("", "", "", "", "")


def _cause_rows(whole: PartView) -> Iterator[tuple[str, ...]]:
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
        yield f"{unknown:,} restarts have no progress: their task asked no model, or its price or usage is unknown"
    yield from (f"of the clean spend, {remark}" for remark in remarks(whole.clean))
    yield from (f"of what was wasted, {remark}" for remark in remarks(whole.wasted))


def _progress(runner: RunnerView) -> str:
    if runner.progress is None:
        return ""
    middle = (runner.progress.mean, runner.progress.lower, runner.progress.upper)
    mean, lower, upper = (rounded(100 * share, 0) for share in middle)
    return f"{mean} % ({lower}-{upper})"


def _interval(interval: IntervalView | None, *, with_ends: bool = True) -> str:
    """Formats an interval: `15.5 % (13.6-17.7)`; `15.5 %` without `with_ends`; empty for None."""
    if interval is None:
        return ""
    if not with_ends:
        return percent(interval.value)
    places = share_places(interval.high)
    low, high = (rounded(100 * bound, places) for bound in (interval.low, interval.high))
    return f"{percent(interval.value, places)} ({low}-{high})"
