"""A reconciliation for programs, with stable keys, and its verdict in a sentence for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.money import ZERO, plain, shown, total
from app.finance.reconciliation.bill import Count
from app.finance.reconciliation.billed_money import MoneyCell, Outcome
from app.finance.reconciliation.reconciliation_types import Cause, Cell, Finding, Reconciliation
from app.pricing.providers import UNBILLED, provider_id

_WORDS = {
    Cause.ESTIMATE: "estimates",
    Cause.INTERRUPTED_CALL: "interrupted calls",
    Cause.FAILED_CALL: "failed calls",
    Cause.RUNNING_CALL: "calls under way",
    Cause.SIDECAR_RETRY: "sidecar retries",
    Cause.NEVER_BILLED: "estimates of calls that were never billed",
    Cause.UNKNOWN_PROVIDER: "calls whose provider is not known",
    Cause.PERIOD_EDGE: "calls at the edge of the bill's period",
    Cause.BUCKET_EDGE: "calls at the edge of two sums",
    Cause.DIFFERS: "calls billed with other tokens",
    Cause.NOT_ON_BILL: "calls that are not on the bill",
    Cause.UNKNOWN: "requests that no call accounts for",
}
MONEY_WORDS = {
    Outcome.AGREES: "agrees",
    Outcome.TOKENS: "the bill's tokens at our prices; the difference is that of the tokens",
    Outcome.ESTIMATES: "within what our record estimates or does not know",
    Outcome.LIST_PRICE: "billed at the list price, not at the one agreed",
    Outcome.OTHER_PRICE: "billed at another price than ours",
    Outcome.DIFFERS: "another amount than ours, and the bill names no tokens",
    Outcome.NOT_OURS: "billed, and we have no charge for it",
    Outcome.NOT_BILLED: "charged by us, and not billed",
    Outcome.UNPRICED: "our price book has no price",
    Outcome.OTHER_CURRENCY: "our charges are in another currency, and no rate of exchange is known here",
}
_DAY = timedelta(days=1)


def as_json(found: Reconciliation) -> dict[str, Any]:
    """The reconciliation as JSON values. Differences are the bill minus our record; null is not known."""
    return {
        "verdict": verdict(found),
        "unexplained_tokens": found.unexplained_tokens,
        "difference_tokens": found.difference.tokens,
        "bill": {
            "name": found.bill.name,
            "format": found.bill.format.value,
            "rows": len(found.bill.rows),
            "by_request": found.bill.by_request,
            "providers": sorted(found.bill.providers | ({row.provider for row in found.bill.rows} - {""})),
            "unbilled_requests": found.bill.unbilled,
            "unread_columns": list(found.bill.unread),
        },
        "since": _time(found.bill.since),
        "until": _time(found.bill.until),
        "calls": {
            "compared": found.compared,
            "agreeing": found.agreeing,
            "outside": found.outside,
            "other_providers": dict(found.others),
            "unknown_provider": {"calls": found.unknown_provider, "not_on_bill": found.absent},
        },
        "record": _count(found.record),
        "billed": _count(found.billed),
        "difference": _count(found.difference),
        "causes": {cause.value: _count(count) for cause, count in found.causes.items()},
        "compared": list(compared(found)),
        "not_compared": list(not_compared(found)),
        "money": [_money(cell) for cell in found.money],
        "cells": [_cell(cell) for cell in found.cells],
        "rows": [_finding(finding) for finding in found.findings],
        "unpriced": [
            {"provider": provider, "model": model, "tokens": tokens}
            for (provider, model), tokens in found.unpriced.items()
        ],
        "same_model": dict(found.same_model),
    }


def verdict(found: Reconciliation) -> str:
    """What a person wants to know first, a sentence each for tokens and money, no stronger than what was compared."""
    if found.empty:
        rows = f" ({found.bill.elsewhen:,} rows of the bill are of another time)" if found.bill.elsewhen else ""
        return f"{found.bill.name}: nothing was compared: neither bill nor record has anything in that time{rows}."
    said = [_tokens_verdict(found)] if found.bill.counts else []
    said += [_money_verdict(found)] if found.money else []
    return f"{found.bill.name}: {' '.join(said) or 'it names neither tokens nor money.'}"


def _tokens_verdict(found: Reconciliation) -> str:
    whose = f"{found.billed.tokens:,} tokens billed, {found.record.tokens:,} in our record"
    if found.unexplained_tokens:
        return f"{whose}; {found.unexplained_tokens:,} tokens are unexplained."
    if not found.findings:
        return f"{whose}; they agree to the token{'' if _has_cached(found) else ', cached ones not compared'}."
    names = ", ".join(words(cause) for cause in found.causes)
    return f"{whose}; the difference of {found.difference.tokens:+,} tokens is explained by {names}."


def _money_verdict(found: Reconciliation) -> str:
    said = []
    for currency in sorted({cell.currency for cell in found.money}):
        cells = [cell for cell in found.money if cell.currency == currency]
        both = [cell for cell in cells if cell.outcome.compared]
        if not both:
            said.append(f"{currency} on the bill could not be compared.")
            continue
        billed, ours = total(cell.billed for cell in both), total(cell.contracted or ZERO for cell in both)
        whose = f"{shown(billed)} {currency} billed, {shown(ours)} by our prices"
        open_ = [cell for cell in both if not cell.outcome.fine]
        if open_:
            reasons = ", ".join(dict.fromkeys(MONEY_WORDS[cell.outcome] for cell in open_))
            said.append(f"{whose}; {len(open_)} of {len(both)} sums differ: {reasons}.")
        elif all(cell.outcome is Outcome.AGREES for cell in both):
            said.append(f"{whose}; they agree as far as the bill's digits go.")
        else:
            said.append(f"{whose}; the difference is that of the tokens, or of what we estimate.")
    return " ".join(said)


def compared(found: Reconciliation) -> tuple[str, ...]:
    """What of the bill was held against the record."""
    bill = found.bill
    said = ["models", "times"]
    if bill.counts:
        said += ["input tokens", "output tokens"]
        said += ["cached tokens"] if _has_cached(found) else []
        said += ["requests"] if _has_requests(found) else []
    currencies = sorted({cell.currency for cell in found.money if cell.outcome.compared})
    return (*said, *(f"money in {currency}" for currency in currencies))


def not_compared(found: Reconciliation) -> tuple[str, ...]:
    """What was not, and why."""
    bill, said = found.bill, list[str]()
    if not bill.counts:
        said.append("tokens (not on this bill)")
    else:
        said += [] if _has_cached(found) else ["cached tokens (not on this bill)"]
        said += [] if _has_requests(found) else ["requests (not on this bill)"]
        if found.uncached and _has_cached(found):
            said.append(f"cached tokens of {found.uncached} calls (their provider tells us none)")
        if any(row.written for row in bill.rows):
            said.append("tokens written to the cache apart from other input (our record does not keep them)")
    said += [] if bill.amounts else ["money (not on this bill)"]
    for outcome in (Outcome.UNPRICED, Outcome.OTHER_CURRENCY):
        models = dict.fromkeys(cell.model or "all models" for cell in found.money if cell.outcome is outcome)
        said += [f"money of {', '.join(models)} ({MONEY_WORDS[outcome]})"] if models else []
    return (*said, *(f"column {each}" for each in bill.further))


def _has_cached(found: Reconciliation) -> bool:
    return not found.bill.rows or any(row.count.cached_tokens is not None for row in found.bill.rows)


def _has_requests(found: Reconciliation) -> bool:
    return not found.bill.rows or any(row.count.requests is not None for row in found.bill.rows)


def money_note(cell: MoneyCell) -> str:
    """What is to be said of one sum of money: in words, with the price that the bill implies where there is one."""
    note = MONEY_WORDS[cell.outcome]
    if cell.outcome is Outcome.OTHER_PRICE and cell.expected:
        note += f", {shown(cell.billed / cell.expected, 4)} times ours"
    if cell.implied:
        prices = " or ".join(f"{line.replace('_', ' ')} at {plain(price)}" for line, price in cell.implied.items())
        note += f": as if {prices} a million"
    return note


def remarks(found: Reconciliation) -> Iterator[str]:
    """What a person has to know next to the verdict: what was compared, what was left out, what was taken for what."""
    calls = f"{found.compared} calls" + (f", {found.agreeing} of them on the bill to the token" * found.bill.counts)
    yield calls + (f"; {found.outside} calls of another time were left out" if found.outside else "")
    for provider, count in found.others.items():
        yield f"{count} calls of {provider} are not on this bill and were left out: {_whose(provider)}"
    if len(found.whose) > 1:
        yield (
            f"the bill does not say whose it is, so calls of {' and '.join(found.whose)} were held against it; "
            "give it a column provider"
        )
    if found.unknown_provider:
        stand = found.unknown_provider - found.absent
        yield (
            f"{found.unknown_provider} calls of an unknown provider, for their component was changed while they were "
            f"under way: {stand} stand on this bill, {found.absent} do not and may stand on another one"
        )
    if found.bill.unbilled:
        yield f"{found.bill.unbilled} requests stand on the bill and cost nothing"
    yield f"compared: {', '.join(compared(found))}"
    if not_compared(found):
        yield f"not compared: {'; '.join(not_compared(found))}"
    for cell in found.money:
        if cell.outcome is not Outcome.AGREES:
            yield f"{_money_of(cell)}: {money_note(cell)}"
    if found.bill.unread:
        yield f"columns of the bill that were not looked at: {', '.join(found.bill.unread)}"
    for billed, ours in found.same_model.items():
        yield f"model {billed} of the bill is taken as {ours}"
    for (provider, model), tokens in found.unpriced.items():
        yield f"{tokens:,} tokens of model {model or '(none)'} of {provider or '(no provider)'} have no price"


def _money_of(cell: MoneyCell) -> str:
    ours = "nothing" if cell.contracted is None else shown(cell.contracted)
    when = f"{cell.since:%Y-%m-%d}" + ("" if cell.until - cell.since == _DAY else f" to {cell.until:%Y-%m-%d}")
    return f"{cell.model or 'all models'} {when}: {shown(cell.billed)} {cell.currency} billed, {ours} by our prices"


def _whose(provider: str) -> str:
    return "nobody bills them" if provider_id(provider) in UNBILLED else "hold that provider's own bill against them"


def words(cause: Cause) -> str:
    """A cause for people."""
    return _WORDS[cause]


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "model": cell.model,
        "from": _time(cell.since),
        "to": _time(cell.until),
        "record": _count(cell.record)
        | {"reported_tokens": cell.reported.tokens, "estimated_tokens": cell.estimated.tokens},
        "billed": _count(cell.billed),
        "difference": _count(cell.difference),
        "difference_tokens": cell.difference.tokens,
        "causes": {cause.value: _count(count) for cause, count in cell.causes.items()},
        "unpriced_tokens": cell.unpriced,
        "unexplained_tokens": cell.unexplained,
        "certainty": cell.certainty.value,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    call = finding.call
    return {
        "cause": finding.cause.value,
        "explained": finding.cause.explains,
        "certainty": finding.certainty.value,
        "at": _time(finding.at),
        "model": finding.model,
        "task_id": call.task_id if call else None,
        "stage": call.stage if call else None,
        "turn": call.turn if call else None,
        "call_id": call.call_id if call else None,
        "state": call.state.value if call else None,
        "place": finding.place or None,
        "known": finding.known.value,
        "record": _count(finding.record),
        "billed": _count(finding.billed),
        "difference_tokens": finding.difference.tokens,
        "unexplained_tokens": finding.unexplained,
        "note": finding.note,
    }


def _money(cell: MoneyCell) -> dict[str, Any]:
    return {
        "model": cell.model or None,
        "from": _time(cell.since),
        "to": _time(cell.until),
        "currency": cell.currency,
        "outcome": cell.outcome.value,
        "agrees": cell.outcome.fine,
        "billed": plain(cell.billed),
        "contracted": None if cell.contracted is None else plain(cell.contracted),
        "listed": None if cell.listed is None else plain(cell.listed),
        "expected": None if cell.expected is None else plain(cell.expected),
        "difference": plain(cell.difference),
        "implied_per_million": {line.value: plain(price) for line, price in cell.implied.items()},
        "note": money_note(cell),
    }


def _count(count: Count) -> dict[str, int | None]:
    return {
        "requests": count.requests,
        "input_tokens": count.input_tokens,
        "cached_tokens": count.cached_tokens,
        "output_tokens": count.output_tokens,
        "tokens": count.tokens,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
