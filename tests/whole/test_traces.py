"""Against the real runtime: the task's spans, with their cost, are in the trace that the sidecar opened for it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.live import Live, make_stack, until
from tests.telemetry.collector import Collector, attributes, running_collector
from tests.whole import tickets

pytestmark = pytest.mark.runtime


def ours(spans: Sequence[Span]) -> list[Span]:
    """The spans that the product made."""
    return [span for span in spans if any(each.key == "refund_agent.task.id" for each in span.attributes)]


def traced(collector: Collector, folder: Path) -> list[Span]:
    """Works one refund with a collector for both, and returns all spans once the task's own root is there."""
    with make_stack(folder) as stack:
        stack.stop("worker")
        stack.stop("daprd")
        file = stack.folder / "config" / "dapr.yaml"
        config = yaml.safe_load(file.read_text())
        endpoint = {"endpointAddress": collector.url.removeprefix("http://"), "isSecure": False, "protocol": "http"}
        config["spec"]["tracing"] = {"samplingRate": "1", "otel": endpoint}
        file.write_text(yaml.safe_dump(config))
        stack.worker_env["REFUND_AGENT_OTLP_ENDPOINT"] = collector.url
        stack.start("daprd")
        stack.start("worker")
        live = Live(stack)
        live.wait(live.submit(tickets.refund("traced", 13_000)), "completed")
        live.close()
        until(lambda: any("invoke_agent" in span.name for span in ours(collector.spans())), "the task's span")
        root = next(span for span in ours(collector.spans()) if "invoke_agent" in span.name)
        until(lambda: any(span.span_id == root.parent_span_id for span in collector.spans()), "the sidecar's spans")
    return collector.spans()


def test_the_spans_of_a_task_are_in_the_sidecars_trace_and_sum_to_its_cost(tmp_path: Path) -> None:
    with running_collector() as collector:
        spans = traced(collector, tmp_path)
    mine = ours(spans)
    (root,) = [span for span in mine if "invoke_agent" in span.name]
    (parent,) = [span for span in spans if span.span_id == root.parent_span_id]
    assert parent not in mine
    assert {span.trace_id for span in mine} == {parent.trace_id}
    assert sorted(span.name for span in mine if span.name.startswith("chat")) == ["chat sandbox-small"] * 3
    costs = [Decimal(attributes(span)["refund_agent.cost.amount"]) for span in mine]
    assert sum(costs) == Decimal(attributes(root)["refund_agent.task.cost.amount"]) > 0
    assert b"arrived broken" not in b"".join(span.SerializeToString() for span in mine)
