"""`refund-agent doctor retries`: the worst case of all retry layers together, next to its limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import opening
from app.cli.client import AsJson
from app.cli.opening import Prices, existing_file, existing_prices_file, has_ledger
from app.cli.screen import Column, ColumnKind, Wide, complain, figures, say, show_json, show_table
from app.domain import formatting
from app.domain.formatting import duration, rounded

if TYPE_CHECKING:
    from app.finance.retry_bounds.bound_schemas import MeasuredView, RetryBoundsView, TargetView
    from app.finance.retry_bounds.worst import RequestPrice, Target, Worst
    from app.ledger.reading.counting import RequestCounts

# The folders of the sidecar's resources, as in `resourcesPaths` of dapr.yaml.
FOLDERS = ("components", "resiliency")
Folder = Annotated[Path, typer.Option(help="The project's folder.")]
NO_BOUND = "no bound"
NOT_MEASURED = "not measured"
_COLUMNS: tuple[Column | str, ...] = (
    Column("target"),
    Column("type", spare=1),
    Column("client x SDK x sidecar x workflow"),
    *figures("a step", "limit", "a task", "until parked", "money a step"),
    Column("is", ColumnKind.PROSE),
    Column("measured: mean, most (steps)", spare=2),
)


def retries(
    folder: Folder = Path(),
    policy_file: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="Another policy file.  [env: REFUND_AGENT_POLICY_FILE]"),
    ] = None,
    prices: Prices = None,
    app_id: Annotated[str, typer.Option(help="The Dapr app whose sidecar makes the requests.")] = "agent",
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Multiplies the retries of client, sidecar and workflow; exit code 1 above a limit of the policy file."""
    view = _bounds(folder, policy_file, prices, app_id)
    if as_json:
        show_json(view)
    else:
        _show(view)
    if not view.ok:
        raise typer.Exit(1)


def _bounds(folder: Path, policy_file: Path | None, prices: Path | None, app_id: str) -> RetryBoundsView:
    from app.config import policy
    from app.config.settings import load
    from app.finance.retry_bounds import sidecar_files
    from app.finance.retry_bounds.bound_schemas import target_view, view
    from app.finance.retry_bounds.worst import unknown_names, worst

    settings, folders = load(), [folder / name for name in FOLDERS]
    given_policy = existing_file(policy_file, "--policy", "a policy file, such as config/policy.yaml")
    path = given_policy or folder / settings.policy_file
    rules, limits = policy.load(path), policy.retry_limits(path)
    policies, targets = sidecar_files.policies(folders, app_id), sidecar_files.targets(folders, app_id)
    counts = _request_counts()
    request_prices = _request_prices(targets, counts, existing_prices_file(prices) or folder / settings.prices_file)
    worst_cases = worst(targets, policies, rules, policy.losses(path).billed_attempts, request_prices)
    findings = [*policies.findings, *unknown_names(targets, policies, rules, sidecar_files.components(folders))]
    return view(
        tuple(target_view(target, limits, _measurement(target, counts)) for target in worst_cases),
        tuple(findings),
        limits,
    )


def _request_counts() -> RequestCounts | None:
    """The requests that the ledger has counted; None without a ledger, or, with a note, if it cannot be read."""
    from app.config.settings import load
    from app.domain.errors import ConfigurationError

    if not has_ledger(load()):
        return None
    try:
        return opening.open_requests()
    except ConfigurationError as error:
        complain(f"{NOT_MEASURED}: {error}")
        return None


def _request_prices(targets: Iterable[Target], counts: RequestCounts | None, path: Path) -> dict[str, RequestPrice]:
    """The price of the longest request to each model component, by the most expensive of its models: the one in its
    file, and those that have answered."""
    from app.finance.retry_bounds.worst import LONGEST, LongestRequest, TargetKind, most_expensive
    from app.pricing.book import load

    book, now = load(path), datetime.now(UTC)
    prices = {}
    for target in (model_target for model_target in targets if model_target.kind is TargetKind.MODEL):
        reserved = counts.reserves.get(target.name, (0, 0)) if counts else (0, 0)
        reserve = LongestRequest(max(reserved[0], LONGEST.input_tokens), max(reserved[1], LONGEST.output_tokens))
        used = counts.answered.get(target.name, frozenset()) if counts else frozenset()
        models = {*used, *([(target.type, target.model)] if target.model or not used else [])}
        prices[target.name] = most_expensive(book, models, reserve, now)
    return prices


def _measurement(worst: Worst, counts: RequestCounts | None) -> MeasuredView | None:
    from app.finance.retry_bounds.bound_schemas import MeasuredView, mean
    from app.finance.retry_bounds.worst import TargetKind

    if counts is None:
        return None
    model = worst.target.kind is TargetKind.MODEL
    rows = [counts.models.get(worst.target.name)] if model else [counts.steps.get(calls.step) for calls in worst.calls]
    present = [row for row in rows if row is not None]
    if not present:
        return None
    whole = sum(present[1:], present[0])
    average = mean(whole.requests, whole.steps)
    return MeasuredView(steps=whole.steps, requests=whole.requests, mean=average, most=whole.most)


def _show(view: RetryBoundsView) -> None:
    show_table(_COLUMNS, map(_row, view.targets))
    for line in _notes(view):
        say(line)


def _row(target: TargetView) -> tuple[str, ...]:
    layers = target.layers
    product = " x ".join(map(_figure, (layers.client, layers.sdk, layers.sidecar, layers.workflow)))
    money = " + ".join(f"{rounded(money.amount, 2)} {money.currency}" for money in target.money_per_step)
    return (
        target.name,
        target.type,
        product,
        _figure(target.requests_per_step),
        _figure(target.requests_limit),
        _figure(target.requests_per_task),
        _time(target.seconds_until_parked),
        money or ("unpriced" if target.unpriced_models else "-"),
        f"over: {', '.join(target.over)}" if target.over else "ok",
        _measured_text(target.measured),
    )


def _figure(value: int | None) -> str:
    return NO_BOUND if value is None else f"{value:,}"


def _time(seconds: float | None) -> str:
    return NO_BOUND if seconds is None else duration(timedelta(seconds=seconds))


def _measured_text(measured: MeasuredView | None) -> str:
    return NOT_MEASURED if measured is None else f"{measured.mean}, {measured.most} ({measured.steps:,})"


def _notes(view: RetryBoundsView) -> Iterator[str]:
    limits = view.limits
    money = ", ".join(formatting.money(amount, currency) for currency, amount in sorted(limits.money_per_step.items()))
    yield f"limits for one step: {limits.hours_until_parked:g} h until it is parked; money: {money or 'none'}"
    for target in view.targets:
        if target.billed_requests_per_step:
            billed = target.billed_requests_per_step
            yield f"{target.name}: at most {billed} requests of a step are lost and probably billed"
    yield from (f"{target.name}: {note}" for target in view.targets for note in target.notes)
    for target in view.targets:
        if target.unpriced_models:
            yield f"{target.name}: no price for {', '.join(target.unpriced_models)}, so its cost is unknown"
    yield from (
        f"{'wrong' if finding.wrong else 'note'}: {finding.where}: {finding.problem}" for finding in view.findings
    )
