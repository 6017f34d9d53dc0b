"""Planned spans in OTLP's protobuf.

The SDK's own way from a span to its bytes takes several times as long: it does not remember that most attributes of
most spans are the same few, and it copies each message. Nor is a tracer or a global provider made: the record says all
that a span holds, and libraries that find a global provider would begin to write spans of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource

from app.telemetry.costs import Value
from app.telemetry.spans import PlannedSpan, SpanKind

_KINDS = {SpanKind.INTERNAL: Span.SPAN_KIND_INTERNAL, SpanKind.CLIENT: Span.SPAN_KIND_CLIENT}
_FAILED = Status(code=Status.STATUS_CODE_ERROR)
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_SAMPLED = 1
_REMEMBERED_ATTRIBUTES = 4_096


class Encoding:
    """Encodes the spans of one service."""

    def __init__(self, service: str, version: str) -> None:
        """`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, which the SDK reads, go before the two names."""
        own = Resource({SERVICE_NAME: service, SERVICE_VERSION: version}).merge(OTELResourceDetector().detect())
        attributes = [KeyValue(key=name, value=_value(str(value))) for name, value in own.attributes.items()]
        self._resource = ResourceMessage(attributes=attributes)
        self._scope = InstrumentationScope(name=service, version=version)

    def request(self) -> Request:
        """A new, empty export request."""
        return Request(self._resource, self._scope)


class Request:
    """One export request. Spans are made where they stay: a message that is put into another one is copied."""

    def __init__(self, resource: ResourceMessage, scope: InstrumentationScope) -> None:
        self._message = ExportTraceServiceRequest()
        of_resource = self._message.resource_spans.add(resource=resource)
        self._spans = of_resource.scope_spans.add(scope=scope).spans

    def add(self, spans: Iterable[PlannedSpan]) -> None:
        """Adds all of them, or none: raises ValueError for a text that is no Unicode."""
        before = len(self._spans)
        try:
            for planned in spans:
                self._add(planned)
        except ValueError:
            del self._spans[before:]
            raise

    def body(self) -> bytes:
        """What is sent."""
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


# A name's values are all of one type; else True and 1 would be taken for the same.
@lru_cache(_REMEMBERED_ATTRIBUTES)
def _attribute(name: str, value: Value) -> bytes:
    """A span that has this attribute and nothing else; messages are merged by joining their bytes."""
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
