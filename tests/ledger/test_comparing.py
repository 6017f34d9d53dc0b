"""A bill compared with the ledger: the bill's period, models without a price, and sidecar retries."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, insert

from app.finance.reconciliation.bill import Bill, BillFormat, BillRow, Count
from app.finance.reconciliation.comparison import MARGIN
from app.finance.reconciliation.reconciliation_types import DifferenceCause
from app.ledger.reading.comparing import compare
from app.ledger.store.tables import SIDECAR_RETRIES
from tests.ledger.kit import Ledger
from tests.records import at, call_record, price_book


@pytest.fixture
def ledger(sqlite_engine: Engine) -> Ledger:
    return Ledger(sqlite_engine)


def bill(*models: str) -> Bill:
    """A bill with one request for each of these models, a moment after the start of the task's first call."""
    rows = (
        BillRow(f"row {number}", model, at(0.4), at(0.4), Count(1, 900, 100, 80)) for number, model in enumerate(models)
    )
    return Bill("a bill", BillFormat.CSV, tuple(rows))


def test_every_tenants_calls_are_on_the_bill(ledger: Ledger) -> None:
    other = call_record("e-9", call_id="c-9", task_id="globex:T-2", tenant="globex", model="new-model")
    ledger.journal([call_record(), other])
    found = compare(ledger.engine, price_book(), bill("sandbox-small", "new-model"))
    assert (found.unexplained_tokens, found.agreeing, found.findings) == (0, 2, ())
    assert found.unpriced == {("conversation.openai", "new-model"): 980}


def test_only_calls_of_the_bills_time_are_asked_for(ledger: Ledger) -> None:
    earlier, later = (-(MARGIN.total_seconds() + 60), MARGIN.total_seconds() + 60)
    far = [call_record(f"e-{start}", start, call_id=f"c-{start}") for start in (earlier, later)]
    ledger.journal([call_record(), *far])
    timed = bill("sandbox-small").within(at(0), at(0) + timedelta(seconds=1))
    found = compare(ledger.engine, price_book(), timed)
    assert (found.compared, found.outside, found.unexplained_tokens) == (1, 0, 0)
    assert compare(ledger.engine, price_book(), bill("sandbox-small")).unexplained_tokens == 2 * 980


@pytest.mark.parametrize(("count", "unexplained"), [(0, 980), (1, 0), (None, 0)])
def test_a_repeat_is_explained_as_far_as_it_was_counted(ledger: Ledger, count: int | None, unexplained: int) -> None:
    ledger.journal([call_record(ended_at=at(20))])
    row = {"component": "llm", "from_at": at(0), "to_at": at(21), "count": count}
    with ledger.engine.begin() as connection:
        connection.execute(insert(SIDECAR_RETRIES), [row])
    asked = bill("sandbox-small", "sandbox-small")
    again = replace(asked.rows[1], since=at(15), until=at(15))
    found = compare(ledger.engine, price_book(), replace(asked, rows=(asked.rows[0], again)))
    assert found.unexplained_tokens == unexplained
    assert (DifferenceCause.SIDECAR_RETRY in found.causes) is (count != 0)
