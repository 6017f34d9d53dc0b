"""The API's figures: record, cost report, metrics and reconciliation; separation of tenants; all digits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from app.cli import opening
from app.finance.rollup import Dimension
from app.ledger.reading.record_schemas import RecordView, record_view
from app.web.api.route_table import METRICS
from app.web.factory import MAX_BODY_BYTES
from tests.cli.reading import json_answer
from tests.ledgers import FakeRecords
from tests.records import call_record, task_record
from tests.web.documented import DocumentedClient

RECORD = "/tasks/acme:T-1/record"
RECONCILE = "/cost/reconcile"


@pytest.fixture(autouse=True)
def two_tenants(records: FakeRecords) -> None:
    for task_id in ("acme:T-1", "globex:T-2"):
        records.records[task_id] = task_record(task_id=task_id, tenant=task_id.partition(":")[0])


def tenants(client: DocumentedClient, query: str = "", who: str = "root") -> list[str]:
    """The tenants of a report's groups, checked against its `tenants` and total."""
    answer = client.call("GET", f"/cost/report?by=tenant{query}", who=who)
    assert answer.status_code == 200
    view: Any = answer.json
    names = [group["key"]["tenant"] for group in view["groups"]]
    assert view["tenants"] in (None, names)
    assert view["total"]["charges"] == sum(group["charges"] for group in view["groups"])
    return names


def test_the_record_comes_from_the_ledger(client: DocumentedClient, records: FakeRecords) -> None:
    answer = client.call("GET", RECORD, who="acme-read")
    assert RecordView.model_validate_json(answer.data) == record_view(records.records["acme:T-1"])
    view: Any = answer.json
    assert view["total"]["money"][0]["contracted_cost"] == "0.003700975"
    assert view["calls"][1]["usage"]["cached_tokens"] is None  # not known is not zero


def test_another_tenants_record_is_answered_like_a_missing_one(client: DocumentedClient) -> None:
    def ask(task_id: str, who: str) -> tuple[int, str]:
        answer = client.call("GET", f"/tasks/{task_id}/record", who=who)
        return answer.status_code, answer.text.replace(task_id, "TASK")

    assert ask("globex:T-2", "acme-admin") == ask("acme:T-9", "acme-admin") == ask("nonsense", "root")
    assert ask("globex:T-2", "acme-admin")[0] == 404


def test_a_token_sees_the_costs_of_its_own_tenants_only(client: DocumentedClient) -> None:
    assert tenants(client) == ["acme", "globex"]
    assert tenants(client, "&tenant=globex") == ["globex"]
    assert tenants(client, who="acme-read") == ["acme"]
    assert tenants(client, "&tenant=acme", who="acme-read") == ["acme"]
    assert client.call("GET", "/cost/report?tenant=globex", who="acme-read").status_code == 403
    assert client.call("GET", "/cost/report?tenant=globex", who="acme-admin").status_code == 403


def test_periods_have_whole_days_and_until_is_exclusive(client: DocumentedClient) -> None:
    assert tenants(client, "&since=2026-11-22&until=2026-11-23") == ["acme", "globex"]
    assert tenants(client, "&until=2026-11-22") == []
    assert tenants(client, "&since=2026-11-23") == []


def without_counts(report: Any) -> Any:
    """The command line's report without its additional fields: the groups' numbers of tasks, calls and retries, and
    the sidecars' retries."""
    groups = [{name: group[name] for name in group if name not in ("tasks", "work")} for group in report["groups"]]
    total = {name: report["total"][name] for name in report["total"] if name not in ("tasks", "work")}
    kept = {name: value for name, value in report.items() if name not in ("left_out", "unattributed_sidecar_retries")}
    return kept | {"groups": groups, "total": total}


