"""Two tenants' tasks, the record of one task each, and a browser that is not signed in."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.domain.models import Outcome, TaskResult, TaskStatus
from app.web.factory import create_app
from app.web.pages import make_pages
from tests.ledgers import FakeRecords
from tests.records import task_record
from tests.web.fakes import make_access, make_ticket
from tests.web.pages.visitor import NOW, TASK, FakeSessions, PagesDesk


@pytest.fixture
def desk() -> PagesDesk:
    desk = PagesDesk()
    record = task_record()
    desk.submit(make_ticket())
    result = TaskResult(
        outcome=Outcome.REFUNDED, category=None, refund=record.refund, refund_id="R-1", decided_by="ann"
    )
    desk.put(TASK, status=TaskStatus.COMPLETED, result=result)
    desk.submit(make_ticket("T-2"))
    desk.submit(make_ticket("T-1", "globex"))
    return desk


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords(task_record(), task_record(task_id="globex:T-1", tenant="globex"))


@pytest.fixture
def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
def app(desk: PagesDesk, records: FakeRecords, sessions: FakeSessions) -> Flask:
    access = make_access()
    return create_app(desk, access, version="1.2.3", pages=make_pages(desk, access, records, sessions, lambda: NOW))


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    return app.test_client()
