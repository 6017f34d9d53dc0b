"""The JSON of a reconciliation, of `cost reconcile` and of `POST /cost/reconcile`. Its keys stay.

Differences are the bill minus our record; null means unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AliasPath, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from app.domain.models import CallState, UsageBasis
from app.finance.reconciliation.bill import Bill, BillFormat, Count
from app.finance.reconciliation.reconciliation_texts import compared, not_compared, verdict
from app.finance.reconciliation.reconciliation_types import (
    Cell,
    Certainty,
    DifferenceCause,
    MoneyOutcome,
    Reconciliation,
)
from app.finance.report_schemas import Exact, View
from app.pricing.charge_types import Meter

UtcTime = Annotated[
    datetime,
    PlainSerializer(lambda at: at.astimezone(UTC).isoformat(), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
NameOrNull = Annotated[str | None, BeforeValidator(lambda name: name or None)]  # null for an empty name


class CountView(View):
    """Requests and tokens. `input_tokens` includes `cached_tokens`; `tokens` are input plus output."""

    requests: int | None
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int
    tokens: int


class RecordCountView(CountView):
    """The count of our record, with its tokens by usage basis."""

    reported_tokens: int
    estimated_tokens: int


class BillView(View):
    """The bill that was compared. `providers`: who issued it, if it says so."""

    name: str
    format: BillFormat
    rows: int
    by_request: bool
    providers: tuple[str, ...]
    unbilled_requests: int
    unread_columns: tuple[str, ...]


class UnknownProviderView(View):
    """The number of calls with an unknown provider; `not_on_bill` of them may be on another bill."""

    calls: int
    not_on_bill: int


class ComparedCallsView(View):
    """Numbers of our calls: `compared` with the bill, `agreeing` with it to the token, `outside` its time, and by other
    providers, whose calls are on another bill or on none."""

    compared: int
    agreeing: int
    outside: int
    other_providers: dict[str, int]
    unknown_provider: UnknownProviderView


class BilledMoneyView(View):
    """One model's money in one period; `model` null means all models together. `contracted` and `listed` are our
    charges, `expected` is the bill's own tokens at our prices."""

    model: NameOrNull
    since: UtcTime = Field(serialization_alias="from")
    until: UtcTime = Field(serialization_alias="to")
    currency: str
    outcome: MoneyOutcome
    agrees: bool = Field(validation_alias=AliasPath("outcome", "passes"))
    billed: Exact
    contracted: Exact | None
    listed: Exact | None
    expected: Exact | None
    difference: Exact
    implied_per_million: dict[Meter, Exact] = Field(validation_alias="implied")
    note: str


class CellView(View):
    """One model in one period. `causes` sum to `difference`."""

    model: str
    since: UtcTime = Field(serialization_alias="from")
    until: UtcTime = Field(serialization_alias="to")
    record: RecordCountView
    billed: CountView
    difference: CountView
    difference_tokens: int
    causes: dict[DifferenceCause, CountView]
    unpriced_tokens: int
    unexplained_tokens: int
    certainty: Certainty


class BillFindingView(View):
    """One difference: a call, a request on the bill, or a pair of both. `place`: its place on the bill."""

    cause: DifferenceCause
    explained: bool = Field(validation_alias=AliasPath("cause", "explains"))
    certainty: Certainty
    at: UtcTime
    model: str
    task_id: str | None = Field(None, validation_alias=AliasPath("call", "task_id"))
    stage: str | None = Field(None, validation_alias=AliasPath("call", "stage"))
    turn: int | None = Field(None, validation_alias=AliasPath("call", "turn"))
    call_id: str | None = Field(None, validation_alias=AliasPath("call", "call_id"))
    state: CallState | None = Field(None, validation_alias=AliasPath("call", "state"))
    place: NameOrNull
    usage_basis: UsageBasis
    record: CountView
    billed: CountView
    difference_tokens: int = Field(validation_alias=AliasPath("difference", "tokens"))
    unexplained_tokens: int = Field(validation_alias="unexplained")
    note: str


class UnpricedModelView(View):
    """Tokens of a model without a price."""

    provider: str
    model: str
    tokens: int


class ReconciliationView(View):
    """The comparison of our record with one bill. `rows`: the single differences; `same_model`: model names on the bill
    and ours, if the bill adds a date."""

    verdict: str
    unexplained_tokens: int
    difference_tokens: int
    bill: BillView
    since: UtcTime | None
    until: UtcTime | None
    calls: ComparedCallsView
    record: CountView
    billed: CountView
    difference: CountView
    causes: dict[DifferenceCause, CountView]
    compared: tuple[str, ...]
    not_compared: tuple[str, ...]
    money: tuple[BilledMoneyView, ...]
    cells: tuple[CellView, ...]
    rows: tuple[BillFindingView, ...]
    unpriced: tuple[UnpricedModelView, ...]
    same_model: dict[str, str]


def reconciliation_view(reconciliation: Reconciliation) -> ReconciliationView:
    """The JSON of a whole comparison."""
    return ReconciliationView(
        verdict=verdict(reconciliation),
        unexplained_tokens=reconciliation.unexplained_tokens,
        difference_tokens=reconciliation.difference.tokens,
        bill=_bill(reconciliation.bill),
        since=reconciliation.bill.since,
        until=reconciliation.bill.until,
        calls=ComparedCallsView(
            compared=reconciliation.compared,
            agreeing=reconciliation.agreeing,
            outside=reconciliation.outside,
            other_providers=dict(reconciliation.others),
            unknown_provider=UnknownProviderView(
                calls=reconciliation.unknown_provider, not_on_bill=reconciliation.absent
            ),
        ),
        record=CountView.model_validate(reconciliation.record),
        billed=CountView.model_validate(reconciliation.billed),
        difference=CountView.model_validate(reconciliation.difference),
        causes=_causes(reconciliation.causes),
        compared=compared(reconciliation),
        not_compared=not_compared(reconciliation),
        money=tuple(map(BilledMoneyView.model_validate, reconciliation.money)),
        cells=tuple(map(_cell, reconciliation.cells)),
        rows=tuple(map(BillFindingView.model_validate, reconciliation.findings)),
        unpriced=tuple(
            UnpricedModelView(provider=provider, model=model, tokens=tokens)
            for (provider, model), tokens in reconciliation.unpriced.items()
        ),
        same_model=dict(reconciliation.same_model),
    )


def _bill(bill: Bill) -> BillView:
    return BillView(
        name=bill.name,
        format=bill.format,
        rows=len(bill.rows),
        by_request=bill.by_request,
        providers=tuple(sorted(bill.providers | ({row.provider for row in bill.rows} - {""}))),
        unbilled_requests=bill.unbilled,
        unread_columns=bill.unread,
    )


def _cell(cell: Cell) -> CellView:
    return CellView(
        model=cell.model,
        since=cell.since,
        until=cell.until,
        record=RecordCountView(
            **dict(CountView.model_validate(cell.record)),
            reported_tokens=cell.reported.tokens,
            estimated_tokens=cell.estimated.tokens,
        ),
        billed=CountView.model_validate(cell.billed),
        difference=CountView.model_validate(cell.difference),
        difference_tokens=cell.difference.tokens,
        causes=_causes(cell.causes),
        unpriced_tokens=cell.unpriced,
        unexplained_tokens=cell.unexplained,
        certainty=cell.certainty,
    )


def _causes(causes: Mapping[DifferenceCause, Count]) -> dict[DifferenceCause, CountView]:
    return {cause: CountView.model_validate(count) for cause, count in causes.items()}
