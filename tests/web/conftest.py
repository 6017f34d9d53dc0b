"""A fresh desk, app and checking client for each test."""

from __future__ import annotations

import pytest
from flask import Flask

from app.web.factory import create_app
from tests.web.documented import DocumentedClient
from tests.web.fakes import FakeDesk, make_access


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def flask_app(desk: FakeDesk) -> Flask:
    return create_app(desk, make_access(), version="1.2.3")


@pytest.fixture
def client(flask_app: Flask, desk: FakeDesk) -> DocumentedClient:
    return DocumentedClient(flask_app, desk)
