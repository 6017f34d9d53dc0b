"""What is left of a sum once its paid calls are taken away, against what may account for it. Pure.

A leftover of n requests can only be n of the requests that calls in vain, or the sidecar, may have made: its input lies
between their n smallest and their n largest together, and is one of the sums that n of them can have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.finance.reconciliation.claims import Claim
from app.finance.reconciliation.counts import NONE, Count
from app.finance.reconciliation.reconciliation_types import Cause
from app.finance.reconciliation.subsets import nearest_subset


@dataclass(frozen=True, slots=True)
class Maybe:
    """A request that may have been billed between `early` and `late`: the `number`-th of its claim.

    entered: its input tokens, give or take `slack`. output_at_most: no more output than this.
    """

    claim: Claim
    number: int
    cause: Cause
    early: datetime
    late: datetime
    entered: int
    slack: int
    output_at_most: int


@dataclass(frozen=True, slots=True)
class Play:
    """How far the estimates among the paid calls may be from the bill together."""

    entered: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """taken: the requests that account for the leftover. billed: what they account for. estimates: what the play of
    estimates does. unexplained: the rest."""

    taken: tuple[Maybe, ...]
    billed: Count
    estimates: Count
    unexplained: Count


def explain(leftover: Count, maybes: Sequence[Maybe], play: Play) -> Explanation:
    """The best explanation of a leftover; nothing is taken for granted beyond it."""
    ways = (_with(leftover, maybes, number, play) for number in _numbers(leftover, maybes))
    return min(ways, key=lambda way: (way.unexplained.magnitude, len(way.taken)))


def shortfall(leftover: Count, maybes: Sequence[Maybe], play: Play) -> int:
    """Tokens of a leftover that cannot be explained whichever requests were billed: quick, and never too many."""
    return min(_outside(leftover, maybes, play, number) for number in _numbers(leftover, maybes))


def _numbers(leftover: Count, maybes: Sequence[Maybe]) -> Iterable[int]:
    """How many requests may be billed of them: as many as are left over, or any number when the bill counts none."""
    if leftover.requests is None:
        return range(len(maybes) + 1)
    return (max(0, min(leftover.requests, len(maybes))),)


def _outside(leftover: Count, maybes: Sequence[Maybe], play: Play, number: int) -> int:
    least, most = _extremes(maybes, number)
    output = sum(sorted((maybe.output_at_most for maybe in maybes), reverse=True)[:number])
    return (leftover - _nearest(leftover, least, most, output, play)).magnitude


def _extremes(maybes: Sequence[Maybe], number: int) -> tuple[int, int]:
    """The least and the most input that so many of them can have."""
    least = sum(sorted(max(0, maybe.entered - maybe.slack) for maybe in maybes)[:number])
    return least, sum(sorted((maybe.entered + maybe.slack for maybe in maybes), reverse=True)[:number])


def _nearest(leftover: Count, least: int, most: int, output: int, play: Play) -> Count:
    """What of the leftover those bounds allow."""
    entered = _clamp(leftover.input_tokens, least - play.entered, most + play.entered)
    cached = leftover.cached_tokens
    if cached is not None:
        cached = _clamp(cached, 0, max(0, min(most, entered)))
    given = _clamp(leftover.output_tokens, -play.output, output + play.output)
    return Count(leftover.requests, entered, cached, given)


def _with(leftover: Count, maybes: Sequence[Maybe], number: int, play: Play) -> Explanation:
    """The explanation by those of them, so many, whose input comes closest together."""
    positions = nearest_subset([maybe.entered for maybe in maybes], number, leftover.input_tokens)
    if positions is None:  # too many to try: their bounds have to do
        taken = tuple(maybes[:number])
        least, most = _extremes(maybes, number)
    else:
        taken = tuple(maybes[position] for position in positions)
        least, most = _extremes(taken, number)
    output = sum(maybe.output_at_most for maybe in taken)
    explained = _nearest(leftover, least, most, output, play)
    billed = _nearest(explained, least, most, output, Play()) if taken else NONE
    requests = number if leftover.requests is not None else None
    billed = Count(requests, billed.input_tokens, billed.cached_tokens, billed.output_tokens)
    rest = explained - billed
    estimates = Count(0, rest.input_tokens, rest.cached_tokens, rest.output_tokens)
    return Explanation(taken, billed, estimates, leftover - billed - estimates)


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
