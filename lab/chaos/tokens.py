"""The provider's bill against the clean run's: how many tokens more, and what each of them was spent on. Pure.

The product's own comparison of record and bill gives every request beyond a task's own a name. What the clean run was
billed for the same tickets says, from outside, how many such tokens there must be.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.domain.models import UsageBasis
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.parsing import parse_bill
from app.finance.reconciliation.reconciliation_types import DifferenceCause, Reconciliation
from app.pricing.charge_types import CallRecord
from lab.chaos.checks import Check, paid_again
from lab.chaos.evidence import Evidence, Row

_SHOWN = 5


class Excess(StrEnum):
    """What a token beyond the clean run's bill was spent on."""

    INTERRUPTED = "interrupted calls"  # the worker died before the answer came
    FAILED = "failed calls"  # no answer came: the sidecar or the model server died, or said no
    RETRIED = "requests repeated by the sidecar"
    OVERTAKEN = "two executions at once, of which one settled"
    PAID_AGAIN = "answers that were there already"  # what the journal prevents
    OTHERWISE = "named otherwise"


_OF_CAUSE = {
    DifferenceCause.INTERRUPTED_CALL: Excess.INTERRUPTED,
    DifferenceCause.FAILED_CALL: Excess.FAILED,
    DifferenceCause.SIDECAR_RETRY: Excess.RETRIED,
}


@dataclass(frozen=True)
class Tokens:
    """clean, billed: all tokens of both bills; requests likewise. excess: tokens by what they were spent on.
    excess_requests: the same, counted in requests."""

    clean: int
    billed: int
    clean_requests: int
    requests: int
    excess: Mapping[Excess, int]
    excess_requests: Mapping[Excess, int]
    checks: tuple[Check, ...]


def tokens(evidence: Evidence, clean_bill: Sequence[Row]) -> Tokens:
    """Both bills side by side, with what must be zero."""
    bill = parse_bill("the sandbox's bill", json.dumps({"rows": [dict(row) for row in evidence.bill]}))
    found = reconcile(evidence.calls, bill, unattributed=evidence.unattributed)
    named = list(_named(evidence.calls, found))
    excess, requests = Counter[Excess](), Counter[Excess]()
    for cause, spent, _ in named:
        excess[cause] += spent
        requests[cause] += 1
    given_up = sum(spent for _, spent, task_id in named if task_id in evidence.begun_again)
    clean, billed = _paid(clean_bill), _paid(evidence.bill)
    return Tokens(
        clean=_sum(clean),
        billed=_sum(billed),
        clean_requests=len(clean),
        requests=len(billed),
        excess=excess,
        excess_requests=requests,
        checks=(
            _unexplained(found),
            _unnamed(_sum(billed) - _sum(clean), excess.total(), given_up),
            _other_requests(billed, clean),
        ),
    )


def _named(calls: Iterable[CallRecord], found: Reconciliation) -> Iterator[tuple[Excess, int, str]]:
    """Every request on the bill that was spent in vain: with what it was spent on, its tokens and its task."""
    late = {call.call_id for call in paid_again(calls)}
    for finding in found.findings:
        if finding.cause.explains and finding.billed.tokens:
            again = finding.call is not None and finding.call.call_id in late
            cause = Excess.PAID_AGAIN if again else _OF_CAUSE.get(finding.cause, Excess.OTHERWISE)
            yield cause, finding.billed.tokens, finding.call.task_id if finding.call else ""
    # What came in vain with its usage agrees with the bill to the token, so it is no finding.
    found_by_id = {finding.call.call_id for finding in found.findings if finding.call}
    for call in calls:
        spent = (call.usage.input_tokens or 0) + (call.usage.output_tokens or 0)
        if call.wasted and call.usage.basis is UsageBasis.REPORTED and call.call_id not in found_by_id:
            yield Excess.PAID_AGAIN if call.call_id in late else Excess.OVERTAKEN, spent, call.task_id


def _unexplained(found: Reconciliation) -> Check:
    told = [_told(finding) for finding in found.findings if not finding.cause.explains]
    return Check("unexplained_tokens", "tokens that nothing explains", found.unexplained_tokens, tuple(told[:_SHOWN]))


def _unnamed(excess: int, named: int, given_up: int) -> Check:
    """The calls of a run that was given up are named as in vain, and the next run may be spared some of them: so many
    tokens more than there are beyond the clean run's bill may have a name."""
    count = max(0, excess - named) + max(0, named - given_up - excess)
    told = (f"{excess:,} tokens beyond the clean run's bill, {named:,} of them named",) if count else ()
    return Check("unnamed_tokens", "tokens beyond the clean run's bill without a name", count, told)


def _other_requests(billed: Sequence[Row], clean: Sequence[Row]) -> Check:
    """The model was asked the same questions as in the clean run, each at least once: compared by their content."""
    ours, theirs = Counter(_digests(billed)), Counter(_digests(clean))
    strange = sum(count for digest, count in ours.items() if digest not in theirs)
    missing = sum((theirs - ours).values())
    told = (f"{strange} requests of another content, {missing} of the clean run's are missing",)
    title = "requests of another content than the clean run's, or missing"
    return Check("other_requests", title, strange + missing, told if strange or missing else ())


def _digests(rows: Iterable[Row]) -> Iterator[str]:
    return (str(row["request_digest"]) for row in rows)


def _paid(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["billed"]]


def _sum(rows: Iterable[Row]) -> int:
    return sum(int(row["input_tokens"]) + int(row["output_tokens"]) for row in rows)


def _told(finding: object) -> str:
    return str(finding)[:300]
