"""A reconciliation in sentences: the verdict, what was compared, and remarks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from app.domain.formatting import day, rounded
from app.domain.money import ZERO
from app.domain.money import total as total_of_money
from app.finance.reconciliation.reconciliation_types import BilledMoney, MoneyOutcome, Reconciliation
from app.pricing.providers import UNBILLED, provider_id

_DAY = timedelta(days=1)


def verdict(reconciliation: Reconciliation) -> str:
    """One sentence about tokens and one for each currency, which claim no more than was compared."""
    bill = reconciliation.bill
    if reconciliation.empty:
        rows = f" ({bill.outside:,} rows of the bill are of another time)" if bill.outside else ""
        return f"{bill.name}: nothing was compared: neither bill nor record has anything in that time{rows}."
    sentences = [_tokens_verdict(reconciliation)] if bill.counts else []
    sentences += [_money_verdict(reconciliation)] if reconciliation.money else []
    return f"{bill.name}: {' '.join(sentences) or 'it names neither tokens nor money.'}"


def _tokens_verdict(reconciliation: Reconciliation) -> str:
    counts = f"{reconciliation.billed.tokens:,} tokens billed, {reconciliation.record.tokens:,} in our record"
    if reconciliation.unexplained_tokens:
        return f"{counts}; {reconciliation.unexplained_tokens:,} tokens are unexplained."
    if not reconciliation.findings:
        return (
            f"{counts}; they agree to the token{'' if _has_cached(reconciliation) else ', cached ones not compared'}."
        )
    names = ", ".join(cause.words for cause in reconciliation.causes)
    return f"{counts}; the difference of {reconciliation.difference.tokens:+,} tokens is explained by {names}."


def _money_verdict(reconciliation: Reconciliation) -> str:
    sentences = []
    for currency in sorted({cell.currency for cell in reconciliation.money}):
        cells = [cell for cell in reconciliation.money if cell.currency == currency]
        compared_cells = [cell for cell in cells if cell.outcome.compared]
        if not compared_cells:
            sentences.append(f"{currency} on the bill could not be compared.")
            continue
        billed = total_of_money(cell.billed for cell in compared_cells)
        contracted = total_of_money(cell.contracted or ZERO for cell in compared_cells)
        amounts = f"{rounded(billed)} {currency} billed, {rounded(contracted)} by our prices"
        differing = [cell for cell in compared_cells if not cell.outcome.passes]
        if differing:
            reasons = ", ".join(dict.fromkeys(cell.outcome.words for cell in differing))
            sentences.append(f"{amounts}; {len(differing)} of {len(compared_cells)} sums differ: {reasons}.")
        elif all(cell.outcome is MoneyOutcome.AGREES for cell in compared_cells):
            sentences.append(f"{amounts}; they agree to as many digits as the bill writes.")
        else:
            sentences.append(f"{amounts}; the difference is that of the tokens, or of what we estimate.")
    return " ".join(sentences)


def compared(reconciliation: Reconciliation) -> tuple[str, ...]:
    """What of the bill was compared with our record."""
    bill = reconciliation.bill
    quantities = ["models", "times"]
    if bill.counts:
        quantities += ["input tokens", "output tokens"]
        quantities += ["cached tokens"] if _has_cached(reconciliation) else []
        quantities += ["requests"] if _has_requests(reconciliation) else []
    currencies = sorted({cell.currency for cell in reconciliation.money if cell.outcome.compared})
    return (*quantities, *(f"money in {currency}" for currency in currencies))


def not_compared(reconciliation: Reconciliation) -> tuple[str, ...]:
    """What of the bill was not compared with our record, and why."""
    bill, reasons = reconciliation.bill, list[str]()
    if not bill.counts:
        reasons.append("tokens (not on this bill)")
    else:
        reasons += [] if _has_cached(reconciliation) else ["cached tokens (not on this bill)"]
        reasons += [] if _has_requests(reconciliation) else ["requests (not on this bill)"]
        if reconciliation.uncached and _has_cached(reconciliation):
            reasons.append(f"cached tokens of {reconciliation.uncached} calls (their provider reports none)")
        if any(row.written for row in bill.rows):
            reasons.append("tokens written to the cache (our record does not count them separately)")
    reasons += [] if bill.amounts else ["money (not on this bill)"]
    for outcome in (MoneyOutcome.UNPRICED, MoneyOutcome.OTHER_CURRENCY):
        models = dict.fromkeys(cell.model or "all models" for cell in reconciliation.money if cell.outcome is outcome)
        reasons += [f"money of {', '.join(models)} ({outcome.words})"] if models else []
    return (*reasons, *(f"column {column}" for column in bill.extra_quantities))


def _has_cached(reconciliation: Reconciliation) -> bool:
    return not reconciliation.bill.rows or any(row.count.cached_tokens is not None for row in reconciliation.bill.rows)


def _has_requests(reconciliation: Reconciliation) -> bool:
    return not reconciliation.bill.rows or any(row.count.requests is not None for row in reconciliation.bill.rows)


def remarks(reconciliation: Reconciliation) -> Iterator[str]:
    """Remarks beside the verdict: what was compared, what was left out, which model names were equated."""
    bill, calls = reconciliation.bill, f"{reconciliation.compared} calls"
    calls += f", {reconciliation.agreeing} of them on the bill to the token" * bill.counts
    yield calls + f"; {reconciliation.outside} calls of another time were left out" * bool(reconciliation.outside)
    for provider, count in reconciliation.others.items():
        yield f"{count} calls of {provider} are not on this bill and were left out: {_other_bill(provider)}"
    if len(reconciliation.whose) > 1:
        providers = " and ".join(reconciliation.whose)
        yield (
            f"the bill does not name its provider, so calls of {providers} were compared with it; add a column provider"
        )
    if count := reconciliation.unknown_provider:
        absent = reconciliation.absent
        yield (
            f"{count} calls of an unknown provider, because their component was changed during the call: "
            f"{count - absent} are on this bill, {absent} are not and may be on another one"
        )
    if bill.unbilled:
        yield f"{bill.unbilled} requests are on the bill and cost nothing"
    yield f"compared: {', '.join(compared(reconciliation))}"
    if missing := not_compared(reconciliation):
        yield f"not compared: {'; '.join(missing)}"
    for cell in reconciliation.money:
        if cell.outcome is not MoneyOutcome.AGREES:
            yield f"{_money_of(cell)}: {cell.note}"
    if bill.unread:
        yield f"columns of the bill that were not read: {', '.join(bill.unread)}"
    for billed, ours in reconciliation.same_model.items():
        yield f"model {billed} of the bill is taken as {ours}"
    for (provider, model), tokens in reconciliation.unpriced.items():
        yield f"{tokens:,} tokens of model {model or '(none)'} of {provider or '(no provider)'} have no price"


def _money_of(cell: BilledMoney) -> str:
    ours = "nothing" if cell.contracted is None else rounded(cell.contracted)
    when = day(cell.since) + ("" if cell.until - cell.since == _DAY else f" to {day(cell.until)}")
    return f"{cell.model or 'all models'} {when}: {rounded(cell.billed)} {cell.currency} billed, {ours} by our prices"


def _other_bill(provider: str) -> str:
    return "nobody bills them" if provider_id(provider) in UNBILLED else "reconcile them with that provider's own bill"
