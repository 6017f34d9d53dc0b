"""Every caller of the sidecar sends its token and bypasses proxies."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import grpc
import pytest
from dapr.conf import settings as sdk_settings
from dapr.ext.workflow._durabletask.internal import shared

from app.config import settings
from app.config.proxies import bypass_proxies
from app.config.settings import Settings, bypass_proxies_for_sidecar
from app.dapr import sdk_patches, sidecar
from app.dapr.daprd import TOKEN_HEADER, Daprd
from app.dapr.history.reader import HistoryReader
from app.dapr.systems import DaprSystems
from app.domain.errors import ConfigurationError, RefundAgentError
from app.ledger.audit.refunds import posted_refunds
from app.llm.conversation import DaprConversation, Message
from app.tasks import workflow_client
from app.worker.worker import EventLoopWorker
from tests.paths import ROOT

DEAD = "http://127.0.0.1:9"
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "none": {},
    "socks for all": {"ALL_PROXY": "socks5://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9"},
    "lower case": {"http_proxy": DEAD, "https_proxy": DEAD},
    "upper case": {"HTTP_PROXY": DEAD, "HTTPS_PROXY": DEAD},
    "gRPC's own": {"grpc_proxy": DEAD, "no_grpc_proxy": "example.org"},
    "odd exceptions": {"http_proxy": DEAD, "NO_PROXY": " , ::1,[bad,http://*", "no_proxy": "*.example.org"},
    "no address": {"http_proxy": "not an address", "ALL_PROXY": "%%%"},
}


class RecordingSidecar:
    """A sidecar that records path and token of each call and refuses it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                recorder.calls.append((self.path, self.headers.get(TOKEN_HEADER)))
                self.send_response(200 if "health" in self.path else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Logs nothing."""

        class Refuse(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
            def service(self, details: Any) -> Any:
                recorder.calls.append((details.method, dict(details.invocation_metadata).get(TOKEN_HEADER)))

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.grpc = grpc.server(futures.ThreadPoolExecutor(4))
        self.grpc.add_generic_rpc_handlers((Refuse(),))
        port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.daprd = Daprd(f"http://127.0.0.1:{self.http.server_port}", f"127.0.0.1:{port}", "s3cret")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingSidecar]:
    """A running `RecordingSidecar`. The SDK checks its health at a port from the SDK's own settings."""
    made = RecordingSidecar()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    made.grpc.start()
    monkeypatch.setattr(sdk_settings, "DAPR_HTTP_PORT", made.http.server_port)
    monkeypatch.setattr(sdk_settings, "DAPR_API_TOKEN", None)
    monkeypatch.setattr(shared, "DEFAULT_GRPC_KEEPALIVE_OPTIONS", ())
    sdk_patches.reconnect_quickly()
    yield made
    made.grpc.stop(None).wait()
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def _systems(daprd: Daprd) -> None:
    async def ask() -> None:
        systems = DaprSystems(daprd)
        try:
            await systems.ask("refunds", "post", {})
        finally:
            await systems.close()

    asyncio.run(ask())


def _history(daprd: Daprd) -> None:
    with HistoryReader(daprd, patience_seconds=0) as reader:
        reader.events("acme:T-1")


def _runs(daprd: Daprd) -> None:
    client = workflow_client.connect(daprd)
    try:
        workflow_client.WorkflowClient(client).get("acme:T-1")
    finally:
        client.close()


def _worker(daprd: Daprd) -> None:
    worker = EventLoopWorker(daprd, 1, lambda *_: None, Mock(), Mock())
    asyncio.run(worker._connect())


def _conversation(daprd: Daprd) -> None:
    async def ask() -> None:
        model = DaprConversation("llm", daprd)
        try:
            await model.ask((Message("user", "hello"),), ())
        finally:
            if model._client is not None:
                await model._client.close()

    asyncio.run(ask())


CALLERS: dict[str, Callable[[Daprd], object]] = {
    "secrets": lambda daprd: sidecar.secret(daprd, "secrets", "api-tokens"),
    "connected workers": lambda daprd: sidecar.WorkerConnection(daprd)._workers(),
    "shutdown": lambda daprd: sidecar.WorkerConnection(daprd)._end(),
    "internal systems": _systems,
    "posted refunds": lambda daprd: list(posted_refunds(daprd)),
    "history": _history,
    "runs": _runs,
    "worker": _worker,
    "conversation": _conversation,
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_caller_sends_the_token_and_bypasses_proxies(
    recorder: RecordingSidecar, caller: str, environment: str
) -> None:
    before = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with patch.dict(os.environ, before | ENVIRONMENTS[environment], clear=True):
        bypass_proxies_for_sidecar(Settings())
        with contextlib.suppress(RefundAgentError, grpc.RpcError):
            CALLERS[caller](recorder.daprd)
    asked = [call for call in recorder.calls if "/health" not in call[0]]
    assert asked, f"{caller} did not reach the sidecar"
    assert {token for _, token in asked} == {"s3cret"}, asked


def test_a_token_that_the_sidecar_does_not_know_says_what_to_do(recorder: RecordingSidecar) -> None:
    with pytest.raises(ConfigurationError, match="give both the same DAPR_API_TOKEN"):
        sidecar.secret(recorder.daprd, "secrets", "api-tokens")


def test_the_token_comes_from_the_environment_or_from_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAPR_API_TOKEN", raising=False)
    known = Settings(state_dir=tmp_path)
    assert (known.daprd.token, known.daprd.headers, known.daprd.metadata) == ("", {}, ())
    (tmp_path / settings.API_TOKEN_FILE).write_text("of-the-file\n")
    assert known.daprd.token == "of-the-file"  # noqa: S105 - not one
    monkeypatch.setenv("DAPR_API_TOKEN", "of-the-environment")
    both = Settings(state_dir=tmp_path)
    assert both.daprd.headers == {TOKEN_HEADER: "of-the-environment"}
    assert "of-the-environment" not in f"{both!r} {both.daprd!r}"


@pytest.mark.parametrize("bad", [b"\xff\xfe", None])
def test_a_token_file_that_cannot_be_read_is_named(bad: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / settings.API_TOKEN_FILE
    path.mkdir() if bad is None else path.write_bytes(bad)
    with pytest.raises(ConfigurationError, match=f"{settings.API_TOKEN_FILE}: the sidecar's token cannot be read"):
        _ = Settings(state_dir=tmp_path).daprd


def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPR_API_TOKEN", "two\nlines")
    with pytest.raises(ConfigurationError, match="DAPR_API_TOKEN") as error:
        settings.load()
    assert "two" not in str(error.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1,daprd.local"),
        ({"NO_PROXY": "a.org, b.org,"}, "a.org,b.org,127.0.0.1,localhost,::1,daprd.local"),
        ({"no_proxy": "x", "NO_PROXY": "y"}, "x,127.0.0.1,localhost,::1,daprd.local"),
        ({"no_proxy": "*"}, "*"),
        ({"no_proxy": "a.org,*"}, "*"),
    ],
)
def test_existing_proxy_exceptions_are_kept(before: dict[str, str], after: str) -> None:
    assert bypass_proxies(before, "daprd.local") == {"no_proxy": after, "NO_PROXY": after}


# The files that make clients which could call the sidecar. Add a new one here if it sends the token or calls another
# server.
MAKERS = {
    "httpx": {
        "app/dapr/daprd.py": "the sidecar's",
        "app/dapr/sidecar.py": "its health, which is open",
        "app/cli/client.py": "the agent, the sandbox",
        "app/worker/sidecar_watch.py": "its metrics, which are open",
    },
    "aiohttp": {"app/dapr/systems.py": "the sidecar's", "sandbox/systems/events.py": "the sandbox itself"},
    "grpc": {"app/worker/worker.py": "the sidecar's", "app/dapr/history/reader.py": "the sidecar's"},
    "sdk": {"app/tasks/workflow_client.py": "the sidecar's", "app/llm/conversation.py": "the sidecar's"},
}
NAMES = {
    "httpx": {"httpx.Client", "httpx.AsyncClient", "httpx.get", "httpx.post", "httpx.put", "httpx.request"},
    "aiohttp": {"aiohttp.ClientSession", "aiohttp.request"},
    "grpc": {"grpc.insecure_channel", "grpc.secure_channel", "grpc.aio.insecure_channel", "grpc.aio.secure_channel"},
    "sdk": {"DaprClient", "DaprWorkflowClient", "DaprActorClient", "WorkflowRuntime"},
}


@pytest.mark.parametrize("kind", MAKERS)
def test_clients_are_made_only_in_known_files(kind: str) -> None:
    files = {
        str(file.relative_to(ROOT))
        for file in (*(ROOT / "app").rglob("*.py"), *(ROOT / "sandbox").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in NAMES[kind]
    }
    assert files == set(MAKERS[kind])


def test_the_runtime_and_the_agent_use_the_same_token_file() -> None:
    from runtime.state import API_TOKEN_FILE

    assert API_TOKEN_FILE == settings.API_TOKEN_FILE
