"""What stands above the time line: how the task ended, what it cost, and where its time went. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from app.dapr.history.times import TimePart
from app.domain import formatting
from app.domain.decision_texts import explain
from app.domain.formatting import NOTHING, UNKNOWN, Digits, duration
from app.domain.models import Refund, TaskStatus, TaskView
from app.finance import cost_texts
from app.finance.cost_texts import incomplete
from app.finance.rollup import WASTED, Group, MoneySum, rollup
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import Charge, CostBasis, CostKind
from app.web.pages import page_texts

_KINDS = {
    CostKind.MODEL.value: "model calls",
    CostKind.COMPUTE.value: "compute",
    CostKind.ORCHESTRATION.value: "orchestration",
    WASTED: "wasted: work that brought nothing",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what it is. `strong` is what a reader should not miss."""

    name: str
    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Total:
    """Money of one currency: what it comes to, what for, and how much of it is a guess. `exact` has every digit."""

    text: str
    exact: str
    parts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class TimeShare:
    """A part of the task's time. `percent` is of the whole."""

    name: str
    text: str
    percent: float
    kind: str


@dataclass(frozen=True, slots=True)
class Summary:
    """All of it. `gaps` says what is in no sum of money, since nobody knows it."""

    totals: tuple[Total, ...]
    gaps: tuple[str, ...]
    tokens: tuple[Fact, ...]
    time: tuple[TimeShare, ...]
    whole: str
    about: tuple[Fact, ...]


def make_summary(record: TaskRecord, digits: Digits) -> Summary:
    """The summary of a record."""
    group = rollup(record.charges).total
    whole = (record.ended_at or record.projected_at) - record.started_at
    return Summary(
        totals=tuple(_total(money, digits, incomplete=incomplete(group)) for money in group.money),
        gaps=tuple(_gaps(group, record)),
        tokens=_tokens(record),
        time=tuple(_share(part, record.parts[part], whole) for part in TimePart if record.parts.get(part)),
        whole=duration(whole),
        about=tuple(_about(record)),
    )


def ending(view: TaskView | None, record: TaskRecord | None) -> tuple[Fact, ...]:
    """Status, outcome and refund. The view is as of now; the record may be older, or not there yet."""
    status = view.status if view else record.status if record else None
    result = view.result if view else None
    outcome = result.outcome if result else record.outcome if record else None
    refund = result.refund if result else record.refund if record else None
    refund_id = result.refund_id if result else record.refund_id if record else None
    proposed = view.proposed_refund if view else None
    facts = [Fact("Status", status.value if status else NOTHING, strong=True)]
    facts += [Fact("Outcome", outcome.value, strong=True)] if outcome else []
    facts += [Fact("Refund", _refund(refund, refund_id), strong=True)] if refund else []
    facts += [Fact("Proposed refund", _refund(proposed, None))] if proposed else []
    if view and view.waiting_for:
        verb = "Parked" if view.status is TaskStatus.PARKED else "Waits"
        facts.append(Fact(f"{verb} because", explain(view.waiting_for).words))
    facts += [Fact("Stuck", view.retrying.words)] if view and view.retrying else []
    facts += [Fact("Decided by", result.decided_by)] if result and result.decided_by else []
    facts += [Fact("Error", view.error)] if view and view.error else []
    facts += [Fact("But", view.caveat)] if view and view.caveat else []
    return tuple(facts)


def _refund(refund: Refund, refund_id: str | None) -> str:
    named = f", refund {refund_id}" if refund_id else ""
    return f"{formatting.refund(refund)}{named}"


def _total(money: MoneySum, digits: Digits, *, incomplete: bool) -> Total:
    guessed = money.by_basis.get(CostBasis.ESTIMATED, Decimal(0))
    parts = [Fact(title, _some(money.by_kind.get(kind), money.currency, digits)) for kind, title in _KINDS.items()]
    parts.append(Fact("of all this, estimated", _some(guessed, money.currency, digits)))
    text = cost_texts.money(money, digits) + (f" + {UNKNOWN}" if incomplete else "")
    return Total(text, f"{money.contracted_cost:f} {money.currency}", tuple(parts))


def _some(amount: Decimal | None, currency: str, digits: Digits) -> str:
    return f"{digits.show(amount, currency)} {currency}" if amount else "none"


def _gaps(group: Group, record: TaskRecord) -> list[str]:
    """A sum without these lines is too low, and says so."""
    told = []
    if group.unpriced:
        unpriced = {_priced(charge) for charge in record.charges if charge.cost_basis is CostBasis.UNPRICED}
        told.append(
            f"{_lines(group.unpriced)} unpriced: the price book names no price for {', '.join(sorted(unpriced))}."
        )
    if group.unreported:
        told.append(f"{_lines(group.unreported)} unreported: nobody counted what was used.")
    return told


def _priced(charge: Charge) -> str:
    """What a price would be for; a call that got no answer may not say which model it was put to."""
    if charge.kind is not CostKind.MODEL:
        return charge.meter.value.replace("_", " ")
    return charge.model or f"a model that component {charge.component} did not name"


def _lines(number: int) -> str:
    return "1 line is" if number == 1 else f"{number} lines are"


def _tokens(record: TaskRecord) -> tuple[Fact, ...]:
    facts = []
    for name, attribute in (("input", "input_tokens"), ("of it cached", "cached"), ("output", "output_tokens")):
        counted = [(getattr(call.usage, attribute), call.usage.basis) for call in record.calls]
        facts.append(Fact(name, formatting.tokens_sum(counted)))
    wasted = [call for call in record.calls if call.wasted]
    for name, attribute in (("wasted input", "input_tokens"), ("wasted output", "output_tokens")):
        if wasted:
            facts.append(
                Fact(name, formatting.tokens_sum((getattr(c.usage, attribute), c.usage.basis) for c in wasted))
            )
    return (Fact("model calls", str(len(record.calls))), *facts)


def _share(part: TimePart, length: timedelta, whole: timedelta) -> TimeShare:
    percent = round(100 * (length / whole), 1) if whole else 0.0
    return TimeShare(page_texts.part(part), duration(length), percent, part.value)


def _about(record: TaskRecord) -> list[Fact]:
    facts = [
        Fact("Tenant", record.tenant),
        Fact("Agent", record.agent),
        Fact("Workflow", f"{record.workflow} {record.version}".strip()),
        Fact("Category", record.category or NOTHING),
        Fact("Begun", f"{formatting.instant(record.started_at)} UTC"),
        Fact("Ended", f"{formatting.instant(record.ended_at)} UTC" if record.ended_at else "not yet"),
        Fact("History", f"{record.events:,} events, {formatting.size(record.size)}, {record.turns:,} turns"),
    ]
    facts += [Fact("Rerun of", record.rerun_of)] if record.rerun_of else []
    facts += [Fact("Trace", record.trace_parent.split("-")[1])] if record.trace_parent.count("-") == 3 else []
    return facts
