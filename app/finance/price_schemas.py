"""The JSON of repricing, of the prices that apply, and of the check of the price book."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from app.finance.report_schemas import Exact, GroupView, Selection, View, group_view
from app.finance.repricing import PriceDifference, Repricing
from app.finance.rollup import Dimension
from app.pricing.charge_types import CostBasis, Meter


class ChangeView(View):
    """The billed cost and the cost of the same usage by the other book; each leaves out costs that are unknown there.
    `kind`, `provider` and `model` repeat those of the `key`; empty if the key lacks them."""

    key: dict[str, str]
    kind: str
    provider: str
    model: str
    currency: str
    billed: Exact
    repriced: Exact
    change: Exact
    billed_known: CostBasis
    repriced_known: CostBasis


class RepricingView(Selection):
    """The same usage by another price book. `billed_books`: digests of the books that it was billed by; `book`: of the
    other one."""

    billed_books: tuple[str, ...]
    book: str
    billed: GroupView
    repriced: GroupView
    changes: tuple[ChangeView, ...]


class PriceView(View):
    """Prices per million tokens, for requests with more than `above` input tokens; `problem`: why there is none."""

    provider: str
    model: str
    mode: str
    price_id: str
    currency: str
    above: int | None
    contracted: dict[Meter, Exact] | None
    listed: dict[Meter, Exact] | None
    source: str
    checked: date | None
    where: str
    problem: str


class InfrastructureView(View):
    """The price of `per` units of a meter of compute or orchestration, and its period."""

    price_id: str
    meter: Meter
    currency: str
    contracted_unit_price: Exact
    per: Exact
    source: str
    checked: date
    where: str
    begins: datetime
    ends: datetime | None


class PricesView(View):
    """The prices that apply at an instant, by the book with this digest."""

    book: str
    at: datetime
    prices: tuple[PriceView, ...]
    infrastructure: tuple[InfrastructureView, ...]


class PriceFindingView(View):
    """One finding of the check of the price book."""

    severity: str
    where: str
    value: str
    problem: str
    remedy: str


class CheckView(View):
    """The findings of the check of the price book; `models_in_use` is null without a ledger."""

    book: str
    models_in_use: tuple[tuple[str, str], ...] | None
    litellm_prices: bool
    findings: tuple[PriceFindingView, ...]


def repricing_view(repricing: Repricing, billed_books: Iterable[str], selection: Selection) -> RepricingView:
    """The JSON of a repricing of the selected charges."""
    return RepricingView(
        **dict(selection),
        billed_books=tuple(sorted(billed_books)),
        book=repricing.book_digest,
        billed=group_view(repricing.billed),
        repriced=group_view(repricing.repriced),
        changes=tuple(_change_view(difference, repricing.by) for difference in repricing.differences),
    )


def _change_view(change: PriceDifference, by: Iterable[Dimension]) -> ChangeView:
    key = {dimension.value: value for dimension, value in zip(by, change.key, strict=True)}
    return ChangeView(
        key=key,
        kind=key.get("kind", ""),
        provider=key.get("provider", ""),
        model=key.get("model", ""),
        currency=change.currency,
        billed=change.billed,
        repriced=change.repriced,
        change=change.change,
        billed_known=change.billed_known,
        repriced_known=change.repriced_known,
    )
