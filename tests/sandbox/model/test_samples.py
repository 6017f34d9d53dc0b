"""The brain against the sample tickets: how often it is right, and where it is not."""

from __future__ import annotations

from collections.abc import Callable

from sandbox.data import Expectation, load_expected, load_tickets
from sandbox.model.brain.classify import Classification, classify
from sandbox.model.brain.conversation import Prompt

LEAST_RIGHT = 0.95


def share_right(right: Callable[[Classification, Expectation], bool]) -> tuple[float, list[str]]:
    """The share of clear tickets that are read right, and a line for each that is not."""
    expected = load_expected()
    misses, count = [], 0
    for ticket in load_tickets():
        want = expected[ticket.task_id]
        if not want.clear:
            continue
        count += 1
        found = classify(Prompt(ticket.subject, ticket.text, ticket.order_id))
        if not right(found, want):
            misses.append(f"{ticket.task_id} ({want.kind}): want {want.category} {want.language}, found {found}")
    return 1 - len(misses) / count, misses


def test_clear_tickets_get_their_category() -> None:
    share, misses = share_right(lambda found, want: found.category == want.category)
    assert share >= LEAST_RIGHT, "\n".join(misses)


def test_clear_tickets_get_their_language() -> None:
    share, misses = share_right(lambda found, want: found.language == want.language)
    assert share >= LEAST_RIGHT, "\n".join(misses)
