"""The JSON of sums and reports, of the command line and of the HTTP API. Its keys stay; amounts have all digits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import ConfigDict, PlainSerializer

from app.domain.models import Frozen, UsageBasis
from app.domain.money import plain
from app.finance.rollup import Dimension, Group, MoneySum, QuantitySum, Rollup
from app.pricing.charge_types import CostBasis, Meter, Unit

Exact = Annotated[Decimal, PlainSerializer(plain, return_type=str)]  # a decimal as text, without exponent


class View(Frozen):
    """A JSON object, read from an object with the same attributes, or from its own JSON."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", from_attributes=True, populate_by_name=True, serialize_by_alias=True
    )


class MoneyView(View):
    """A sum in one currency. `by_basis` and `by_kind` each sum to `contracted_cost`."""

    currency: str
    contracted_cost: Exact
    list_cost: Exact
    by_basis: dict[CostBasis, Exact]
    by_kind: dict[str, Exact]


class QuantityView(View):
    """A sum of one meter; `missing`: the number of charges with an unknown quantity, which is in no sum."""

    meter: Meter
    unit: Unit
    consumed_quantity: Exact
    by_basis: dict[UsageBasis, Exact]
    missing: int


class GroupView(View):
    """Charges with the same `key`. `unreported` and `unpriced` count the charges that are in no sum of money."""

    key: dict[str, str]
    charges: int
    money: tuple[MoneyView, ...]
    quantities: tuple[QuantityView, ...]
    cost_basis: CostBasis
    unreported: int
    unpriced: int


class WorkView(View):
    """The work of a task: model calls, how many had no result, and attempts of steps beyond the first of each."""

    calls: int
    wasted_calls: int
    step_retries: int


class SidecarRetriesView(View):
    """Requests to models that the sidecars repeated in the time of the report, of all tenants. They are in no sum.
    `requests` is null if a sidecar's counter was lost in that time; `at_least` is the number that was counted."""

    requests: int | None
    at_least: int


class CountedView(GroupView):
    """A group with the number of its tasks (null if one task is in several groups), and its work if it is one task."""

    tasks: int | None = None
    work: WorkView | None = None


class Selection(View):
    """The selected charges: days in UTC, excluding `until`; `tenants` null means all tenants."""

    since: date | None = None
    until: date | None = None
    tenants: tuple[str, ...] | None = None


class ReportView(Selection):
    """Sums for each combination of the dimensions' values, and in total."""

    by: tuple[Dimension, ...]
    groups: tuple[GroupView, ...]
    total: GroupView


class CountedReportView(ReportView):
    """A report with numbers of tasks. `left_out`: the number of groups that are only in the total."""

    groups: tuple[CountedView, ...]
    total: CountedView
    left_out: int = 0
    unattributed_sidecar_retries: SidecarRetriesView


def group_view(group: Group, by: Iterable[Dimension] = ()) -> GroupView:
    """The JSON of a group; the dimensions name the values of its key."""
    return GroupView(
        key={dimension.value: value for dimension, value in zip(by, group.key, strict=True)},
        charges=group.charges,
        money=tuple(money_view(money) for money in group.money),
        quantities=tuple(quantity_view(quantity) for quantity in group.quantities),
        cost_basis=group.cost_basis,
        unreported=group.unreported,
        unpriced=group.unpriced,
    )


def money_view(money: MoneySum) -> MoneyView:
    """The JSON of a sum of money."""
    return MoneyView.model_validate(money)


def quantity_view(quantity: QuantitySum) -> QuantityView:
    """The JSON of a sum of quantities, with its unit."""
    return QuantityView(
        meter=quantity.meter,
        unit=quantity.meter.unit,
        consumed_quantity=quantity.consumed_quantity,
        by_basis=dict(quantity.by_basis),
        missing=quantity.missing,
    )


def report_view(rollup: Rollup, selection: Selection) -> ReportView:
    """The JSON of a report on the selected charges."""
    return ReportView(
        **dict(selection),
        by=rollup.by,
        groups=tuple(group_view(group, rollup.by) for group in rollup.groups),
        total=group_view(rollup.total),
    )
