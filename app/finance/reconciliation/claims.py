"""What each model call may claim on a provider's bill: which model, when, how many requests, of how many tokens. Pure.

A call that was paid owes one request to the bill: its own. One that came to nothing may have been billed or not. Each
may have been asked again by the sidecar, as often as its `retries` say. A request arrives while its call is under way:
from its start to its end, or, when it has no end, until its step's turn was asked again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.domain.models import CallState, UsageBasis
from app.finance.reconciliation.bill import Count, counted
from app.pricing.charge_types import CallRecord, TokenUsage
from app.pricing.formula import NOTHING, lost_usage

# How far the provider's clock and ours may be apart.
CLOCK_TOLERANCE = timedelta(seconds=2)
# How long a call without an end may have been under way at most: the time-out of the providers' own clients.
LONGEST_CALL = timedelta(minutes=10)
_GOING_ON = (CallState.SETTLED, CallState.STARTED)
# A request may lie in a connection that stands still, and be worked long after its call gave up and hung up. The
# sender's kernel gives such a connection up after about a quarter of an hour.
LONGEST_DELAY = timedelta(minutes=15)
# A sidecar that repeats calls waits a second before it does (docs/operations.md); two requests of one call are at least
# so far apart, also when they took unlike ways. A call that was turned away sooner made no request before that.
SHORTEST_PAUSE = timedelta(milliseconds=750)
# What the journal says of a call without an end once its turn was asked again: then the call that did so must be there.
EXECUTED_AGAIN = "the step was executed again"
# How far an estimate may be from the bill, when the provider never reports what ours is worth: other tokenizers, other
# languages, and the instructions that a provider puts before the tools.
_UNPROVEN_PERCENT, _UNPROVEN_TOKENS = 50, 600
# Where it does report, an estimate may be off by twice as much as the worst that was seen with that model, and by this.
_PROVEN_PERCENT, _PROVEN_TOKENS = 5, 16


@dataclass(frozen=True, slots=True)
class Claim:
    """What one call may claim.

    call: with what it may have used, when it came to nothing. record: what our record says.
    since, until: its own time. early, late: with the clocks' tolerance, which does not reach into the time of the same
    turn's other calls. last: until when its own request may still arrive, if the call gave up; else `until`.
    owes: whether it was paid, and to whom, so that one request of it must stand on the bill. exact: whether the
    provider reported what that one used. own: whether the bill may hold its own request. repeats: how many more it may
    hold, that the sidecar made.
    expected: input tokens of each of its requests, give or take `slack`; None when nobody counted them.
    """

    call: CallRecord
    record: Count
    since: datetime
    until: datetime
    early: datetime
    late: datetime
    last: datetime
    owes: bool
    exact: bool
    own: bool
    repeats: int
    expected: int | None
    slack: int

    @property
    def requests(self) -> int:
        """How many requests the bill may hold of it at most."""
        return int(self.own) + self.repeats

    @property
    def homeless(self) -> bool:
        """Whether it was paid, and nobody knows to whom."""
        return not self.call.provider and (self.exact or self.call.state is CallState.SETTLED)

    def of_model(self, model: str) -> bool:
        """Whether it may have been put to that model."""
        return self.call.model in ("", model)

    def may_be(self, count: Count) -> bool:
        """Whether a request of that size may be one of its own. One whose provider is not known, but not its tokens,
        may be on this bill to the token or not at all."""
        if self.exact and not self.owes:
            return self.is_just(count)
        return self.expected is None or abs(count.input_tokens - self.expected) <= self.slack

    def is_of_its_size(self, count: Count) -> bool:
        """Whether a request has the very input that is expected: what a request that came late is known by."""
        return self.expected == count.input_tokens

    def is_just(self, count: Count) -> bool:
        """Whether that is to the token what the provider reported for it."""
        usage = self.call.usage
        cached = usage.cached_tokens in (None, count.cached_tokens) or count.cached_tokens is None
        return cached and (usage.input_tokens, usage.output_tokens) == (count.input_tokens, count.output_tokens)


def claims_of(calls: Iterable[CallRecord]) -> tuple[Claim, ...]:
    """What the calls may claim, oldest first."""
    ordered = sorted(calls, key=lambda call: (call.started_at, call.number, call.call_id))
    turns: defaultdict[tuple[str, int], list[CallRecord]] = defaultdict(list)
    for call in ordered:
        turns[call.execution_id, call.turn].append(call)
    known = _Known(
        {(call.component, call.provider): call.model for call in ordered if call.model},
        {(call.model, call.request_digest): call.usage.input_tokens for call in ordered if _reported(call)},
        _spread(ordered),
    )
    return tuple(_claim(call, turns[call.execution_id, call.turn], known) for call in ordered)


@dataclass(frozen=True, slots=True)
class _Known:
    """What all calls together tell: the model behind a component, what a question's input came to, how far our
    estimates of a model's input were off."""

    model_of: Mapping[tuple[str, str], str]
    asked: Mapping[tuple[str, str], int | None]
    spread: Mapping[str, int]


