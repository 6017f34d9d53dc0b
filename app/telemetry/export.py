"""Sends the spans of ended tasks to an OTLP collector, from a separate thread.

Handing over a record takes a microsecond and never waits or fails. If the collector is down, one warning is logged and
tasks wait, up to a limit, until it is back. Dropped tasks are counted.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from sqlalchemy import Engine, select

from app.domain.redaction import redact
from app.ledger.store.tables import MODEL_CALLS
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import CallRecord
from app.telemetry.spans import PlannedSpan, SpanKind, Texts, Value, plan

log = logging.getLogger(__name__)


# The redacted answers of model calls in the conventions' form. They are read only if texts are switched on.


class StoredAnswers:
    """Reads the answers of calls from the journal. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self, call: CallRecord) -> str | None:
        """The answer as `gen_ai.output.messages`; None if there is none, or its retention time has passed."""
        query = select(MODEL_CALLS.c.answer).where(MODEL_CALLS.c.call_id == call.call_id)
        with self._engine.connect() as connection:
            stored = connection.execute(query).scalar_one_or_none()
        return output_messages(stored) if stored else None


def output_messages(stored: str) -> str:
    """Converts an answer from the journal's JSON to the conventions' JSON, redacted."""
    answer = json.loads(stored)
    parts: list[dict[str, Any]] = []
    if answer["text"]:
        parts.append({"type": "text", "content": redact(answer["text"])})
    parts += [
        {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": redact(call["arguments"])}
        for call in answer["tool_calls"]
    ]
    message = {"role": "assistant", "parts": parts, "finish_reason": answer["finish_reason"]}
    return json.dumps([message], ensure_ascii=False, separators=(",", ":"))


# Encoding planned spans as OTLP protobuf.
#
# The SDK's encoder takes several times as long: it does not cache attributes, most of which repeat, and it copies each
# message. No global tracer provider is set up either: libraries that find one would export their own spans.

_KINDS = {SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL, SpanKind.CLIENT: Span.SPAN_KIND_CLIENT}
_FAILED = Status(code=Status.STATUS_CODE_ERROR)
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_SAMPLED = 1
_REMEMBERED_ATTRIBUTES = 4_096


class Encoding:
    """Encodes the spans of one service."""

    def __init__(self, service: str, version: str) -> None:
        """`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, which the SDK reads, override the two arguments."""
        resource = Resource({SERVICE_NAME: service, SERVICE_VERSION: version}).merge(OTELResourceDetector().detect())
        attributes = [KeyValue(key=name, value=_value(str(value))) for name, value in resource.attributes.items()]
        self._resource = ResourceMessage(attributes=attributes)
        self._scope = InstrumentationScope(name=service, version=version)

    def request(self) -> Request:
        """A new, empty export request."""
        return Request(self._resource, self._scope)


class Request:
    """One export request. Spans are created inside it, since protobuf copies a message that is added to another."""

    def __init__(self, resource: ResourceMessage, scope: InstrumentationScope) -> None:
        self._message = ExportTraceServiceRequest()
        resource_spans = self._message.resource_spans.add(resource=resource)
        self._spans = resource_spans.scope_spans.add(scope=scope).spans

    def add(self, spans: Iterable[PlannedSpan]) -> None:
        """Adds all spans, or none of them: raises ValueError if a text is not valid Unicode."""
        before = len(self._spans)
        try:
            for planned in spans:
                self._add(planned)
        except ValueError:
            del self._spans[before:]
            raise

    def body(self) -> bytes:
        """The encoded request."""
        body: bytes = self._message.SerializeToString()
        return body

    def _add(self, planned: PlannedSpan) -> None:
        parts = [_attribute(name, value) for name, value in planned.attributes.items()]
        span = self._spans.add(
            trace_id=planned.trace_id.to_bytes(16, "big"),
            span_id=planned.span_id.to_bytes(8, "big"),
            parent_span_id=b"" if planned.parent_id is None else planned.parent_id.to_bytes(8, "big"),
            flags=(_REMOTE if planned.remote_parent else _LOCAL) | _SAMPLED,
            name=planned.name,
            kind=_KINDS[planned.kind],
            start_time_unix_nano=planned.start,
            end_time_unix_nano=planned.end,
            status=_FAILED if planned.failed else None,
        )
        span.MergeFromString(b"".join(parts))


# The cache would confuse True and 1, but all values of one name have one type.
@lru_cache(_REMEMBERED_ATTRIBUTES)
def _attribute(name: str, value: Value) -> bytes:
    """The bytes of a span with this attribute only. Joining the bytes of messages merges them."""
    part: bytes = Span(attributes=[KeyValue(key=name, value=_value(value))]).SerializeToString()
    return part


def _value(value: Value) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=value)
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case tuple():
            return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=part) for part in value]))


# Sending requests with OpenTelemetry's HTTP client.
#
# It reads the standard variables for headers, certificates, compression and proxies (`OTEL_EXPORTER_OTLP_*`), and
# retries after passing failures. Its log messages are suppressed, since `Traces` logs one warning for an outage.

_REQUEST_SECONDS = 5.0


