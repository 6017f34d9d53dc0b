"""What the API says about money: the record, the report and the metrics; tenants apart, and all digits."""

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
    """The tenants of a report's groups, which must be those that it names."""
    answer = client.call("GET", f"/cost/report?by=tenant{query}", who=who)
    assert answer.status_code == 200
    view: Any = answer.json
    found = [group["key"]["tenant"] for group in view["groups"]]
    assert view["tenants"] in (None, found)
    assert view["total"]["charges"] == sum(group["charges"] for group in view["groups"])
    return found


def test_the_record_is_the_ledgers(client: DocumentedClient, records: FakeRecords) -> None:
    answer = client.call("GET", RECORD, who="acme-read")
    assert RecordView.model_validate_json(answer.data) == record_view(records.records["acme:T-1"])
    view: Any = answer.json
    assert view["total"]["money"][0]["contracted_cost"] == "0.003700975"
    assert view["calls"][1]["usage"]["cached_tokens"] is None  # not known is not zero


def test_anothers_record_is_told_from_none_by_nothing(client: DocumentedClient) -> None:
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


def test_days_are_whole_and_the_last_is_not_among_them(client: DocumentedClient) -> None:
    assert tenants(client, "&since=2026-11-22&until=2026-11-23") == ["acme", "globex"]
    assert tenants(client, "&until=2026-11-22") == []
    assert tenants(client, "&since=2026-11-23") == []


def uncounted(report: Any) -> Any:
    """The command line's report without what it alone adds: the tasks of each group, what was done for them, and
    what the sidecars of all tenants repeated."""
    groups = [{name: each[name] for name in each if name not in ("tasks", "work")} for each in report["groups"]]
    total = {name: report["total"][name] for name in report["total"] if name not in ("tasks", "work")}
    kept = {name: value for name, value in report.items() if name not in ("left_out", "unattributed_sidecar_retries")}
    return kept | {"groups": groups, "total": total}


def test_the_report_is_the_command_lines(
    client: DocumentedClient, records: FakeRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUND_AGENT_LEDGER_URL", "sqlite://")
    monkeypatch.setattr(opening, "open_records", lambda: records)
    by = "tenant,stage,kind"
    assert client.call("GET", f"/cost/report?by={by}").json == uncounted(json_answer("cost", "report", "--by", by))
    assert client.call("GET", "/cost/report").json == uncounted(json_answer("cost", "report"))
    assert client.call("GET", RECORD).json == json_answer("record", "acme:T-1")


@pytest.mark.parametrize("dimension", list(Dimension))
def test_every_dimension_can_be_asked_for(client: DocumentedClient, dimension: Dimension) -> None:
    answer: Any = client.call("GET", f"/cost/report?by={dimension.value},{dimension.value}").json
    assert answer["by"] == [dimension.value]  # once, also when asked for twice
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


# Against a provider's bill.


@pytest.fixture
def one_call_a_tenant(records: FakeRecords) -> None:
    for task_id, record in list(records.records.items()):
        tenant = task_id.partition(":")[0]
        call = call_record(call_id=f"c-{tenant}", task_id=task_id, tenant=tenant)
        records.records[task_id] = task_record(task_id=task_id, tenant=tenant, steps=record.steps[:1], calls=(call,))


def bill_row(number: int, **changes: Any) -> dict[str, Any]:
    """What the provider wrote down of `call_record()`."""
    tokens = {"input_tokens": 900, "cached_tokens": 100, "output_tokens": 80}
    at, model = "2026-11-22T12:00:00.400000+00:00", "sandbox-small"
    return {"id": number, "at": at, "model": model, "billed": True} | tokens | changes


@pytest.mark.usefixtures("one_call_a_tenant")
def test_a_bill_of_all_tenants_agrees_to_the_token(client: DocumentedClient) -> None:
    found: Any = client.call("POST", RECONCILE, body={"rows": [bill_row(1), bill_row(2)]}).json
    assert (found["unexplained_tokens"], found["difference_tokens"], found["rows"]) == (0, 0, [])
    assert (found["calls"]["agreeing"], found["billed"]["tokens"]) == (2, 1960)


@pytest.mark.usefixtures("one_call_a_tenant")
def test_what_no_call_accounts_for_is_named(client: DocumentedClient) -> None:
    rows = [bill_row(1), bill_row(2), bill_row(3, input_tokens=7, cached_tokens=0, output_tokens=8)]
    found: Any = client.call("POST", RECONCILE, body={"rows": rows}).json
    assert found["unexplained_tokens"] == 15
    assert [(row["cause"], row["place"]) for row in found["rows"]] == [("unknown", "row 3")]


@pytest.mark.usefixtures("one_call_a_tenant")
def test_a_bill_may_be_csv_and_larger_than_a_ticket(client: DocumentedClient) -> None:
    line = "2026-11-22T12:00:00.4Z,sandbox-small,900,100,80," + ",".join(["x" * 100_000] * 2)
    text = f"time,model,input_tokens,cached_tokens,output_tokens,note,more\n{line}\n{line}\n"
    assert len(text) > MAX_BODY_BYTES
    found: Any = client.call("POST", RECONCILE, data=text.encode(), content_type="text/csv; charset=utf-8").json
    assert (found["unexplained_tokens"], found["bill"]["format"]) == (0, "csv")
    assert found["bill"]["unread_columns"] == ["note", "more"]


def test_a_bill_that_cannot_be_read_is_said_where(client: DocumentedClient) -> None:
    answer: Any = client.call("POST", RECONCILE, body={"rows": [bill_row(1), bill_row(2, input_tokens="many")]})
    assert answer.status_code == 422
    assert "bill in the request, rows[1]" in answer.json["detail"]
    for raw in (b"", b"[]", b"no bill"):
        assert client.call("POST", RECONCILE, data=raw, content_type="application/json").status_code == 422


def test_a_bill_is_for_an_admin_of_all_tenants(client: DocumentedClient, records: FakeRecords) -> None:
    records.failure = AssertionError("the ledger was read for somebody who may not")
    for who in ("acme-read", "acme-admin", "globex-admin"):
        assert client.call("POST", RECONCILE, who=who, body={"rows": []}).status_code == 403