def _claim(call: CallRecord, turn: Sequence[CallRecord], of_all: _Known) -> Claim:
    settled = next((each for each in turn if each.state is CallState.SETTLED), None)
    repeated = settled if settled and settled.provider == call.provider else None
    component = (call.component, call.provider)
    model = call.model or (repeated.model if repeated else "") or of_all.model_of.get(component, "")
    usage = lost_usage(call, settled) if call.rerun else call.usage
    exact = _reported(call)
    known = usage.input_tokens if exact else of_all.asked.get((model, call.request_digest))
    expected = call.reserve_input if known is None else known
    since, until, early, late = _window(call, turn)
    # Then the last of its requests was not billed, but one before that may have been.
    turned_away = call.rerun and usage == NOTHING
    owes = bool(call.provider) and (exact or call.state is CallState.SETTLED)
    own = not turned_away or call.retries > 0 or until - since >= SHORTEST_PAUSE
    return Claim(
        call=replace(call, model=model, usage=usage),
        record=counted(usage, int(_counts(call, usage))),
        since=since,
        until=until,
        early=early,
        late=late,
        last=until + LONGEST_DELAY if own and not owes and _gave_up(call, turn) else until,
        owes=owes,
        exact=exact,
        own=own,
        repeats=max(0, call.retries - int(turned_away)),
        expected=expected or None,
        slack=0 if known is not None else slack(expected, of_all.spread.get(model)),
    )


def _gave_up(call: CallRecord, turn: Sequence[CallRecord]) -> bool:
    """Whether it came to nothing, and its turn went on without it. Of a turn without an answer the record may lack
    the call that brought it: a request of the same size may be that one's, and nobody can tell."""
    ended = call.ended_at is not None or any(each.started_at > call.started_at for each in turn)
    return call.rerun and ended and any(each.state in _GOING_ON for each in turn)


def slack(expected: int, proven: int | None) -> int:
    """How far a request may be from our estimate of its input; `proven` is by how many hundredths estimates of that
    model were off at worst, None when it never reports."""
    if proven is None:
        return expected * _UNPROVEN_PERCENT // 100 + _UNPROVEN_TOKENS
    return expected * (2 * proven + _PROVEN_PERCENT) // 100 + _PROVEN_TOKENS


def _reported(call: CallRecord) -> bool:
    usage = call.usage
    return usage.known is UsageBasis.REPORTED and usage.input_tokens is not None and usage.output_tokens is not None


def _counts(call: CallRecord, usage: TokenUsage) -> bool:
    """Whether our record counts it as a request that was made."""
    return call.state is not CallState.STARTED and usage != NOTHING


def _spread(calls: Iterable[CallRecord]) -> dict[str, int]:
    """By how many hundredths our estimates of each model's input were off at worst, rounded up."""
    worst: dict[str, int] = {}
    for call in calls:
        if _reported(call) and call.usage.input_tokens is not None and call.reserve_input > 0:
            off = -(-100 * abs(call.usage.input_tokens - call.reserve_input) // call.reserve_input)
            worst[call.model] = max(worst.get(call.model, 0), off)
    return worst


def _window(call: CallRecord, turn: Sequence[CallRecord]) -> tuple[datetime, datetime, datetime, datetime]:
    later = [each.started_at for each in turn if each.started_at > call.started_at]
    # Without its successor the record has a hole, and the call may not stand in for what is missing there.
    longest = CLOCK_TOLERANCE if call.error == EXECUTED_AGAIN else LONGEST_CALL
    bound = min(later, default=call.started_at + longest)
    since = call.started_at
    bound = min(bound, since + LONGEST_CALL)
    until = bound if call.ended_at is None else max(call.ended_at, since)
    before = [each.ended_at or since for each in turn if each.started_at < since]
    early = max([since - CLOCK_TOLERANCE, *(end for end in before if end <= since)])
    return since, until, early, min([until + CLOCK_TOLERANCE, *(start for start in later if start >= until)])
