"""`refund-agent price ...`: shows the valid prices, and checks the price file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import opening
from app.cli.client import AsJson
from app.cli.opening import TIMES, Prices, has_ledger, instant, open_book
from app.cli.screen import Column, ColumnKind, Wide, complain, figures, name, say, show_json, show_table
from app.domain.formatting import day, digest, minute
from app.domain.money import plain
from app.pricing.charge_types import TOKEN_METERS, Meter

if TYPE_CHECKING:
    from app.finance.price_schemas import CheckView, InfrastructureView, PricesView, PriceView
    from app.ledger.reading.queries import LedgerQueries
    from app.pricing.book import PriceBook

Model = tuple[str, str]  # provider (component type or id), model
_PRICE_COLUMNS: tuple[Column | str, ...] = (
    *name("provider", "model"),
    *figures("above", "in", "cached in", "cache write", "out"),
    Column("currency", common=True),
    Column("price", spare=1),
    Column("checked", spare=2),
)
_COLUMNS: tuple[Column | str, ...] = (
    "line",
    *figures("price", "per"),
    Column("currency", common=True),
    Column("from (UTC)", common=True),
    "to",
    Column("price id", spare=1),
    Column("checked", common=True, spare=2),
)

commands = typer.Typer(help="Shows and checks prices.", no_args_is_help=True)


@commands.command("show")
def show(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model, in use or not.  [default: those in use]")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="A Dapr component type (conversation.openai) or a provider's id (openai).")
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(parser=instant, metavar="TIME", help=f"Prices at this time, in UTC: {TIMES}.  [default: now]"),
    ] = None,
    prices: Prices = None,
    wide: Wide = False,
    as_json: AsJson = False,
) -> None:
    """Shows the prices of models per million tokens, and the prices of compute and of keeping the record."""
    book = open_book(prices)
    view = _prices_view(book, _models(book, model, provider), at or datetime.now(UTC))
    if as_json:
        show_json(view)
        return
    show_table(_PRICE_COLUMNS, [_price_row(row) for row in view.prices])
    say("")
    show_table(_COLUMNS, [_infrastructure_row(row) for row in view.infrastructure])
    say(f"book {digest(view.book)} at {minute(view.at)} UTC")
    for row in view.prices:
        if row.problem:
            say(f"note: no price: {row.problem}")
    if not view.infrastructure:
        say("note: no infrastructure price is valid then; add one under `infrastructure:` in the price file")


@commands.command("check")
def check(prices: Prices = None, wide: Wide = False, as_json: AsJson = False) -> None:
    """Checks the price file; exit code 1 if amounts are wrong or missing, or a model in use retires within 30 days.
    Changes nothing."""
    view = _check_book(open_book(prices))
    if as_json:
        show_json(view)
    else:
        _show_findings(view)
    if any(finding.severity == "error" for finding in view.findings):
        raise typer.Exit(1)


def _show_findings(view: CheckView) -> None:
    if view.findings:
        rows = [
            (finding.severity, finding.where, finding.value, finding.problem, finding.remedy)
            for finding in view.findings
        ]
        show_table(
            ("is", "where", *(Column(title, ColumnKind.PROSE) for title in ("found", "problem", "remedy"))), rows
        )
    else:
        say(f"book {digest(view.book)}: nothing is wrong")
    if not view.litellm_prices:
        say("note: litellm is not installed, so the prices were not compared with its list")


def _check_book(book: PriceBook) -> CheckView:
    from app.finance.price_schemas import CheckView, PriceFindingView
    from app.pricing import litellm_prices
    from app.pricing.check import CALLED_DAYS
    from app.pricing.check import check as findings_of

    records, litellm, now = _records(), litellm_prices.load(), datetime.now(UTC)
    used = records.models_in_use() if records else None
    called = records.models_in_use(now - timedelta(days=CALLED_DAYS)) if records else frozenset[Model]()
    nameless = records.providers_of_nameless() if records else frozenset[str]()
    findings = findings_of(book, used or (), now, litellm, nameless, called)
    return CheckView(
        book=book.digest,
        models_in_use=None if used is None else tuple(sorted(used)),
        litellm_prices=litellm is not None,
        findings=tuple(PriceFindingView.model_validate(finding) for finding in findings),
    )


def _prices_view(book: PriceBook, models: frozenset[Model], at: datetime) -> PricesView:
    from app.finance.price_schemas import InfrastructureView, PricesView, PriceView
    from app.pricing.show import infrastructure_rows, price_rows

    return PricesView(
        book=book.digest,
        at=at,
        prices=tuple(PriceView.model_validate(row) for row in price_rows(book, models, at)),
        infrastructure=tuple(InfrastructureView.model_validate(row) for row in infrastructure_rows(book, at)),
    )


def _records() -> LedgerQueries | None:
    """The ledger, which knows the models in use; without one, None and a note on stderr."""
    from app.config.settings import load

    if has_ledger(load()):
        return opening.open_records()
    complain("no ledger here, so the models in use are unknown; name a model, or work a ticket first")
    return None


def _models(book: PriceBook, model: str | None, provider: str | None) -> frozenset[Model]:
    """The models to show: those that match the options, by default those in use."""
    from app.pricing.providers import COMPONENT_TYPES, provider_id

    if model and provider:
        return frozenset({(provider, model)})
    records = _records()
    used = records.models_in_use() if records else frozenset[Model]()
    if provider:
        return frozenset(pair for pair in used if provider_id(pair[0]) == provider_id(provider))
    if not model:
        return used
    listed = {(provider, model) for provider in COMPONENT_TYPES.values() if book.listed(provider, model)}
    return frozenset(pair for pair in used if pair[1] == model) or frozenset(listed or {("", model)})


def _price_row(row: PriceView) -> tuple[str, ...]:
    above = "" if row.above is None else f"{row.above:,}"
    key = (row.provider or "*", row.model, above)
    if row.problem:
        return (*key, *[""] * len(TOKEN_METERS), "", "none", "")
    prices = (_unit_price(row, line) for line in TOKEN_METERS)
    return (*key, *prices, row.currency, row.price_id, f"{row.checked or ''}")


def _unit_price(row: PriceView, line: Meter) -> str:
    """The contracted price, and the list price if it differs: `0.40 (list 0.50)`."""
    contracted, listed = (row.contracted or {}).get(line), (row.listed or {}).get(line)
    if contracted is None:
        return ""
    return plain(contracted) if listed in (None, contracted) else f"{plain(contracted)} (list {plain(listed)})"


def _infrastructure_row(row: InfrastructureView) -> tuple[str, ...]:
    return (
        row.meter.value,
        plain(row.contracted_unit_price),
        f"{row.per:,} {row.meter.unit}",
        row.currency,
        day(row.begins),
        day(row.ends) if row.ends else "",
        row.price_id,
        f"{row.checked}",
    )
