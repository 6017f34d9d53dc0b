"""Ids of traces and spans."""

from __future__ import annotations

import pytest

from app.telemetry.names import TraceParent, span_id, trace_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_sampled_parent_is_continued() -> None:
    assert trace_of("acme:T-1", f"00-{TRACE}-{SPAN}-01") == TraceParent(int(TRACE, 16), int(SPAN, 16))


def test_a_later_version_may_say_more() -> None:
    assert trace_of("acme:T-1", f"01-{TRACE}-{SPAN}-03-more") == TraceParent(int(TRACE, 16), int(SPAN, 16))


def test_a_parent_that_nobody_exports_gives_the_trace_only() -> None:
    assert trace_of("acme:T-1", f"00-{TRACE}-{SPAN}-00") == TraceParent(int(TRACE, 16), None)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_without_a_valid_parent_the_trace_is_the_tasks_own(header: str) -> None:
    own = trace_of("acme:T-1", header)
    assert own.span_id is None
    assert own == trace_of("acme:T-1", "")
    assert own != trace_of("acme:T-2", header)
    assert 0 < own.trace_id < 2**128


def test_different_names_give_different_span_ids() -> None:
    ids = {span_id("a", "bc"), span_id("ab", "c"), span_id("abc"), span_id("a", "bc", "")}
    assert len(ids) == 4
    assert all(0 < id_ < 2**64 for id_ in ids)
