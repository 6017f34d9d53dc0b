"""Requests and tokens side by side, as a bill and our record both count them; a difference may be negative."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.pricing.charge_types import TokenUsage


@dataclass(frozen=True, slots=True)
class Count:
    """`input_tokens` includes `cached_tokens`. None: not known, which is not zero; so is a sum that it is in."""

    requests: int | None = 0
    input_tokens: int = 0
    cached_tokens: int | None = 0
    output_tokens: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            _plus(self.requests, other.requests),
            self.input_tokens + other.input_tokens,
            _plus(self.cached_tokens, other.cached_tokens),
            self.output_tokens + other.output_tokens,
        )

    def __neg__(self) -> Count:
        return Count(_minus(self.requests), -self.input_tokens, _minus(self.cached_tokens), -self.output_tokens)

    def __sub__(self, other: Count) -> Count:
        return self + -other

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def lines(self) -> tuple[int, ...]:
        """The tokens of each price: plain input, cached input, output; input as one where its parts are not known."""
        if self.cached_tokens is None:
            return self.input_tokens, self.output_tokens
        return self.input_tokens - self.cached_tokens, self.cached_tokens, self.output_tokens

    @property
    def magnitude(self) -> int:
        """How many tokens stand in another line than they should, for a difference: a plus and a minus never cancel."""
        return sum(map(abs, self.lines))


NONE = Count()


def total(counts: Iterable[Count]) -> Count:
    """All together."""
    sum_of = NONE
    for count in counts:
        sum_of += count
    return sum_of


def counted(usage: TokenUsage, requests: int = 1) -> Count:
    """What a call used; tokens that nobody knows count as none, since they are in no sum of the record either."""
    cached = usage.cached_tokens if usage.input_tokens else 0
    return Count(requests, usage.input_tokens or 0, cached, usage.output_tokens or 0)


def _plus(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def _minus(value: int | None) -> int | None:
    return None if value is None else -value
