"""A provider's bill, independent of its format, and what each of our model calls may claim on it.

A bill holds single requests, or sums of a model over a period. A paid call must have one request on it: its own. A call
without an answer may have been billed or not. A request arrives between the start and the end of its call. If the end
is unknown, it is estimated (`app/finance/call_end.py`) and extended a little, to at most `LONGEST_CALL`.
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
# Number of digits of a time since 1970 -> units per second: seconds, milliseconds, microseconds, nanoseconds.
_EPOCH_DIGITS = {10: 1, 13: 1_000, 16: 1_000_000, 19: 1_000_000_000}
_NAMED_UTC = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
_FRACTION = re.compile(r"(\.\d{6})\d+")
_DAY_REMEDY = "write it as 2026-11-22"
_TIME_REMEDY = "write it as 2026-11-22T13:05:00Z (ISO 8601), or as seconds since 1970"


def epoch_instant(name: str, place: str, field: str, value: int) -> datetime:
    """An instant given as seconds, milliseconds, microseconds or nanoseconds since 1970. Raises BadBill."""
    per = _EPOCH_DIGITS.get(len(str(abs(value)))) if abs(value) < 10**20 else None
    at = (
        datetime.fromtimestamp(0, UTC) + timedelta(seconds=value // per, microseconds=value % per * 10**6 // per)
        if per
        else None
    )
    if at is None or not _EARLIEST <= at < _LATEST:
        shown = str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
        raise BadBill(name, place, f"{field} {shown} is not a time since 2015 in seconds or milliseconds", _TIME_REMEDY)
    return at


def instant(name: str, place: str, field: str, text: str) -> datetime:
    """An instant in the zone that the text names, otherwise in UTC. Raises BadBill."""
    bare = text.strip()
    head, _, tail = bare.partition(".")
    if head.isascii() and head.isdigit() and len(head) >= 9 and (not tail or (tail.isascii() and tail.isdigit())):
        if len(head) > 20:
            raise BadBill(name, place, f"{field} {text!r:.40} is not a time", _TIME_REMEDY)
        at = epoch_instant(name, place, field, int(head))
        return at + timedelta(microseconds=int(tail[:6].ljust(6, "0"))) if tail and len(head) == 10 else at
    try:
        at = datetime.fromisoformat(_FRACTION.sub(r"\1", _NAMED_UTC.sub("+00:00", bare)) if ":" in bare else bare)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        at.astimezone(UTC)
    except (ValueError, OverflowError):
        remedy = _DAY_REMEDY if "date" in field or "day" in field else _TIME_REMEDY
        raise BadBill(name, place, f"{field} {text!r:.60} is not a time{_hint(bare)}", remedy) from None
    if not _EARLIEST <= at < _LATEST:
        raise BadBill(name, place, f"{field} {text!r:.60} is not a time between 2015 and 2100", _TIME_REMEDY)
    return at


def _hint(text: str) -> str:
    if re.fullmatch(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}.*", text, re.DOTALL):
        return ": it does not begin with the year, so day and month could be confused"
    if re.search(r"\d\s*[A-Z]{2,5}$", text):
        return ": a zone's abbreviation is ambiguous; write its offset, such as +01:00"
    return ""


@dataclass(frozen=True, slots=True)
class Count:
    """Requests and tokens of a bill or of our record, or their difference, which may be negative.

    `input_tokens` includes `cached_tokens`. None means unknown, not zero; a sum with an unknown part is unknown.
    """

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
        """Input plus output tokens."""
        return self.input_tokens + self.output_tokens

    @property
    def lines(self) -> tuple[int, ...]:
        """Tokens by price: plain input, cached input, output; if cached tokens are unknown: input, output."""
        if self.cached_tokens is None:
            return self.input_tokens, self.output_tokens
        return self.input_tokens - self.cached_tokens, self.cached_tokens, self.output_tokens

    @property
    def magnitude(self) -> int:
        """The sum of the absolute values of a difference's lines, so that a plus and a minus never cancel."""
        return sum(map(abs, self.lines))


NONE = Count()


