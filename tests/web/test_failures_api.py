"""The API's failure costs: the command line's figures, and separation of tenants."""

from __future__ import annotations

from typing import Any

import pytest

from app.cli import opening
from app.finance.failures.failure_schemas import FailureCostView
from tests.cli.reading import json_answer
from tests.finance.failures.tasks import crashed, task
from tests.ledgers import FakeRecords
from tests.web.documented import DocumentedClient

FAILURES = "/cost/failures"


@pytest.fixture(autouse=True)
def two_tenants(records: FakeRecords) -> None:
    for record in (crashed(3), task("acme:T-2"), crashed(1, "globex:T-1", answered=True)):
        records.records[record.task_id] = record


def tenants(client: DocumentedClient, query: str = "", who: str = "root") -> list[str]:
    """The tenants of the answer, checked against its `tenants` and total."""
    answer = client.call("GET", f"{FAILURES}{query}", who=who)
    assert answer.status_code == 200
    view: Any = answer.json
    names = [part["key"]["tenant"] for part in view["by_tenant"]]
    assert view["tenants"] in (None, names)
    assert view["total"]["tasks"] == sum(part["tasks"] for part in view["by_tenant"])
    return names


def test_the_figures_are_those_of_the_command_line(
    client: DocumentedClient, records: FakeRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", "sqlite://")
    monkeypatch.setattr(opening, "open_records", lambda: records)
    view: Any = client.call("GET", FAILURES).json
    assert view == json_answer("cost", "failures")
    assert FailureCostView.model_validate(view).total.failures == 2
    acme: Any = client.call("GET", f"{FAILURES}?tenant=acme&since=2026-11-22&until=2026-11-23").json
    assert acme == json_answer("cost", "failures", "--tenant", "acme", "--since", "2026-11-22", "--until", "2026-11-23")


def test_a_token_sees_its_own_tenants_only(client: DocumentedClient) -> None:
    assert tenants(client) == ["acme", "globex"]
    assert tenants(client, "?tenant=globex") == ["globex"]
    assert tenants(client, who="acme-read") == ["acme"]
    assert tenants(client, "?tenant=acme", who="acme-read") == ["acme"]
    assert client.call("GET", f"{FAILURES}?tenant=globex", who="acme-read").status_code == 403
    for who in ("acme-submit", "acme-approve"):
        assert client.call("GET", FAILURES, who=who).status_code == 403
    assert client.call("GET", FAILURES, who=None).status_code == 401


def test_periods_have_whole_days_and_until_is_exclusive(client: DocumentedClient) -> None:
    assert tenants(client, "?since=2026-11-22&until=2026-11-23") == ["acme", "globex"]
    assert tenants(client, "?until=2026-11-22") == []
    assert tenants(client, "?since=2026-11-23") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=yesterday", "since"),
        ("since=2026-11-22&until=2026-11-22", "(whole)"),
        ("tenant=A%20B", "tenant"),
        ("by=tenant", "by"),
    ],
)
def test_a_bad_query_names_the_parameter(client: DocumentedClient, query: str, field: str) -> None:
    answer: Any = client.call("GET", f"{FAILURES}?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == [field]
