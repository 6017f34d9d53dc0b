"""A provider's bill, and what each of our model calls may claim on it, whatever the bill was read from. Pure.

A bill holds requests, or sums of a model over a stretch of time. A paid call owes one request to it: its own. One that
brought no answer may have been billed or not. A request arrives while its call is under way: from its start to its end,
or, if it has none, until it was over as far as is known (`app/finance/call_end.py`) and a little longer, at most
`LONGEST_CALL`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise

from app.domain.errors import RefundAgentError
from app.domain.models import CallState, UsageBasis
from app.finance.call_end import StepTimes, call_end
from app.pricing.charge_types import CallRecord, TokenUsage
from app.pricing.formula import NOTHING, lost_usage

_EARLIEST, _LATEST = datetime(2015, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
# How long a whole number is that counts seconds, milliseconds, microseconds, nanoseconds since 1970.
_EPOCH_DIGITS = {10: 1, 13: 1_000, 16: 1_000_000, 19: 1_000_000_000}
_NAMED_UTC = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
_FRACTION = re.compile(r"(\.\d{6})\d+")
_DAY_REMEDY = "write it as 2026-11-22"
_TIME_REMEDY = "write it as 2026-11-22T13:05:00Z (ISO 8601), or as seconds since 1970"


def since_1970(name: str, place: str, what: str, value: int) -> datetime:
    """An instant given as seconds since 1970, or as thousandths, millionths, billionths of them. Raises BadBill."""
    per = _EPOCH_DIGITS.get(len(str(abs(value)))) if abs(value) < 10**20 else None
    at = (
        datetime.fromtimestamp(0, UTC) + timedelta(seconds=value // per, microseconds=value % per * 10**6 // per)
        if per
        else None
    )
    if at is None or not _EARLIEST <= at < _LATEST:
        shown = str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
        raise BadBill(name, place, f"{what} {shown} is no time since 2015 in seconds or milliseconds", _TIME_REMEDY)
    return at


def instant(name: str, place: str, what: str, text: str) -> datetime:
    """An instant in its own zone, UTC when it names none. Raises BadBill."""
    bare = text.strip()
    head, _, tail = bare.partition(".")
    if head.isascii() and head.isdigit() and len(head) >= 9 and (not tail or (tail.isascii() and tail.isdigit())):
        if len(head) > 20:
            raise BadBill(name, place, f"{what} {text!r:.40} is no time", _TIME_REMEDY)
        at = since_1970(name, place, what, int(head))
        return at + timedelta(microseconds=int(tail[:6].ljust(6, "0"))) if tail and len(head) == 10 else at
    try:
        at = datetime.fromisoformat(_FRACTION.sub(r"\1", _NAMED_UTC.sub("+00:00", bare)) if ":" in bare else bare)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        at.astimezone(UTC)
    except (ValueError, OverflowError):
        remedy = _DAY_REMEDY if "date" in what or "day" in what else _TIME_REMEDY
        raise BadBill(name, place, f"{what} {text!r:.60} is no time{_hint(bare)}", remedy) from None
    if not _EARLIEST <= at < _LATEST:
        raise BadBill(name, place, f"{what} {text!r:.60} is no time between 2015 and 2100", _TIME_REMEDY)
    return at


def _hint(text: str) -> str:
    if re.fullmatch(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}.*", text, re.DOTALL):
        return ": it does not begin with the year, so day and month could be taken for each other"
    if re.search(r"\d\s*[A-Z]{2,5}$", text):
        return ": a zone by its letters is not one zone; write its offset, such as +01:00"
    return ""


# Requests and tokens side by side, as a bill and our record both count them; a difference may be negative.


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
    """What a call used; unknown tokens count as none, since they are in no sum of the record either."""
    cached = usage.cached_tokens if usage.input_tokens else 0
    return Count(requests, usage.input_tokens or 0, cached, usage.output_tokens or 0)


def _plus(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def _minus(value: int | None) -> int | None:
    return None if value is None else -value


class BadBill(RefundAgentError):
    """A bill that cannot be read as it is; the message names the file, the place in it, the value and the remedy."""

    code = "bad_bill"
    status = 422
    title = "Bill not readable"

    def __init__(self, name: str, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"bill {name}{', ' if place else ''}{place}: {problem}; {remedy}")


class BillFormat(StrEnum):
    """What a bill was read from."""

    SANDBOX = "sandbox"
    OPENAI_USAGE = "openai-usage"
    OPENAI_COSTS = "openai-costs"
    ANTHROPIC_USAGE = "anthropic-usage"
    ANTHROPIC_COSTS = "anthropic-costs"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class BillRow:
    """One row that costs something. `place` says where it stands in the bill.

    since, until: UTC; equal for a single request, else the stretch that the row sums up, `until` not in it.
    provider: our id for who bills it; empty when the bill does not say. written: of its input, what was written to the
    provider's cache; 0 where the bill does not tell.
    """

    place: str
    model: str
    since: datetime
    until: datetime
    count: Count
    provider: str = ""
    written: int = 0

    @property
    def one_request(self) -> bool:
        """Whether the row is one request at one instant."""
        return self.since == self.until


@dataclass(frozen=True, slots=True)
class Amount:
    """One amount of money on a bill, for a model in a stretch of time; below zero when it is given back.

    model: empty for all models together; else as the bill names what it is for. currency: ISO 4217.
    """

    place: str
    model: str
    since: datetime
    until: datetime
    money: Decimal
    currency: str
    provider: str = ""


@dataclass(frozen=True)
class Bill:
    """A bill. `since` and `until` say which time it covers, None where it does not say; `until` is not in it.

    unbilled: requests that stand on it and cost nothing. unread: columns that were not looked at.
    further: columns that hold a quantity which the record does not keep, with their sums.
    elsewhen: rows and amounts of another time than what is asked for, left out.
    providers: our ids for whose bill it is; empty when it does not say.
    amounts: its money, where it names any. counts: whether it names tokens at all.
    """

    name: str
    format: BillFormat
    rows: tuple[BillRow, ...]
    since: datetime | None = None
    until: datetime | None = None
    unbilled: int = 0
    unread: tuple[str, ...] = ()
    providers: frozenset[str] = frozenset()
    amounts: tuple[Amount, ...] = ()
    counts: bool = True
    further: tuple[str, ...] = ()
    elsewhen: int = 0

    @property
    def by_request(self) -> bool:
        """Whether every row is a request of its own."""
        return all(row.one_request for row in self.rows) and self.format in (BillFormat.SANDBOX, BillFormat.CSV)

    def within(self, since: datetime | None, until: datetime | None) -> Bill:
        """The bill of that time alone. Raises BadBill when one of its sums lies on both sides of an edge."""
        kept = tuple(row for row in self.rows if _inside(row, since, until))
        amounts = tuple(amount for amount in self.amounts if _inside(amount, since, until))
        dated: list[BillRow | Amount] = [*self.rows, *self.amounts]
        for row in dated:
            for edge in (since, until):
                if edge is not None and row.since < edge < row.until:
                    raise BadBill(
                        self.name,
                        row.place,
                        f"it sums up {row.since.isoformat()} to {row.until.isoformat()}, and {edge.isoformat()} "
                        "cuts it in two",
                        "begin and end where a row of the bill begins and ends",
                    )
        latest, earliest = _latest(self.since, since), _earliest(self.until, until)
        left_out = self.elsewhen + len(dated) - len(kept) - len(amounts)
        return replace(self, rows=kept, amounts=amounts, since=latest, until=earliest, elsewhen=left_out)


def refuse_overlaps(name: str, rows: Iterable[BillRow]) -> None:
    """Raises BadBill when two sums of one model cover some time twice without covering the same."""
    spans: defaultdict[tuple[str, str], list[BillRow]] = defaultdict(list)
    for row in rows:
        spans[row.provider, row.model].append(row)
    for of_model in spans.values():
        ordered = sorted(of_model, key=lambda row: (row.since, row.until))
        for left, right in pairwise(ordered):
            if left.until > right.since and (left.since, left.until) != (right.since, right.until):
                raise BadBill(
                    name,
                    right.place,
                    f"its time, {right.since.isoformat()} to {right.until.isoformat()}, overlaps that of {left.place}",
                    "give each stretch of time once, in buckets of one width",
                )


def _inside(row: BillRow | Amount, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or row.since >= since) and (until is None or row.since < until)


def _latest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


# What each model call may claim.

# How far the provider's clock and ours may be apart.
CLOCK_TOLERANCE = timedelta(seconds=2)
# How long a call without an end may have been under way at most: the time-out of the providers' own clients.
LONGEST_CALL = timedelta(minutes=10)
# How long after its worker's last sign of life a call may still have been under way: a beat is a second apart from the
# next, and may be late.
_AFTER_LAST_SIGN = timedelta(seconds=2)
_GOING_ON = (CallState.SETTLED, CallState.STARTED)
# A request may lie in a connection that stands still, and be processed long after its call gave up. The
# sender's kernel gives such a connection up after about a quarter of an hour.
LONGEST_DELAY = timedelta(minutes=15)
# A sidecar that repeats calls waits a second before it does (docs/operations.md); two requests of one call are at least
# so far apart, also when they took unlike ways. A call that was turned away sooner made no request before that.
SHORTEST_PAUSE = timedelta(milliseconds=750)
# The journal's error of a call without an end whose turn was asked again: then the call that did so must be there.
EXECUTED_AGAIN = "the step was executed again"
# How far an estimate may be from the bill, when the provider never reports what ours is worth: other tokenizers, other
# languages, and the instructions that a provider puts before the tools.
_UNPROVEN_PERCENT, _UNPROVEN_TOKENS = 50, 600
# Where it does report, an estimate may be off by twice as much as the worst that was seen with that model, and by this.
_PROVEN_PERCENT, _PROVEN_TOKENS = 5, 16


NO_ENDS: Mapping[str, datetime] = {}


@dataclass(frozen=True, slots=True)
class Claim:
    """What one call may claim.

    call: with what it may have used, if it brought no answer. record: what our record says.
    since, until: its own time. early, late: with the clocks' tolerance, which does not reach into the time of the same
    turn's other calls. last: until when its own request may still arrive, if the call gave up; else `until`.
    owes: whether it was paid, and to whom, so that one request of it must stand on the bill. exact: whether the
    provider reported what that one used. own: whether the bill may hold its own request.
    expected: input tokens of each of its requests, give or take `slack`; None when they were not counted.
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
    expected: int | None
    slack: int

    @property
    def homeless(self) -> bool:
        """Whether it was paid, and its provider is not known."""
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