def total(counts: Iterable[Count]) -> Count:
    """The sum of the counts."""
    sum_of = NONE
    for count in counts:
        sum_of += count
    return sum_of


def count_of(usage: TokenUsage, requests: int = 1) -> Count:
    """The count of a call's usage. Unknown tokens count as zero, because no sum of the record includes them either."""
    cached = usage.cached_tokens if usage.input_tokens else 0
    return Count(requests, usage.input_tokens or 0, cached, usage.output_tokens or 0)


def _plus(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def _minus(value: int | None) -> int | None:
    return None if value is None else -value


class BadBill(RefundAgentError):
    """A bill that cannot be read. The message names the file, the place in it, the value and the remedy."""

    code = "bad_bill"
    status = 422
    title = "Bill not readable"

    def __init__(self, name: str, place: str, problem: str, remedy: str) -> None:
        super().__init__(f"bill {name}{', ' if place else ''}{place}: {problem}; {remedy}")


class BillFormat(StrEnum):
    """The format that a bill was read from."""

    SANDBOX = "sandbox"
    OPENAI_USAGE = "openai-usage"
    OPENAI_COSTS = "openai-costs"
    ANTHROPIC_USAGE = "anthropic-usage"
    ANTHROPIC_COSTS = "anthropic-costs"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class BillRow:
    """One billed row: a request, or the sum of a period. `place`: where the bill has it, such as `line 2`.

    since, until: UTC; equal for a single request, otherwise the period of the sum, excluding `until`.
    provider: our id of the provider; empty if the bill does not name it. written: input tokens written to the
    provider's cache; 0 if the bill does not say.
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
        """Whether the row is a single request."""
        return self.since == self.until


@dataclass(frozen=True, slots=True)
class Amount:
    """One amount of money on a bill, for a model and a period; negative for a credit.

    model: empty for all models together, otherwise the bill's name for what was billed. currency: ISO 4217.
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
    """A bill. `since` and `until`: the time that it covers, excluding `until`; None if it does not say.

    unbilled: the number of requests on it that cost nothing. unread: columns that were not read.
    extra_quantities: columns with a quantity that our record does not keep, with their sums.
    outside: the number of rows and amounts that were left out because they are of another time.
    providers: our ids of the providers; empty if the bill does not name them.
    amounts: its money, if any. counts: whether it has tokens.
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
    extra_quantities: tuple[str, ...] = ()
    outside: int = 0

    @property
    def by_request(self) -> bool:
        """Whether every row is a single request."""
        return all(row.one_request for row in self.rows) and self.format in (BillFormat.SANDBOX, BillFormat.CSV)

    def within(self, since: datetime | None, until: datetime | None) -> Bill:
        """The part of the bill in that time. Raises BadBill if one of its sums is on both sides of an edge."""
        kept = tuple(row for row in self.rows if _starts_within(row, since, until))
        amounts = tuple(amount for amount in self.amounts if _starts_within(amount, since, until))
        dated: list[BillRow | Amount] = [*self.rows, *self.amounts]
        for row in dated:
            for edge in (since, until):
                if edge is not None and row.since < edge < row.until:
                    raise BadBill(
                        self.name,
                        row.place,
                        f"it is the sum of {row.since.isoformat()} to {row.until.isoformat()}, and {edge.isoformat()} "
                        "is within that time",
                        "choose times at which a row of the bill begins or ends",
                    )
        latest, earliest = _latest(self.since, since), _earliest(self.until, until)
        outside = self.outside + len(dated) - len(kept) - len(amounts)
        return replace(self, rows=kept, amounts=amounts, since=latest, until=earliest, outside=outside)


def refuse_overlaps(name: str, rows: Iterable[BillRow]) -> None:
    """Raises BadBill if the periods of two sums of one model overlap without being equal."""
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
                    "give each period once, in buckets of equal width",
                )


def _starts_within(row: BillRow | Amount, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or row.since >= since) and (until is None or row.since < until)


def _latest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


# How far the provider's clock and ours may be apart.
CLOCK_TOLERANCE = timedelta(seconds=2)
# The longest duration of a call without a recorded end: the time-out of the providers' own clients.
LONGEST_CALL = timedelta(minutes=10)
# How long after its worker's last heartbeat a call may still have been in flight: heartbeats are a second apart, and
# may be late.
_AFTER_LAST_HEARTBEAT = timedelta(seconds=2)
_ANSWERED_OR_RUNNING = (CallState.SETTLED, CallState.STARTED)
# A request may hang in a stalled connection, and be processed long after its call gave up. The sender's kernel gives
# up such a connection after about a quarter of an hour.
LONGEST_DELAY = timedelta(minutes=15)
# The shortest time between two requests of one call. A sidecar that repeats calls waits a second (docs/operations.md);
# the rest is room for requests that travel unequally long. A call that was refused sooner made no request before.
SHORTEST_PAUSE = timedelta(milliseconds=750)
# The journal's error of an unfinished call whose step was executed again: the record must then hold the next call.
EXECUTED_AGAIN = "the step was executed again"
# How far an estimate may be from the bill if the provider never reports usage: it may differ by tokenizer, by language,
# and by the instructions that a provider adds for tools.
_UNPROVEN_PERCENT, _UNPROVEN_TOKENS = 50, 600
# If the provider reports usage, the tolerance is twice the worst error seen with that model, plus this.
_PROVEN_PERCENT, _PROVEN_TOKENS = 5, 16


NO_ENDS: Mapping[str, datetime] = {}


@dataclass(frozen=True, slots=True)
class Claim:
    """The requests on a bill that one call may claim.

    call: the call; if it brought no answer, with the usage that it may have had. record: its count in our record.
    since, until: the time of the call. early, late: the same with the clocks' tolerance, which does not extend into the
    time of other calls of the same turn. last: the latest arrival of its request, if the call gave up; otherwise
    `until`.
    owes: whether it was paid to a known provider, so that one request must be on the bill. exact: whether the provider
    reported the usage of that request. own: whether the bill may hold the call's own request.
    expected: input tokens of each of its requests, plus or minus `slack`; None if they were not counted.
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
    def lacks_provider(self) -> bool:
        """Whether the call was paid and its provider is unknown."""
        return not self.call.provider and (self.exact or self.call.state is CallState.SETTLED)

    def of_model(self, model: str) -> bool:
        """Whether the call may have been made to that model."""
        return self.call.model in ("", model)

    def may_be(self, count: Count) -> bool:
        """Whether a request with that count may belong to the call. A call with reported tokens and an unknown provider
        is on this bill to the token, or not at all."""
        if self.exact and not self.owes:
            return self.equals(count)
        return self.expected is None or abs(count.input_tokens - self.expected) <= self.slack

    def has_expected_input(self, count: Count) -> bool:
        """Whether a request has exactly the expected input, by which a late request is recognised."""
        return self.expected == count.input_tokens

    def equals(self, count: Count) -> bool:
        """Whether the count equals the usage that the provider reported for the call."""
        usage = self.call.usage
        cached = usage.cached_tokens in (None, count.cached_tokens) or count.cached_tokens is None
        return cached and (usage.input_tokens, usage.output_tokens) == (count.input_tokens, count.output_tokens)


def claims_of(calls: Iterable[CallRecord], ends: Mapping[str, datetime] = NO_ENDS) -> tuple[Claim, ...]:
    """What the calls may claim, oldest first. `ends`: ends of unfinished calls by call id, from the records of their
    tasks; for other unfinished calls, the end is derived from the journal alone."""
    ordered = sorted(calls, key=lambda call: (call.started_at, call.number, call.call_id))
    turns: defaultdict[tuple[str, int], list[CallRecord]] = defaultdict(list)
    starts: defaultdict[str, list[datetime]] = defaultdict(list)
    for call in ordered:
        turns[call.execution_id, call.turn].append(call)
        starts[call.execution_id].append(call.started_at)
    end_of = {
        call.call_id: ends.get(call.call_id) or call_end(call, StepTimes(starts[call.execution_id])) for call in ordered
    }
    evidence = _Evidence(
        {(call.component, call.provider): call.model for call in ordered if call.model},
        {(call.model, call.request_digest): call.usage.input_tokens for call in ordered if _is_reported(call)},
        _worst_errors(ordered),
    )
    return tuple(_claim(call, turns[call.execution_id, call.turn], end_of[call.call_id], evidence) for call in ordered)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What is known from all calls together: the model behind a component, the reported input of a question, and the
    worst error of our estimates by model, in percent."""

    model_of: Mapping[tuple[str, str], str]
    input_of: Mapping[tuple[str, str], int | None]
    worst_error: Mapping[str, int]


def _claim(call: CallRecord, turn: Sequence[CallRecord], end: datetime | None, evidence: _Evidence) -> Claim:
    settled = next((call for call in turn if call.state is CallState.SETTLED), None)
    repeated = settled if settled and settled.provider == call.provider else None
    component = (call.component, call.provider)
    model = call.model or (repeated.model if repeated else "") or evidence.model_of.get(component, "")
    usage = lost_usage(call, settled) if call.wasted else call.usage
    exact = _is_reported(call)
    exact_input = usage.input_tokens if exact else evidence.input_of.get((model, call.request_digest))
    expected = call.reserve_input if exact_input is None else exact_input
    since, until, early, late = _window(call, turn, end)
    # The last request of a refused call was not billed, but an earlier one may have been.
    refused = call.wasted and usage == NOTHING
    owes = bool(call.provider) and (exact or call.state is CallState.SETTLED)
    own = not refused or until - since >= SHORTEST_PAUSE
    return Claim(
        call=replace(call, model=model, usage=usage),
        # A running call, or one that used nothing, counts as no request of our record.
        record=count_of(usage, int(call.state is not CallState.STARTED and usage != NOTHING)),
        since=since,
        until=until,
        early=early,
        late=late,
        last=until + LONGEST_DELAY if own and not owes and _gave_up(call, turn) else until,
        owes=owes,
        exact=exact,
        own=own,
        expected=expected or None,
        slack=0 if exact_input is not None else slack(expected, evidence.worst_error.get(model)),
    )


def _gave_up(call: CallRecord, turn: Sequence[CallRecord]) -> bool:
    """Whether the call brought no answer and its turn continued without it. If the turn has no answer, the record may
    lack the call that brought it, and a late request of the same size may belong to that call."""
    ended = call.ended_at is not None or any(other.started_at > call.started_at for other in turn)
    return call.wasted and ended and any(other.state in _ANSWERED_OR_RUNNING for other in turn)


def slack(expected: int, worst_error: int | None) -> int:
    """By how many tokens a request's input may differ from our estimate. `worst_error`: the worst error of estimates of
    that model in percent; None if the model never reports usage."""
    if worst_error is None:
        return expected * _UNPROVEN_PERCENT // 100 + _UNPROVEN_TOKENS
    return expected * (2 * worst_error + _PROVEN_PERCENT) // 100 + _PROVEN_TOKENS


def _is_reported(call: CallRecord) -> bool:
    usage = call.usage
    return usage.basis is UsageBasis.REPORTED and usage.input_tokens is not None and usage.output_tokens is not None


def _worst_errors(calls: Iterable[CallRecord]) -> dict[str, int]:
    """The worst error of our input estimates by model, in percent, rounded up."""
    worst: dict[str, int] = {}
    for call in calls:
        if _is_reported(call) and call.usage.input_tokens is not None and call.reserve_input > 0:
            error = -(-100 * abs(call.usage.input_tokens - call.reserve_input) // call.reserve_input)
            worst[call.model] = max(worst.get(call.model, 0), error)
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
    """The latest arrival of the request of an unfinished call. `later`: starts of the turn's next calls."""
    # If the next call is missing, the record has a gap, and this call must not account for the request of that one.
    longest = CLOCK_TOLERANCE if call.error == EXECUTED_AGAIN and not later else LONGEST_CALL
    ends = [end + _AFTER_LAST_HEARTBEAT] if end is not None else []
    return min([*ends, *later, call.started_at + longest])
