"""The reader against a fake sidecar over real gRPC on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from dapr.ext.workflow._durabletask.internal import orchestrator_service_pb2_grpc as stubs
from dapr.ext.workflow._durabletask.internal import protos

from app.dapr.daprd import Daprd
from app.dapr.history.model import Failure, Payload, RunStatus, WorkflowRun
from app.dapr.history.reader import HistoryReader
from app.domain.errors import AttemptAlreadyFailed, ConfigurationError, HistoryTampered, TaskNotFound, Unreachable
from runtime.loopback import free_ports
from tests.dapr.history.told import Told, at, details

Answer = Callable[[Any, Any], Any]


@dataclass
class Sidecar(stubs.TaskHubSidecarServiceServicer):  # type: ignore[misc]  # generated without types
    """A sidecar with configurable answers that counts requests for histories."""

    history: Answer = lambda request, context: protos.GetInstanceHistoryResponse()
    instance: Answer = lambda request, context: protos.GetInstanceResponse()
    pages: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    asked: int = 0
    tokens: list[str] = field(default_factory=list)
    port: int = 0

    def GetInstanceHistory(self, request: Any, context: Any) -> Any:
        """As daprd does."""
        self.asked += 1
        self.tokens += [value for key, value in context.invocation_metadata() if key == "dapr-api-token"]
        return self.history(request, context)

    def GetInstance(self, request: Any, context: Any) -> Any:
        """Answers as daprd does."""
        assert request.getInputsAndOutputs
        return self.instance(request, context)

    def ListInstanceIDs(self, request: Any, context: Any) -> Any:
        """As daprd: a page for each token; the last one without."""
        ids, following = self.pages[request.continuationToken]
        assert len(ids) <= request.pageSize
        return protos.ListInstanceIDsResponse(instanceIds=ids, continuationToken=following or None)


def start(sidecar: Sidecar) -> grpc.Server:
    """Starts a sidecar, on its previous port if it had one."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    stubs.add_TaskHubSidecarServiceServicer_to_server(sidecar, server)
    sidecar.port = server.add_insecure_port(f"127.0.0.1:{sidecar.port}")
    server.start()
    return server


def reach(sidecar: Sidecar, token: str = "") -> Daprd:
    """The address of a sidecar."""
    return Daprd("", f"127.0.0.1:{sidecar.port}", token)


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    """A running sidecar."""
    sidecar_server = Sidecar()
    server = start(sidecar_server)
    yield sidecar_server
    server.stop(None).wait()


@pytest.fixture
def reader(sidecar: Sidecar) -> Iterator[HistoryReader]:
    """A patient reader of this sidecar."""
    with HistoryReader(reach(sidecar), patience_seconds=60, pause=lambda _: time.sleep(0.02)) as history_reader:
        yield history_reader


def fails(code: grpc.StatusCode, words: str) -> Answer:
    """Answers with an error."""
    return lambda request, context: context.abort(code, words)


def tells(told: Told) -> Answer:
    """Answers with a history."""
    return lambda request, context: protos.GetInstanceHistoryResponse(events=told.events)


def test_a_run_is_read(sidecar: Sidecar, reader: HistoryReader) -> None:
    sidecar.history = tells(Told().turn(1).started(0).scheduled(2, 1).turn(4).completed(3, 1).ended(4))
    run = reader.read("acme:T-1")
    assert isinstance(run, WorkflowRun)
    assert (run.instance_id, run.status, run.started_at, len(run.steps)) == ("acme:T-1", "completed", at(0), 1)


def test_an_unknown_instance(sidecar: Sidecar, reader: HistoryReader) -> None:
    sidecar.history = fails(grpc.StatusCode.NOT_FOUND, "workflow instance 'x' not found")
    for ask in (reader.read, reader.status):
        with pytest.raises(TaskNotFound, match="no workflow instance acme:T-9"):
            ask("acme:T-9")


@pytest.mark.parametrize(
    "words",
    [
        "workflow history signature verification failed for 'i': signature 1: events digest mismatch",
        "signature state key 'signature-000001' declared in metadata but not found in state store — possible tampering",
        "workflow 'i' has 12 unsigned history events but signing is enabled — signing cannot be enabled",
        "failed to unmarshal history event from history state key 'history-000001': proto: cannot parse",
        "workflow 'i': history key 'history-000003' declared in metadata but missing from state store (transient …?)",
    ],
)
def test_a_history_that_does_not_verify_is_named_with_daprs_words(sidecar: Sidecar, words: str) -> None:
    sidecar.history = fails(grpc.StatusCode.UNKNOWN, words)
    with (
        HistoryReader(reach(sidecar), patience_seconds=0.3, pause=lambda _: time.sleep(0.02)) as hasty,
        pytest.raises(HistoryTampered) as caught,
    ):
        hasty.read("i")
    assert (caught.value.instance_id, caught.value.words) == ("i", words)
    assert "instance i" in str(caught.value)
    assert words in str(caught.value)


