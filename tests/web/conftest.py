"""Fixtures: a new task service, ledger, app and checking client for each test."""

from __future__ import annotations

import pytest
from flask import Flask

from app.web.factory import create_app
from tests.ledgers import FakeRecords
from tests.web.documented import DocumentedClient
from tests.web.fakes import FakeTaskService, FakeVitals, make_access, make_ledger


@pytest.fixture
def service() -> FakeTaskService:
    return FakeTaskService()


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords()


@pytest.fixture
def vitals() -> FakeVitals:
    return FakeVitals()


@pytest.fixture
def flask_app(service: FakeTaskService, records: FakeRecords, vitals: FakeVitals) -> Flask:
    return create_app(service, make_access(), version="1.2.3", ledger=make_ledger(records), vitals=vitals)


@pytest.fixture
def client(flask_app: Flask, service: FakeTaskService, records: FakeRecords) -> DocumentedClient:
    return DocumentedClient(flask_app, service, records)
