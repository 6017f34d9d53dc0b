"""Fixtures: tasks and records of two tenants, sessions, and a browser that is not signed in."""

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
from tests.web.pages.visitor import NOW, TASK, FakeSessions, PagesTaskService


@pytest.fixture
def service() -> PagesTaskService:
    service = PagesTaskService()
    record = task_record()
    service.submit(make_ticket())
    result = TaskResult(
        outcome=Outcome.REFUNDED, category=None, refund=record.refund, refund_id="R-1", decided_by="ann"
    )
    service.put(TASK, status=TaskStatus.COMPLETED, result=result)
    service.submit(make_ticket("T-2"))
    service.submit(make_ticket("T-1", "globex"))
    return service


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords(task_record(), task_record(task_id="globex:T-1", tenant="globex"))


@pytest.fixture
def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
def app(service: PagesTaskService, records: FakeRecords, sessions: FakeSessions) -> Flask:
    access = make_access()
    return create_app(
        service, access, version="1.2.3", pages=make_pages(service, access, records, sessions, lambda: NOW)
    )


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    return app.test_client()