def claims_of(calls: Iterable[CallRecord], ends: Mapping[str, datetime] = NO_ENDS) -> tuple[Claim, ...]:
    """What the calls may claim, oldest first. `ends`: when calls were over that nobody saw end, by id, as their tasks'
    records know it; of the others the journal alone tells it."""
    ordered = sorted(calls, key=lambda call: (call.started_at, call.number, call.call_id))
    turns: defaultdict[tuple[str, int], list[CallRecord]] = defaultdict(list)
    asks: defaultdict[str, list[datetime]] = defaultdict(list)
    for call in ordered:
        turns[call.execution_id, call.turn].append(call)
        asks[call.execution_id].append(call.started_at)
    over = {
        call.call_id: ends.get(call.call_id) or call_end(call, StepTimes(asks[call.execution_id])) for call in ordered
    }
    evidence = _Evidence(
        {(call.component, call.provider): call.model for call in ordered if call.model},
        {(call.model, call.request_digest): call.usage.input_tokens for call in ordered if _reported(call)},
        _spread(ordered),
    )
    return tuple(_claim(call, turns[call.execution_id, call.turn], over[call.call_id], evidence) for call in ordered)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What all calls together tell: the model behind a component, what a question's input came to, how far our
    estimates of a model's input were off."""

    model_of: Mapping[tuple[str, str], str]
    input_of: Mapping[tuple[str, str], int | None]
    spread: Mapping[str, int]


