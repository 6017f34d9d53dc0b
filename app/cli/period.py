"""The options for days and tenant that the commands about costs share."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.cost.views import Selection

Since = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="The first day, in UTC.", show_default=False),
]
Until = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="The day after the last one, in UTC.", show_default=False),
]
Tenant = Annotated[str | None, typer.Option(help="Only this tenant's.")]


def selection(since: datetime | None, until: datetime | None, tenant: str | None) -> Selection:
    """Days and tenant of the options. Raises BadParameter for days that hold nothing."""
    from app.cost.views import Selection

    first, end = since.date() if since else None, until.date() if until else None
    if first and end and first >= end:
        raise typer.BadParameter(f"--until {end} is not after --since {first}; the day of --until is not among them")
    return Selection(since=first, until=end, tenants=(tenant,) if tenant else None)


def tenants(chosen: Selection) -> frozenset[str] | None:
    """The tenants as the ledger takes them."""
    return None if chosen.tenants is None else frozenset(chosen.tenants)


def when(since: date | None, until: date | None) -> str:
    """The days in words, as they follow on what happened; empty for all there are."""
    return "".join([f" since {since}" if since else "", f" before {until}" if until else ""])