class Sender:
    """Sends export requests to one URL."""

    def __init__(self, url: str) -> None:
        self._exporter = OTLPSpanExporter(url, timeout=_REQUEST_SECONDS)
        logging.getLogger(trace_exporter.__name__).addFilter(_drop_log_record)

    def send(self, request: bytes) -> str:
        """Sends the body of a request, within a few seconds. Returns the reason of a failure; empty on success."""
        try:
            # The exporter's public method accepts only the SDK's spans, and encodes them itself.
            result = self._exporter._client.export(request)
        except Exception as error:  # no error of a transport may end the sending thread
            return type(error).__name__
        if result.success:
            return ""
        # Only the type of an exception: its text may quote the URL, which may contain a key.
        return f"status {result.status_code}" if result.status_code else type(result.error).__name__

    def close(self) -> None:
        """Closes the connection, and ends a pause between two attempts."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _drop_log_record(_: logging.LogRecord) -> bool:
    return False


_PATH = "/v1/traces"
_TASKS_AT_ONCE = 50  # a few hundred spans and KB
_GATHER_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_LAST_SECONDS = 0.5  # for the thread to end after its request was aborted
# After this many failures in a row, the batch is dropped: perhaps the collector refuses this batch only.
_TRIES = 8


class Traces:
    """Takes the records of ended tasks and exports their spans."""

    def __init__(
        self,
        endpoint: str,
        *,
        service: str,
        version: str,
        texts: Texts | None = None,
        capacity: int = 1_000,
    ) -> None:
        """`endpoint` is the collector's base URL (`http://localhost:4318`) or full URL. `texts` reads the answers of
        models; None leaves them out. At most `capacity` tasks wait; beyond that, the oldest is dropped."""
        self._sender = Sender(traces_url(endpoint))
        self._shown = _without_secrets(traces_url(endpoint))
        self._encoding = Encoding(service, version)
        self._texts = texts
        self._capacity = capacity
        self._waiting: deque[TaskRecord] = deque()
        self._in_flight: list[TaskRecord] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._failures = 0
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    @property
    def dropped(self) -> int:
        """The number of tasks whose spans were dropped."""
        return self._dropped

    def start(self) -> None:
        """Starts the exporting thread."""
        self._thread.start()

    def observe(self, record: TaskRecord) -> None:
        """Takes the record of an ended task, from any thread. After `stop`, it only counts the task as dropped."""
        with self._changed:
            if self._stopping.is_set():
                self._dropped += 1
                return
            self._waiting.append(record)
            self._trim()
            self._changed.notify()

    def stop(self, seconds: float = 5.0) -> None:
        """Exports the waiting tasks for about `seconds`, then drops the remaining ones."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        self._join(seconds)
        self._sender.close()
        self._join(_LAST_SECONDS)
        with self._changed:
            unsent = len(self._waiting) + len(self._in_flight)
            self._dropped += unsent
        if unsent:
            log.warning("traces: stopped before %s took the spans of the last %d tasks", self._shown, unsent)

    def _join(self, seconds: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while batch := self._next_batch():
            reason = self._export(batch)
            if not reason:
                self._record_success()
                continue
            self._record_failure(batch, reason)
            if self._stopping.is_set():
                return
            self._stopping.wait(min(2.0**self._failures, _LONGEST_PAUSE_SECONDS))

    def _next_batch(self) -> list[TaskRecord]:
        """Waits for records and returns the oldest ones; none after `stop` if none wait."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._stopping.is_set())
        self._stopping.wait(0.0 if len(self._waiting) >= _TASKS_AT_ONCE else _GATHER_SECONDS)
        with self._changed:
            count = min(len(self._waiting), _TASKS_AT_ONCE)
            self._in_flight = [self._waiting.popleft() for _ in range(count)]
            return self._in_flight

    def _export(self, batch: list[TaskRecord]) -> str:
        """Sends the spans of the batch. Returns the reason of a failure; empty on success."""
        request = self._encoding.request()
        for record in tuple(batch):
            try:
                request.add(plan(record, self._texts))
            except Exception as error:  # if a record cannot be exported, only its own spans are dropped
                batch.remove(record)
                self._dropped += 1
                log.warning("traces: the spans of task %s are dropped: %s", record.task_id, type(error).__name__)
        return self._sender.send(request.body())

    def _record_success(self) -> None:
        self._in_flight = []
        if self._failures:
            log.info("traces: %s takes spans again; %d tasks were dropped so far", self._shown, self._dropped)
        self._failures = 0

    def _record_failure(self, batch: list[TaskRecord], reason: str) -> None:
        """Puts the batch back, or drops it after too many attempts."""
        self._failures += 1
        if self._failures == 1 and not self._stopping.is_set():
            log.warning(
                "traces: %s takes no spans (%s); up to %d tasks wait for it. Check REFUND_AGENT_OTLP_ENDPOINT.",
                self._shown,
                reason,
                self._capacity,
            )
        with self._changed:
            self._in_flight = []
            if self._failures % _TRIES == 0:
                self._dropped += len(batch)
                return
            self._waiting.extendleft(reversed(batch))
            self._trim()

    def _trim(self) -> None:
        while len(self._waiting) > self._capacity:
            self._waiting.popleft()
            self._dropped += 1


def traces_url(endpoint: str) -> str:
    """The URL for spans, from a collector's base URL or full URL."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_PATH) else path + _PATH).geturl()


def _without_secrets(url: str) -> str:
    """The URL without user, password, query and fragment, which may contain secrets."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