def _claim(call: CallRecord, turn: Sequence[CallRecord], end: datetime | None, evidence: _Evidence) -> Claim:
    settled = next((call for call in turn if call.state is CallState.SETTLED), None)
    repeated = settled if settled and settled.provider == call.provider else None
    component = (call.component, call.provider)
    model = call.model or (repeated.model if repeated else "") or evidence.model_of.get(component, "")
    usage = lost_usage(call, settled) if call.wasted else call.usage
    exact = _reported(call)
    exact_input = usage.input_tokens if exact else evidence.input_of.get((model, call.request_digest))
    expected = call.reserve_input if exact_input is None else exact_input
    since, until, early, late = _window(call, turn, end)
    # Then the last of its requests was not billed, but one before that may have been.
    turned_away = call.wasted and usage == NOTHING
    owes = bool(call.provider) and (exact or call.state is CallState.SETTLED)
    own = not turned_away or until - since >= SHORTEST_PAUSE
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
        expected=expected or None,
        slack=0 if exact_input is not None else slack(expected, evidence.spread.get(model)),
    )


def _gave_up(call: CallRecord, turn: Sequence[CallRecord]) -> bool:
    """Whether it brought no answer, and its turn went on without it. Of a turn without an answer the record may lack
    the call that brought it, and a request of the same size may be that call's."""
    ended = call.ended_at is not None or any(other.started_at > call.started_at for other in turn)
    return call.wasted and ended and any(other.state in _GOING_ON for other in turn)


def slack(expected: int, proven: int | None) -> int:
    """How far a request may be from our estimate of its input; `proven` is by how many hundredths estimates of that
    model were off at worst, None when it never reports."""
    if proven is None:
        return expected * _UNPROVEN_PERCENT // 100 + _UNPROVEN_TOKENS
    return expected * (2 * proven + _PROVEN_PERCENT) // 100 + _PROVEN_TOKENS


def _reported(call: CallRecord) -> bool:
    usage = call.usage
    return usage.basis is UsageBasis.REPORTED and usage.input_tokens is not None and usage.output_tokens is not None


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


def _window(
    call: CallRecord, turn: Sequence[CallRecord], end: datetime | None
) -> tuple[datetime, datetime, datetime, datetime]:
    later = [other.started_at for other in turn if other.started_at > call.started_at]
    since = call.started_at
    until = max(call.ended_at, since) if call.ended_at is not None else _latest_arrival(call, later, end)
    before = [other.ended_at or since for other in turn if other.started_at < since]
    early = max([since - CLOCK_TOLERANCE, *(end for end in before if end <= since)])
    return since, until, early, min([until + CLOCK_TOLERANCE, *(start for start in later if start >= until)])


def _latest_arrival(call: CallRecord, later: Sequence[datetime], end: datetime | None) -> datetime:
    """Until when the request of a call that nobody saw end may have arrived. `later`: when its turn asked again."""
    # Without its successor the record has a hole, and the call may not stand in for what is missing there.
    longest = CLOCK_TOLERANCE if call.error == EXECUTED_AGAIN and not later else LONGEST_CALL
    over = [end + _AFTER_LAST_SIGN] if end is not None else []
    return min([*over, *later, call.started_at + longest])
