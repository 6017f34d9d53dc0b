"""The ledger against a provider's bill: the calls of its time, what has a price, and retries that belong to no call."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from app.cost.book import PriceBook
from app.cost.reconciliation.bill import Bill
from app.cost.reconciliation.reconcile import MARGIN, reconcile
from app.cost.reconciliation.values import Reconciliation
from app.cost.schedule import NoPrice
from app.ledger.reading import Records
from app.ledger.unallocated import unallocated_retries


def compare(engine: Engine, book: PriceBook, bill: Bill) -> Reconciliation:
    """What agrees with the bill, what differs and why. The bill is of all tenants."""
    since = bill.since - MARGIN if bill.since else None
    until = bill.until + MARGIN if bill.until else None

    def priced(provider: str, model: str, at: datetime) -> bool:
        return not isinstance(book.find(provider, model, at), NoPrice)

    calls = Records(engine).calls(since, until)
    return reconcile(calls, bill, priced=priced, unallocated=unallocated_retries(engine, since, until))