def test_a_history_that_was_restarted_during_the_read_is_read_again(sidecar: Sidecar, reader: HistoryReader) -> None:
    def answer(request: Any, context: Any) -> Any:
        if sidecar.asked == 1:
            context.abort(grpc.StatusCode.UNKNOWN, "workflow history signature verification failed for 'i'")
        return tells(Told().turn(1).started(0))(request, context)

    sidecar.history = answer
    assert reader.read("i").status is RunStatus.RUNNING
    sidecar.history = fails(grpc.StatusCode.UNKNOWN, "workflow history signature verification failed for 'i'")
    with pytest.raises(HistoryTampered):
        reader.read("i")
    assert sidecar.asked == 4, "what does not verify twice is not asked a third time"


@pytest.mark.parametrize(
    "words", ["workflow history signature verification failed for 'i'", "missing from state store"]
)
def test_a_doubtful_history_is_read_again_even_without_patience(sidecar: Sidecar, words: str) -> None:
    def answer(request: Any, context: Any) -> Any:
        if sidecar.asked == 1:
            context.abort(grpc.StatusCode.UNKNOWN, words)
        return tells(Told().turn(1).started(0))(request, context)

    sidecar.history = answer
    with HistoryReader(reach(sidecar), patience_seconds=0) as reader:
        assert reader.read("i").status is RunStatus.RUNNING
    assert sidecar.asked == 2


def test_a_run_that_dapr_ended_because_its_history_was_changed(sidecar: Sidecar, reader: HistoryReader) -> None:
    why = details("DAPR_WORKFLOW_HISTORY_TAMPERED", "signature 1: digest mismatch")
    sidecar.history = tells(Told().turn(1).started(0).ended(4, -1, status=3, failureDetails=why))
    with pytest.raises(HistoryTampered, match="signature 1: digest mismatch"):
        reader.read("i")


def test_a_run_that_dapr_ended_for_that_before_it_saved_a_turn(sidecar: Sidecar, reader: HistoryReader) -> None:
    why = details("DAPR_WORKFLOW_HISTORY_TAMPERED", "activity completion references unknown task scheduled id 4")
    sidecar.history = tells(Told().turn(1).started(0).ended(4, -1, status=3, failureDetails=why).turn(5))
    with pytest.raises(HistoryTampered, match="unknown task scheduled id 4") as raised:
        reader.read("i")
    assert raised.value.given_up_at is not None


def test_rows_that_are_missing_for_a_moment(sidecar: Sidecar, reader: HistoryReader) -> None:
    def answer(request: Any, context: Any) -> Any:
        if sidecar.asked < 3:
            context.abort(grpc.StatusCode.UNKNOWN, "history key 'history-000003' … missing from state store")
        context.abort(grpc.StatusCode.NOT_FOUND, "purged")

    sidecar.history = answer
    with pytest.raises(TaskNotFound):
        reader.read("i")
    assert sidecar.asked == 3


