"""The ledger against a provider's bill: the calls and charges of its time, prices, retries that belong to no call."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Engine, or_, select

from app.finance.reconciliation.bill import Bill
from app.finance.reconciliation.by_request import Unallocated
from app.finance.reconciliation.comparison import MARGIN, rates_of, reconcile
from app.finance.reconciliation.reconciliation_types import Reconciliation
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store.tables import SIDECAR_RETRIES
from app.pricing.book import PriceBook
from app.pricing.charge_types import Charge
from app.pricing.schedule import NoPrice

# Sidecar retries that cannot be attributed to a model call, including periods whose counter was lost.


def unallocated_retries(
    engine: Engine, since: datetime | None = None, until: datetime | None = None
) -> tuple[Unallocated, ...]:
    """Those of the times that reach into that one, oldest first."""
    count, allocated = SIDECAR_RETRIES.c["count"], SIDECAR_RETRIES.c.allocated
    query = select(SIDECAR_RETRIES).where(or_(count.is_(None), count > allocated))
    if since is not None:
        query = query.where(SIDECAR_RETRIES.c.to_at >= since)
    if until is not None:
        query = query.where(SIDECAR_RETRIES.c.from_at < until)
    with engine.connect() as connection:
        return tuple(
            Unallocated(
                row["component"],
                row["from_at"],
                row["to_at"],
                None if row["count"] is None else row["count"] - row["allocated"],
            )
            for row in connection.execute(query.order_by(SIDECAR_RETRIES.c.from_at)).mappings()
        )


def compare(engine: Engine, book: PriceBook, bill: Bill) -> Reconciliation:
    """What agrees with the bill, what differs and why. The bill is of all tenants."""
    since = bill.since - MARGIN if bill.since else None
    until = bill.until + MARGIN if bill.until else None

    def priced(provider: str, model: str, at: datetime) -> bool:
        return not isinstance(book.find(provider, model, at), NoPrice)

    records = LedgerQueries(engine)
    charges: Iterable[Charge] = ()
    if bill.amounts:
        first, last = min(each.since for each in bill.amounts), max(each.until for each in bill.amounts)
        charges = records.charges(first.date(), last.date() + timedelta(days=1))
    repeats = unallocated_retries(engine, since, until)
    return reconcile(records.calls(since, until), bill, priced, repeats, charges, rates_of(book))
