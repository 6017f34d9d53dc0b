"""Compares our record with a provider's bill: what differs is named, what has no name is counted. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from app.finance.reconciliation.bill import Bill, BillFormat
from app.finance.reconciliation.billed_money import RatesOf, compare_money
from app.finance.reconciliation.by_request import Unallocated, cells_of, compare_requests, under_way
from app.finance.reconciliation.by_sum import compare_sums
from app.finance.reconciliation.claims import CLOCK_TOLERANCE, LONGEST_CALL, LONGEST_DELAY, Claim, claims_of
from app.finance.reconciliation.reconciliation_types import Cause, Cell, Finding, Reconciliation
from app.pricing.charge_types import CallRecord, Charge
from app.pricing.providers import SPEAKS_OPENAI, UNBILLED, may_bill, provider_id

Priced = Callable[[str, str, datetime], bool]
# How much earlier than a bill begins a call may have begun that stands on it.
MARGIN = LONGEST_CALL + LONGEST_DELAY + CLOCK_TOLERANCE
_DATED = re.compile(r"(.+)-(?:\d{4}-\d{2}-\d{2}|\d{8})")


def _no_rates(_provider: str, _model: str, _at: datetime) -> None:
    """Nobody says what anything costs."""


def reconcile(
    calls: Iterable[CallRecord],
    bill: Bill,
    priced: Priced | None = None,
    unallocated: Sequence[Unallocated] = (),
    charges: Iterable[Charge] = (),
    rates: RatesOf = _no_rates,
) -> Reconciliation:
    """Our record against the bill.

    calls: every row of the journal of the bill's time, and of `MARGIN` before it. priced: tells whether a model of a
    provider has a price at an instant; without it, none is said to lack one. unallocated: what the sidecar asked again
    and no call is known to have been asked again for. charges: what we have booked in the bill's time, and `rates`,
    what tokens cost by our prices: for a bill that names money.
    """
    known = tuple(calls)
    billed = {row.model for row in bill.rows} | {amount.model for amount in bill.amounts}
    same = same_model({call.model for call in known}, billed)
    bill = replace(bill, rows=tuple(replace(row, model=same.get(row.model, row.model)) for row in bill.rows))
    claims = claims_of(known)
    providers = billed_by(bill)
    covered = tuple(claim for claim in claims if _in_time(bill, claim) and _may_stand(claim.call.provider, providers))
    inside = [claim for claim in claims if under_way(claim, bill)]
    compared = [claim for claim in inside if _may_stand(claim.call.provider, providers)]
    others = Counter(claim.call.provider for claim in inside if not _may_stand(claim.call.provider, providers))
    lacking = frozenset(claim.call.call_id for claim in covered if not _has_price(claim, priced))
    findings, cells, agreeing = _compared(covered, bill, lacking, unallocated)
    absent = [each for each in findings if each.cause is Cause.UNKNOWN_PROVIDER and not each.billed.requests]
    mine = (each for each in charges if each.provider and _may_stand(each.provider, providers))
    return Reconciliation(
        bill=bill,
        findings=tuple(finding for finding in findings if finding.cause is not Cause.AGREES),
        cells=cells,
        compared=len(compared),
        agreeing=agreeing,
        outside=len(claims) - len(inside),
        same_model=same,
        unpriced=_unpriced(covered, lacking),
        money=compare_money(bill, (each for each in mine if _in_bill(bill, each.at)), same, rates),
        uncached=sum(claim.record.cached_tokens is None for claim in compared),
        others=dict(sorted(others.items())),
        whose=() if providers else tuple(sorted({claim.call.provider for claim in compared} - {""})),
        unknown_provider=sum(claim.homeless for claim in compared),
        absent=len(absent),
    )


def _compared(
    claims: Sequence[Claim], bill: Bill, lacking: frozenset[str], unallocated: Sequence[Unallocated]
) -> tuple[tuple[Finding, ...], tuple[Cell, ...], int]:
    """The findings, the cells, and how many calls stand on the bill to the token; nothing when it names no tokens."""
    if not bill.counts:
        return (), (), 0
    if not bill.by_request:
        return compare_sums(claims, bill, lacking, unallocated)
    findings = compare_requests(claims, bill, unallocated)
    return findings, cells_of(findings, lacking), sum(finding.cause is Cause.AGREES for finding in findings)


def same_model(ours: set[str], billed: set[str]) -> dict[str, str]:
    """Names on the bill -> ours: a bill may name the dated version of a model that we know without its date."""
    found = {name: _DATED.fullmatch(name) for name in billed - ours}
    return {name: match[1] for name, match in sorted(found.items()) if match and match[1] in ours}


def _in_time(bill: Bill, claim: Claim) -> bool:
    if bill.since is not None and max(claim.until + CLOCK_TOLERANCE, claim.last) < bill.since:
        return False
    return bill.until is None or claim.since - CLOCK_TOLERANCE < bill.until


def billed_by(bill: Bill) -> frozenset[str]:
    """Our ids for whose bill it is; empty when it does not say. The sandbox says which protocol it was asked in, and
    plays everybody who speaks it."""
    found = bill.providers or frozenset(row.provider for row in bill.rows)
    if "" in found:
        return frozenset()
    return found | SPEAKS_OPENAI if bill.format is BillFormat.SANDBOX and "openai" in found else found


def _in_bill(bill: Bill, at: datetime) -> bool:
    return (bill.since is None or at >= bill.since) and (bill.until is None or at < bill.until)


def _may_stand(component: str, providers: frozenset[str]) -> bool:
    """Whether a call may stand on a bill of those providers: always, when nobody knows whose call it is."""
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
