"""Exporting spans to a real collector, to one that is down, and to one that refuses them."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from app.pricing.charge_types import CallRecord
from app.telemetry import export
from app.telemetry.export import Traces, traces_url
from app.telemetry.spans import Texts, plan
from runtime.loopback import free_ports
from tests.paths import ROOT
from tests.records import task_record
from tests.telemetry.collector import attributes, running_collector

SPANS = len(plan(task_record()))


@contextmanager
def traces_to(url: str, capacity: int = 1_000, texts: Texts | None = None) -> Iterator[Traces]:
    traces = Traces(url, service="refund-agent", version="9.9", texts=texts, capacity=capacity)
    traces.start()
    try:
        yield traces
    finally:
        traces.stop(10)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the pauses between attempts."""
    monkeypatch.setattr(export, "_GATHER_SECONDS", 0.01)
    monkeypatch.setattr(export, "_LONGEST_PAUSE_SECONDS", 0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_collector_gets_what_was_planned() -> None:
    record = task_record(trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with running_collector() as collector, traces_to(collector.url) as traces:
        traces.observe(record)
        got = collector.wait_for_spans(SPANS)
    assert collector.paths == ["/v1/traces"]
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    for planned, span in zip(plan(record), got, strict=True):
        assert span.name == planned.name
        assert span.trace_id.hex() == f"{planned.trace_id:032x}"
        assert span.span_id.hex() == f"{planned.span_id:016x}"
        assert span.parent_span_id.hex() == f"{planned.parent_id:016x}"
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (planned.start, planned.end)
        assert attributes(span) == planned.attributes
        assert [type(value) for value in attributes(span).values()] == [*map(type, planned.attributes.values())]
        assert span.kind == (Span.SPAN_KIND_CLIENT if planned.name.startswith("chat") else Span.SPAN_KIND_INTERNAL)
        assert span.status.code == (Status.STATUS_CODE_ERROR if planned.failed else Status.STATUS_CODE_UNSET)
        assert not span.status.message
    assert [span.flags for span in got] == [0x301, *[0x101] * (SPANS - 1)]  # only the task's parent is elsewhere


def test_the_resource_is_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _resource() == {"service.name": "refund-agent", "service.version": "9.9"}
    monkeypatch.setenv("OTEL_SERVICE_NAME", "desk")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    assert _resource()["service.name"] == "desk"
    assert _resource()["deployment.environment.name"] == "test"


def _resource() -> dict[str, str]:
    with running_collector() as collector, traces_to(collector.url) as traces:
        traces.observe(task_record())
        collector.wait_for_spans(SPANS)
    resource = collector.requests[0].resource_spans[0].resource
    return {attribute.key: attribute.value.string_value for attribute in resource.attributes}


def test_the_standards_headers_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=abc")
    with running_collector() as collector, traces_to(collector.url) as traces:
        traces.observe(task_record())
        collector.wait_for_spans(SPANS)
    assert collector.headers[0]["api-key"] == "abc"


def test_stop_sends_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_GATHER_SECONDS", 60.0)  # so that no smaller request leaves before the last task came
    with running_collector() as collector:
        with traces_to(collector.url) as traces:
            for number in range(120):
                traces.observe(task_record(task_id=f"acme:T-{number}"))
        assert len(collector.spans()) == 120 * SPANS
        assert len({span.trace_id for span in collector.spans()}) == 120
    assert len(collector.requests) == 3
    assert traces.dropped == 0


@pytest.mark.usefixtures("no_pauses")
def test_a_collector_that_is_down_is_one_warning_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running_collector(status=503) as collector, traces_to(collector.url) as traces:
        for number in range(3):
            traces.observe(task_record(task_id=f"acme:T-{number}"))
            collector.wait_for_refusals(number + 1)
        collector.status = 200
        collector.wait_for_spans(3 * SPANS)
    assert traces.dropped == 0
    (warning,) = warnings(caplog)
    assert f"{collector.url}/v1/traces takes no spans" in warning
    assert "REFUND_AGENT_OTLP_ENDPOINT" in warning
    assert "takes spans again" in caplog.records[-1].getMessage()


@pytest.mark.usefixtures("no_pauses")
def test_a_missing_collector_is_one_warning_without_secrets(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(export, "_TRIES", 1_000_000)  # so that the task still waits at the end
    (port,) = free_ports(1)
    traces = Traces(f"http://user:pass@127.0.0.1:{port}/v1/traces?key=abc", service="a", version="1")
    traces.start()
    traces.observe(task_record())
    _until(lambda: bool(warnings(caplog)))
    traces.stop(60)
    assert traces.dropped == 1
    first, *rest = warnings(caplog)
    assert f"http://127.0.0.1:{port}/v1/traces takes no spans" in first
    assert "takes no spans (ConnectionError)" in first
    assert len(rest) == 1, "and one more for what was lost at the end"
    assert "pass" not in caplog.text
    assert "key=abc" not in caplog.text


def test_the_end_is_bounded_and_says_what_was_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_REQUEST_SECONDS", 600.0)  # by itself it would go on for half a minute and more
    (port,) = free_ports(1)
    traces = Traces(f"http://127.0.0.1:{port}", service="a", version="1")
    traces.start()
    traces.observe(task_record())
    began = time.monotonic()
    traces.stop(1)
    assert time.monotonic() - began < 15
    assert traces.dropped == 1
    (warning,) = warnings(caplog)
    assert "stopped before" in warning


@pytest.mark.usefixtures("no_pauses")
def test_a_batch_that_is_always_refused_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with running_collector(status=401) as collector, traces_to(collector.url) as traces:
        traces.observe(task_record())
        collector.wait_for_refusals(8)
        _until(lambda: traces.dropped == 1)
        collector.status = 200
        traces.observe(task_record(task_id="acme:T-2"))
        assert len(collector.wait_for_spans(SPANS)) == SPANS
    (warning,) = warnings(caplog)
    assert "takes no spans (status 401)" in warning


def test_the_queue_is_bounded_and_the_oldest_goes() -> None:
    with running_collector() as collector:
        traces = Traces(collector.url, service="a", version="1", capacity=2)
        for number in range(5):
            traces.observe(task_record(task_id=f"acme:T-{number}"))
        assert traces.dropped == 3
        traces.start()
        traces.stop(10)
        ids = {attributes(span)["refund_agent.task.id"] for span in collector.spans()}
    assert ids == {"acme:T-3", "acme:T-4"}


def test_after_the_end_nothing_is_kept() -> None:
    with running_collector() as collector:
        with traces_to(collector.url) as traces:
            pass
        traces.observe(task_record())
    assert traces.dropped == 1
    assert not collector.requests


@pytest.mark.usefixtures("no_pauses")
def test_a_record_that_cannot_be_exported_drops_only_its_own_spans(caplog: pytest.LogCaptureFixture) -> None:
    def texts(call: CallRecord) -> str:
        return "\ud800" if call.task_id == "acme:T-1" else "[]"

    bad, good = task_record(), task_record(task_id="acme:T-2", calls=())
    with running_collector(status=500) as collector, traces_to(collector.url, texts=texts) as traces:
        traces.observe(bad)
        traces.observe(good)
        collector.wait_for_refusals(1)
        collector.status = 200
        got = collector.wait_for_spans(SPANS - 4)
    assert {attributes(span)["refund_agent.task.id"] for span in got} == {"acme:T-2"}
    assert traces.dropped == 1
    assert "the spans of task acme:T-1 are dropped" in caplog.text


def test_the_writer_of_records_never_waits(caplog: pytest.LogCaptureFixture) -> None:
    record = task_record()
    with running_collector(status=503) as collector, traces_to(collector.url, capacity=10) as traces:
        began = time.perf_counter()
        for _ in range(5_000):
            traces.observe(record)
        assert time.perf_counter() - began < 60  # one refusal takes seconds, and it would wait for thousands
        collector.status = 200
    assert traces.dropped >= 4_900
    assert len(warnings(caplog)) <= 1


def test_traces_urls() -> None:
    assert traces_url("http://c:4318") == "http://c:4318/v1/traces"
    assert traces_url("http://c:4318/") == "http://c:4318/v1/traces"
    assert traces_url("https://c/otlp/v1/traces") == "https://c/otlp/v1/traces"
    assert traces_url("https://c/otlp?key=abc") == "https://c/otlp/v1/traces?key=abc"


def test_no_library_begins_to_trace() -> None:
    """Telemetry must not load the SDK's tracing of gRPC, which would take a fifth of the worker's time."""
    code = (
        "from app.dapr.sdk_patches import disable_grpc_spans; disable_grpc_spans()\n"
        "import grpc; before = grpc.insecure_channel\n"
        "from app.telemetry.export import Traces; from app.telemetry.metrics import Metrics\n"
        "Metrics(); traces = Traces('http://127.0.0.1:9', service='a', version='1'); traces.start(); traces.stop(0)\n"
        "from opentelemetry import trace; from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient\n"
        "assert grpc.insecure_channel is before and not hasattr(before, '__wrapped__'), 'wrapped'\n"
        "assert not GrpcInstrumentorClient().is_instrumented_by_opentelemetry, 'instrumented'\n"
        "assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), trace.get_tracer_provider()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
