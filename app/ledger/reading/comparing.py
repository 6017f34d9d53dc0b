"""Compares the ledger with a provider's bill: fetches calls, charges and sidecar retries and passes them to finance."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from app.finance.reconciliation.bill import Bill
from app.finance.reconciliation.comparison import MARGIN, rates_of, reconcile
from app.finance.reconciliation.reconciliation_types import Reconciliation
from app.ledger.reading.queries import LedgerQueries
from app.pricing.book import PriceBook
from app.pricing.charge_types import CallRecord, Charge
from app.pricing.schedule import NoPrice

_BATCH = 500  # tasks in one query


def compare(engine: Engine, book: PriceBook, bill: Bill) -> Reconciliation:
    """What agrees with the bill, what differs and why. The bill covers all tenants."""
    since = bill.since - MARGIN if bill.since else None
    until = bill.until + MARGIN if bill.until else None

    def priced(provider: str, model: str, at: datetime) -> bool:
        return not isinstance(book.find(provider, model, at), NoPrice)

    records = LedgerQueries(engine)
    charges: Iterable[Charge] = ()
    if bill.amounts:
        first, last = min(amount.since for amount in bill.amounts), max(amount.until for amount in bill.amounts)
        charges = records.charges(first.date(), last.date() + timedelta(days=1))
    repeated = records.unattributed_retries(since, until)
    calls = records.calls(since, until)
    return reconcile(calls, bill, priced, repeated, charges, rates_of(book), known_ends(records, calls))


def known_ends(records: LedgerQueries, calls: Iterable[CallRecord]) -> dict[str, datetime]:
    """The ends of unfinished calls, by call id, as far as the records of their tasks show them."""
    task_ids = sorted({call.task_id for call in calls if call.ended_at is None})
    ends: dict[str, datetime] = {}
    for start in range(0, len(task_ids), _BATCH):
        for record in records.records(task_ids[start : start + _BATCH]).values():
            for call in record.calls:
                if call.ended_at is None and (end := record.end_of(call)) is not None:
                    ends[call.call_id] = end
    return ends
