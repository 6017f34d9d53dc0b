"""Compares our record with a provider's bill: what differs is named, what has no name is counted. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from app.cost.calls import CallRecord
from app.cost.providers import SPEAKS_OPENAI, UNBILLED, may_bill, provider_id
from app.cost.reconciliation.bill import Bill, BillFormat
from app.cost.reconciliation.by_request import cells_of, compare_requests, under_way
from app.cost.reconciliation.by_sum import compare_sums
from app.cost.reconciliation.claims import CLOCK_TOLERANCE, LONGEST_CALL, Claim, claims_of
from app.cost.reconciliation.repeats import Unallocated
from app.cost.reconciliation.values import Cause, Reconciliation

Priced = Callable[[str, str, datetime], bool]
# How much earlier than a bill begins a call may have begun that stands on it.
MARGIN = LONGEST_CALL + CLOCK_TOLERANCE
_DATED = re.compile(r"(.+)-(?:\d{4}-\d{2}-\d{2}|\d{8})")


def reconcile(
    calls: Iterable[CallRecord], bill: Bill, priced: Priced | None = None, unallocated: Sequence[Unallocated] = ()
) -> Reconciliation:
    """Our record against the bill.

    calls: every row of the journal of the bill's time, and of `MARGIN` before it. priced: tells whether a model of a
    provider has a price at an instant; without it, none is said to lack one. unallocated: what the sidecar asked again
    and no call is known to have been asked again for.
    """
    known = tuple(calls)
    same = same_model({call.model for call in known}, {row.model for row in bill.rows})
    bill = replace(bill, rows=tuple(replace(row, model=same.get(row.model, row.model)) for row in bill.rows))
    claims = claims_of(known)
    providers = billed_by(bill)
    covered = tuple(claim for claim in claims if _in_time(bill, claim) and _may_stand(claim, providers))
    compared = sum(under_way(claim, bill) for claim in covered)
    others = Counter(
        claim.call.provider for claim in claims if under_way(claim, bill) and not _may_stand(claim, providers)
    )
    lacking = frozenset(claim.call.call_id for claim in covered if not _has_price(claim, priced))
    if bill.by_request:
        findings = compare_requests(covered, bill, unallocated)
        cells = cells_of(findings, lacking)
        agreeing = sum(finding.cause is Cause.AGREES for finding in findings)
    else:
        findings, cells, agreeing = compare_sums(covered, bill, lacking, unallocated)
    absent = [each for each in findings if each.cause is Cause.UNKNOWN_PROVIDER and not each.billed.requests]
    return Reconciliation(
        bill=bill,
        findings=tuple(finding for finding in findings if finding.cause is not Cause.AGREES),
        cells=cells,
        compared=compared,
        agreeing=agreeing,
        outside=len(claims) - compared - others.total(),
        same_model=same,
        unpriced=_unpriced(covered, lacking),
        others=dict(sorted(others.items())),
        unknown_provider=sum(claim.homeless and under_way(claim, bill) for claim in covered),
        absent=len(absent),
    )


def same_model(ours: set[str], billed: set[str]) -> dict[str, str]:
    """Names on the bill -> ours: a bill may name the dated version of a model that we know without its date."""
    found = {name: _DATED.fullmatch(name) for name in billed - ours}
    return {name: match[1] for name, match in sorted(found.items()) if match and match[1] in ours}


def _in_time(bill: Bill, claim: Claim) -> bool:
    if bill.since is not None and claim.until + CLOCK_TOLERANCE < bill.since:
        return False
    return bill.until is None or claim.since - CLOCK_TOLERANCE < bill.until


def billed_by(bill: Bill) -> frozenset[str]:
    """Our ids for whose bill it is; empty when it does not say. The sandbox says which protocol it was asked in, and
    plays everybody who speaks it."""
    found = bill.providers or frozenset(row.provider for row in bill.rows)
    if "" in found:
        return frozenset()
    return found | SPEAKS_OPENAI if bill.format is BillFormat.SANDBOX and "openai" in found else found


def _may_stand(claim: Claim, providers: frozenset[str]) -> bool:
    """Whether the call may stand on a bill of those providers: always, when nobody knows whose call it is."""
    component = claim.call.provider
    if not component:
        return True
    if not providers:
        return provider_id(component) not in UNBILLED
    return any(may_bill(provider, component) for provider in providers)


def _has_price(claim: Claim, priced: Priced | None) -> bool:
    call = claim.call
    return priced is None or not claim.record.tokens or priced(call.provider, call.model, call.started_at)


def _unpriced(claims: Sequence[Claim], lacking: frozenset[str]) -> Mapping[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for claim in claims:
        if claim.call.call_id in lacking:
            key = (claim.call.provider, claim.call.model)
            found[key] = found.get(key, 0) + claim.record.tokens
    return dict(sorted(found.items()))
