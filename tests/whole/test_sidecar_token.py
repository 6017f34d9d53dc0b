"""daprd answers nobody without the token that it shares with the agent: real daprd, every kind of call."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos
from dapr.proto import api_service_v1, api_v1

from tests.live import Live, daprd_of
from tests.whole import tickets

pytestmark = [pytest.mark.runtime, pytest.mark.whole]

WORKFLOW = "/v1.0/workflows/dapr"
HTTP = {
    "secrets": ("GET", "/v1.0/secrets/secrets/bulk"),
    "invoke": ("POST", "/v1.0/invoke/refunds/method/post"),
    "workflow start": ("POST", f"{WORKFLOW}/refund_ticket/start?instanceID=acme:forged"),
    "workflow event": ("POST", f"{WORKFLOW}/acme:forged/raiseEvent/decision"),
    "workflow terminate": ("POST", f"{WORKFLOW}/acme:forged/terminate"),
    "workflow status": ("GET", f"{WORKFLOW}/acme:forged"),
    "conversation": ("POST", "/v1.0-alpha2/conversation/llm/converse"),
    "metadata": ("GET", "/v1.0/metadata"),
    "state": ("GET", "/v1.0/state/statestore/x"),
    "shutdown": ("POST", "/v1.0/shutdown"),
}
GRPC: dict[str, Callable[[grpc.Channel, Any], Any]] = {
    "GetInstanceHistory": lambda channel, options: stubs.TaskHubSidecarServiceStub(channel).GetInstanceHistory(
        protos.GetInstanceHistoryRequest(instanceId="acme:forged"), timeout=30, **options
    ),
    "StartInstance": lambda channel, options: stubs.TaskHubSidecarServiceStub(channel).StartInstance(
        protos.CreateInstanceRequest(instanceId="acme:forged", name="refund_ticket"), timeout=30, **options
    ),
    "RaiseEvent": lambda channel, options: stubs.TaskHubSidecarServiceStub(channel).RaiseEvent(
        protos.RaiseEventRequest(instanceId="acme:forged", name="decision"), timeout=30, **options
    ),
    "GetWorkItems": lambda channel, options: next(
        stubs.TaskHubSidecarServiceStub(channel).GetWorkItems(protos.GetWorkItemsRequest(), timeout=30, **options)
    ),
    "GetBulkSecret": lambda channel, options: api_service_v1.DaprStub(channel).GetBulkSecret(
        api_v1.GetBulkSecretRequest(store_name="secrets"), timeout=30, **options
    ),
    "Shutdown": lambda channel, options: api_service_v1.DaprStub(channel).Shutdown(
        api_v1.ShutdownRequest(), timeout=30, **options
    ),
}


@pytest.mark.parametrize("token", [None, "", "wrong", "almost"])
def test_every_part_of_the_http_api_refuses_a_caller_without_the_token(live: Live, token: str | None) -> None:
    given = live.stack.api_token[:-1] if token == "almost" else token  # noqa: S105 - a name for a wrong one
    headers = {} if given is None else {"dapr-api-token": given}
    with httpx.Client(base_url=live.stack.dapr_url, headers=headers, trust_env=False, timeout=30) as client:
        answers = {name: client.request(*request, json={}).status_code for name, request in HTTP.items()}
    assert answers == dict.fromkeys(HTTP, 401)


@pytest.mark.parametrize("name", GRPC)
def test_every_part_of_the_grpc_api_refuses_a_caller_without_the_token(live: Live, name: str) -> None:
    for metadata in ((), (("dapr-api-token", "wrong"),)):
        with grpc.insecure_channel(live.stack.dapr_grpc) as channel, pytest.raises(grpc.RpcError) as error:
            GRPC[name](channel, {"metadata": metadata})
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED, error.value.details()


def test_its_health_alone_is_open_and_says_nothing_but_that(live: Live) -> None:
    for path in ("/v1.0/healthz", "/v1.0/healthz/outbound"):
        answer = httpx.get(f"{live.stack.dapr_url}{path}", trust_env=False, timeout=30)
        assert (answer.status_code, answer.content) == (204, b"")


def test_with_the_token_each_answers_and_the_task_is_worked(live: Live) -> None:
    """What changes nothing is asked; that all else works, the agent shows: a ticket needs every kind of call."""
    task_id = live.submit(tickets.refund("T-token", 7_301))
    assert live.wait(task_id)["status"] == "completed"
    daprd = daprd_of(live.stack)
    with daprd.client(30) as client:
        assert client.get("/v1.0/metadata").json()["id"] == "agent"
        assert client.get("/v1.0/secrets/secrets/bulk").status_code == 200
    with grpc.insecure_channel(daprd.grpc) as channel:
        stub = stubs.TaskHubSidecarServiceStub(channel)
        request = protos.GetInstanceHistoryRequest(instanceId=task_id)
        assert stub.GetInstanceHistory(request, timeout=30, metadata=daprd.metadata).events


def test_the_token_is_its_owners_and_nobody_logs_it(live: Live) -> None:
    token = live.stack.api_token
    assert stat.S_IMODE((live.stack.state / "sidecar-token").stat().st_mode) == 0o600
    for log in (live.stack.state / "logs").glob("*.log"):
        assert token not in log.read_text(errors="replace"), log.name
