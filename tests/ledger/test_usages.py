"""The model and usage of a call without an answer, inferred from other calls of its task."""

from __future__ import annotations

from app.domain.models import CallState
from app.ledger.recording.projection import with_usages
from app.pricing.charge_types import NOT_REPORTED
from tests.records import MODEL, call_record


def test_a_call_under_way_is_put_to_the_model_that_its_component_answered_with() -> None:
    begun = call_record("e-3", 5, state=CallState.STARTED, ended_at=None, model="", usage=NOT_REPORTED)
    first, second = with_usages([call_record("e-1", 1), begun])
    assert (first.model, second.model) == (MODEL, MODEL)
    assert second.usage == NOT_REPORTED
    elsewhere = call_record("e-3", 5, state=CallState.STARTED, model="", usage=NOT_REPORTED, component="other")
    assert with_usages([call_record("e-1", 1), elsewhere])[1] is elsewhere
