"""The table of what Dapr's conversation components support names every type that the rest of the agent knows."""

from __future__ import annotations

import pytest

from app.dapr.component_support import SUPPORT
from app.finance.retry_bounds.worst import _CLIENTS
from app.pricing.providers import COMPONENT_TYPES


def test_the_tables_of_component_types_agree() -> None:
    assert set(SUPPORT) == {name for name in _CLIENTS if name.startswith("conversation.")}
    assert set(COMPONENT_TYPES) <= set(SUPPORT)


@pytest.mark.parametrize("component_type", SUPPORT)
def test_names_of_metadata_are_in_lower_case_and_each_once(component_type: str) -> None:
    reads = SUPPORT[component_type].reads
    assert len(set(reads)) == len(reads)
    assert all(name == name.lower() for name in reads)


def test_the_sentence_says_all_four_and_from_when_tools_work() -> None:
    assert SUPPORT["conversation.openai"].sentence == (
        "Dapr 1.18: usage yes, tools yes, structured output yes, cached tokens yes"
    )
    assert SUPPORT["conversation.anthropic"].sentence == (
        "Dapr 1.18: usage no, tools no, structured output yes, cached tokens no; tools from Dapr 1.19"
    )