def test_the_report_is_that_of_the_command_line(
    client: DocumentedClient, records: FakeRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", "sqlite://")
    monkeypatch.setattr(opening, "open_records", lambda: records)
    by = "tenant,stage,kind"
    assert client.call("GET", f"/cost/report?by={by}").json == without_counts(json_answer("cost", "report", "--by", by))
    assert client.call("GET", "/cost/report").json == without_counts(json_answer("cost", "report"))
    assert client.call("GET", RECORD).json == json_answer("record", "acme:T-1")


@pytest.mark.parametrize("dimension", list(Dimension))
def test_every_dimension_is_accepted(client: DocumentedClient, dimension: Dimension) -> None:
    answer: Any = client.call("GET", f"/cost/report?by={dimension.value},{dimension.value}").json
    assert answer["by"] == [dimension.value]  # a repeated dimension counts once
    assert sum(group["charges"] for group in answer["groups"]) == answer["total"]["charges"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("by=colour", "by"),
        ("by=", "by"),
        ("by=tenant,", "by"),
        ("by=tenant%0A", "by"),
        ("since=yesterday", "since"),
        ("until=2026-13-01", "until"),
        ("since=2026-11-22&until=2026-11-22", "(whole)"),
        ("tenant=A%20B", "tenant"),
        ("prices=/etc/passwd", "prices"),
    ],
)
def test_a_bad_query_names_the_parameter(client: DocumentedClient, query: str, field: str) -> None:
    answer: Any = client.call("GET", f"/cost/report?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == [field]


def test_metrics_are_for_a_token_of_all_tenants(client: DocumentedClient) -> None:
    answer = client.call("GET", "/metrics")
    assert (answer.status_code, answer.text) == (200, "refund_agent_tasks_total 2\n")
    assert answer.content_type == METRICS == CONTENT_TYPE_PLAIN_0_0_4
    for who in ("acme-read", "acme-admin"):
        refused = client.call("GET", "/metrics", who=who)
        assert refused.status_code == 403
        assert "use a token of all tenants" in json.loads(refused.data)["detail"]
    assert client.call("GET", "/metrics", who=None).status_code == 401


@pytest.mark.parametrize("path", [RECORD, "/cost/report", "/metrics"])
def test_costs_need_the_role_read(client: DocumentedClient, path: str) -> None:
    for who in ("acme-submit", "acme-approve"):
        assert client.call("GET", path, who=who).status_code == 403


@pytest.fixture
def one_call_a_tenant(records: FakeRecords) -> None:
    for task_id, record in list(records.records.items()):
        tenant = task_id.partition(":")[0]
        call = call_record(call_id=f"c-{tenant}", task_id=task_id, tenant=tenant)
        records.records[task_id] = task_record(task_id=task_id, tenant=tenant, steps=record.steps[:1], calls=(call,))


def bill_row(number: int, **changes: Any) -> dict[str, Any]:
    """The bill's row for `call_record()`."""
    tokens = {"input_tokens": 900, "cached_tokens": 100, "output_tokens": 80}
    at, model = "2026-11-22T12:00:00.400000+00:00", "sandbox-small"
    return {"id": number, "at": at, "model": model, "billed": True} | tokens | changes


@pytest.mark.usefixtures("one_call_a_tenant")
def test_a_bill_of_all_tenants_agrees_to_the_token(client: DocumentedClient) -> None:
    view: Any = client.call("POST", RECONCILE, body={"rows": [bill_row(1), bill_row(2)]}).json
    assert (view["unexplained_tokens"], view["difference_tokens"], view["rows"]) == (0, 0, [])
    assert (view["calls"]["agreeing"], view["billed"]["tokens"]) == (2, 1960)


@pytest.mark.usefixtures("one_call_a_tenant")
def test_a_row_without_a_call_is_reported(client: DocumentedClient) -> None:
    rows = [bill_row(1), bill_row(2), bill_row(3, input_tokens=7, cached_tokens=0, output_tokens=8)]
    view: Any = client.call("POST", RECONCILE, body={"rows": rows}).json
    assert view["unexplained_tokens"] == 15
    assert [(row["cause"], row["place"]) for row in view["rows"]] == [("unknown", "row 3")]


@pytest.mark.usefixtures("one_call_a_tenant")
def test_a_bill_may_be_csv_and_larger_than_a_ticket(client: DocumentedClient) -> None:
    line = "2026-11-22T12:00:00.4Z,sandbox-small,900,100,80," + ",".join(["x" * 100_000] * 2)
    text = f"time,model,input_tokens,cached_tokens,output_tokens,note,more\n{line}\n{line}\n"
    assert len(text) > MAX_BODY_BYTES
    view: Any = client.call("POST", RECONCILE, data=text.encode(), content_type="text/csv; charset=utf-8").json
    assert (view["unexplained_tokens"], view["bill"]["format"]) == (0, "csv")
    assert view["bill"]["unread_columns"] == ["note", "more"]


def test_a_malformed_bill_is_refused_with_its_place(client: DocumentedClient) -> None:
    answer: Any = client.call("POST", RECONCILE, body={"rows": [bill_row(1), bill_row(2, input_tokens="many")]})
    assert answer.status_code == 422
    assert "bill in the request, rows[1]" in answer.json["detail"]
    for raw in (b"", b"[]", b"no bill"):
        assert client.call("POST", RECONCILE, data=raw, content_type="application/json").status_code == 422


def test_a_bill_is_for_an_admin_of_all_tenants(client: DocumentedClient, records: FakeRecords) -> None:
    records.failure = AssertionError("the ledger was read for a caller without permission")
    for who in ("acme-read", "acme-admin", "globex-admin"):
        assert client.call("POST", RECONCILE, who=who, body={"rows": []}).status_code == 403
