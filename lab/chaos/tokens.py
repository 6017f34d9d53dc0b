"""Compares the provider's bill with that of the clean run: the tokens beyond it, and their causes.

The product's reconciliation of record and bill names the cause of every wasted request. The clean run's bill for the
same tickets gives, independently, how many such tokens there must be.
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
from lab.chaos.checks import Check, find_paid_again
from lab.chaos.evidence import Evidence, Row

_SHOWN = 5


class Excess(StrEnum):
    """The cause of a token beyond the clean run's bill."""

    INTERRUPTED = "interrupted calls"  # the worker died before the answer came
    FAILED = "failed calls"  # no answer: the sidecar or the model server died or refused
    RETRIED = "requests repeated by the sidecar"
    SECOND_EXECUTION = "two executions at once, of which one settled"
    PAID_AGAIN = "answers that the journal already had"  # the journal prevents these
    OTHERWISE = "named otherwise"


_OF_CAUSE = {
    DifferenceCause.INTERRUPTED_CALL: Excess.INTERRUPTED,
    DifferenceCause.FAILED_CALL: Excess.FAILED,
    DifferenceCause.SIDECAR_RETRY: Excess.RETRIED,
}


@dataclass(frozen=True)
class Tokens:
    """Tokens and requests of both bills, and the excess by cause.

    clean, clean_requests: of the run without faults. billed, requests: of this run. excess, excess_requests: tokens and
    requests beyond what the tasks needed.
    """

    clean: int
    billed: int
    clean_requests: int
    requests: int
    excess: Mapping[Excess, int]
    excess_requests: Mapping[Excess, int]
    checks: tuple[Check, ...]


def compare_bills(evidence: Evidence, clean_bill: Sequence[Row]) -> Tokens:
    """Compares both bills, and checks that every token beyond the clean run's has a cause."""
    bill = parse_bill("the sandbox's bill", json.dumps({"rows": [dict(row) for row in evidence.bill]}))
    reconciliation = reconcile(evidence.calls, bill, unattributed=evidence.unattributed)
    wasted = list(_wasted_requests(evidence.calls, reconciliation))
    excess, requests = Counter[Excess](), Counter[Excess]()
    for cause, spent, _ in wasted:
        excess[cause] += spent
        requests[cause] += 1
    of_restarted = sum(spent for _, spent, task_id in wasted if task_id in evidence.restarted_tasks)
    clean, billed = _billed_rows(clean_bill), _billed_rows(evidence.bill)
    return Tokens(
        clean=_sum(clean),
        billed=_sum(billed),
        clean_requests=len(clean),
        requests=len(billed),
        excess=excess,
        excess_requests=requests,
        checks=(
            _check_unexplained(reconciliation),
            _check_unnamed(_sum(billed) - _sum(clean), excess.total(), of_restarted),
            _check_requests(billed, clean),
        ),
    )


def _wasted_requests(calls: Iterable[CallRecord], reconciliation: Reconciliation) -> Iterator[tuple[Excess, int, str]]:
    """Cause, tokens and task of every billed request that was wasted."""
    paid_again = {call.call_id for call in find_paid_again(calls)}
    for finding in reconciliation.findings:
        if finding.cause.explains and finding.billed.tokens:
            repeated = finding.call is not None and finding.call.call_id in paid_again
            cause = Excess.PAID_AGAIN if repeated else _OF_CAUSE.get(finding.cause, Excess.OTHERWISE)
            yield cause, finding.billed.tokens, finding.call.task_id if finding.call else ""
    # A wasted call with reported usage agrees with the bill to the token, so it is not among the findings.
    with_finding = {finding.call.call_id for finding in reconciliation.findings if finding.call}
    for call in calls:
        spent = (call.usage.input_tokens or 0) + (call.usage.output_tokens or 0)
        if call.wasted and call.usage.basis is UsageBasis.REPORTED and call.call_id not in with_finding:
            yield Excess.PAID_AGAIN if call.call_id in paid_again else Excess.SECOND_EXECUTION, spent, call.task_id


def _check_unexplained(reconciliation: Reconciliation) -> Check:
    examples = [str(finding)[:300] for finding in reconciliation.findings if not finding.cause.explains][:_SHOWN]
    count = reconciliation.unexplained_tokens
    return Check("unexplained_tokens", "tokens that nothing explains", count, tuple(examples))


def _check_unnamed(excess: int, named: int, of_restarted: int) -> Check:
    """Compares the excess with the tokens that have a cause.

    All calls of a rejected run count as wasted, but the next run may not repeat all of them. So up to `of_restarted`
    more tokens may have a cause than there are beyond the clean run's bill.
    """
    count = max(0, excess - named) + max(0, named - of_restarted - excess)
    examples = (f"{excess:,} tokens beyond the clean run's bill, {named:,} of them with a cause",) if count else ()
    return Check("unnamed_tokens", "tokens beyond the clean run's bill without a cause", count, examples)


def _check_requests(billed: Sequence[Row], clean: Sequence[Row]) -> Check:
    """Checks by digest that the model received the same requests as in the clean run, each at least as often."""
    ours, theirs = Counter(_digests(billed)), Counter(_digests(clean))
    other = sum(count for digest, count in ours.items() if digest not in theirs)
    missing = sum((theirs - ours).values())
    examples = (f"{other} requests with another content, {missing} of the clean run's are missing",)
    title = "requests whose content differs from the clean run's, or missing"
    return Check("other_requests", title, other + missing, examples if other or missing else ())


def _digests(rows: Iterable[Row]) -> Iterator[str]:
    return (str(row["request_digest"]) for row in rows)


def _billed_rows(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["billed"]]


def _sum(rows: Iterable[Row]) -> int:
    return sum(int(row["input_tokens"]) + int(row["output_tokens"]) for row in rows)