def test_a_daprd_that_reads_torn_histories_again_itself_is_asked_only_once_more(
    sidecar: Sidecar, reader: HistoryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.dapr.sidecar.version", lambda _: "1.18.3")
    sidecar.history = fails(grpc.StatusCode.UNKNOWN, "history key 'history-000003' … missing from state store")
    with pytest.raises(HistoryTampered):
        reader.read("i")
    assert sidecar.asked == 2


def test_a_sidecar_that_cannot_verify_is_set_up_wrongly(sidecar: Sidecar, reader: HistoryReader) -> None:
    sidecar.history = fails(grpc.StatusCode.UNKNOWN, "workflow 'i' has signed history but no signer is configured")
    with pytest.raises(ConfigurationError, match=r"WorkflowHistorySigning on again in config/dapr.yaml"):
        reader.read("i")


def test_any_other_error_is_told_and_may_be_tried_again(sidecar: Sidecar, reader: HistoryReader) -> None:
    sidecar.history = fails(grpc.StatusCode.INTERNAL, "the state store is full")
    with pytest.raises(Unreachable, match=r"INTERNAL: the state store is full.*doctor"):
        reader.read("i")
    assert sidecar.asked == 1, "only what may pass in a moment is asked again at once"


def test_a_sidecar_that_hangs(sidecar: Sidecar) -> None:
    def hang(request: Any, context: Any) -> Any:
        while context.is_active():
            time.sleep(0.01)

    sidecar.history = hang
    with (
        HistoryReader(reach(sidecar), timeout_seconds=0.2) as reader,
        pytest.raises(Unreachable, match="DEADLINE_EXCEEDED"),
    ):
        reader.read("i")


def test_an_unreachable_sidecar() -> None:
    with (
        HistoryReader(Daprd("", "127.0.0.1:1", ""), patience_seconds=0.2, pause=lambda _: time.sleep(0.02)) as nowhere,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 .*UNAVAILABLE"),
    ):
        nowhere.read("i")


def test_a_sidecar_that_comes_back_is_found_within_seconds() -> None:
    (port,) = free_ports(1)  # nobody else gets it while the sidecar is away
    sidecar = Sidecar(history=tells(Told().turn(1).started(0)), port=port)
    server = start(sidecar)
    with HistoryReader(reach(sidecar), patience_seconds=30, pause=lambda _: time.sleep(0.05)) as reader:
        assert reader.read("i").status is RunStatus.RUNNING
        server.stop(None).wait()
        with futures.ThreadPoolExecutor(1) as pool:
            reading = pool.submit(reader.read, "i")
            assert futures.wait([reading], timeout=0.5).not_done, "it waits for the sidecar"
            server = start(sidecar)
            assert reading.result(timeout=30).status is RunStatus.RUNNING
    server.stop(None).wait()


def test_the_input_and_the_result_of_a_step(sidecar: Sidecar, reader: HistoryReader) -> None:
    told = Told().turn(1).started(0).scheduled(1.1, 1, text='{"of": "one"}').scheduled(1.2, 2).scheduled(1.3, 3)
    sidecar.history = tells(told.completed(2, 1, '"done"').failed(2.5, 2))
    assert reader.scheduled_input("i", 1, "k") == '{"of": "one"}'
    assert reader.scheduled_input("i", 4, "k") is None
    assert reader.scheduled_input("i", 1, "of another run") is None
    assert reader.result("i", 1, "k") == '"done"'
    assert reader.result("i", 3, "k") is None
    assert reader.result("i", 1, "of another run") is None
    with pytest.raises(AttemptAlreadyFailed):
        reader.result("i", 2, "k")


def test_status(sidecar: Sidecar, reader: HistoryReader) -> None:
    state = protos.WorkflowState(instanceId="i", name="w", workflowStatus=protos.ORCHESTRATION_STATUS_FAILED)
    state.createdTimestamp.FromDatetime(at(1))
    state.lastUpdatedTimestamp.FromDatetime(at(2))
    state.customStatus.value = '{"status": "waiting"}'
    state.failureDetails.CopyFrom(details("E", "no"))
    sidecar.instance = lambda request, context: protos.GetInstanceResponse(exists=True, workflowState=state)
    status = reader.status("i")
    assert (status.status, status.created_at, status.updated_at) == (RunStatus.FAILED, at(1), at(2))
    assert status.custom_status == Payload('{"status": "waiting"}')
    assert status.failure == Failure("E", "no")


def test_pages_follow_each_other_and_each_instance_comes_once(sidecar: Sidecar, reader: HistoryReader) -> None:
    sidecar.pages = {"": (["a", "b"], "7"), "7": (["c", "a"], "9"), "9": ([], "")}
    assert reader.page(size=2).instance_ids == ("a", "b")
    following = reader.page("7", size=2).next_token
    assert following == "9"
    assert list(reader.instance_ids(page_size=2)) == ["a", "b", "c"]


def test_an_api_token_is_sent_where_there_is_one(sidecar: Sidecar) -> None:
    with HistoryReader(reach(sidecar, sidecar.__class__.__name__)) as reader:
        reader.events("i")
    with HistoryReader(reach(sidecar)) as reader:
        reader.events("i")
    assert sidecar.tokens == ["Sidecar"]


def test_many_threads_share_one_reader(sidecar: Sidecar, reader: HistoryReader) -> None:
    sidecar.history = tells(Told().turn(1).started(0).ended(2))
    with futures.ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(reader.read, [f"i{number}" for number in range(40)]))
    assert [run.instance_id for run in runs] == [f"i{number}" for number in range(40)]
