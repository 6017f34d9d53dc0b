"""The top of a task's page: outcome, cost, tokens and use of time."""

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
    WASTED: "wasted: work without a result",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A labelled text; `strong` facts are emphasized."""

    name: str
    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Total:
    """The cost in one currency, its parts by kind and its estimated share. `exact` has all digits."""

    text: str
    exact: str
    parts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class TimeShare:
    """A part of the task's time; `percent` is its share of the whole."""

    name: str
    text: str
    percent: float
    kind: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The texts of the summary. `gaps` describes charges that the totals lack because their amount is unknown."""

    totals: tuple[Total, ...]
    gaps: tuple[str, ...]
    tokens: tuple[Fact, ...]
    time: tuple[TimeShare, ...]
    whole: str
    about: tuple[Fact, ...]


def make_summary(record: TaskRecord, digits: Digits) -> Summary:
    """The summary of `record`, with amounts to `digits`."""
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


def state_facts(view: TaskView | None, record: TaskRecord | None) -> tuple[Fact, ...]:
    """The task's status, outcome and refund, and why it waits. `view` is current and takes precedence over `record`."""
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
        verb = "Parked" if view.status is TaskStatus.PARKED else "Waiting"
        facts.append(Fact(f"{verb} because", explain(view.waiting_for).words))
    facts += [Fact("Stuck", view.retrying.words)] if view and view.retrying else []
    facts += [Fact("Decided by", result.decided_by)] if result and result.decided_by else []
    facts += [Fact("Error", view.error)] if view and view.error else []
    facts += [Fact("But", view.caveat)] if view and view.caveat else []
    return tuple(facts)


def _refund(refund: Refund, refund_id: str | None) -> str:
    id_text = f", refund {refund_id}" if refund_id else ""
    return f"{formatting.refund(refund)}{id_text}"


def _total(money: MoneySum, digits: Digits, *, incomplete: bool) -> Total:
    estimated = money.by_basis.get(CostBasis.ESTIMATED, Decimal(0))
    parts = [Fact(title, _amount(money.by_kind.get(kind), money.currency, digits)) for kind, title in _KINDS.items()]
    parts.append(Fact("estimated part of all this", _amount(estimated, money.currency, digits)))
    text = cost_texts.money(money, digits) + (f" + {UNKNOWN}" if incomplete else "")
    return Total(text, f"{money.contracted_cost:f} {money.currency}", tuple(parts))


def _amount(amount: Decimal | None, currency: str, digits: Digits) -> str:
    return f"{digits.show(amount, currency)} {currency}" if amount else "none"


def _gaps(group: Group, record: TaskRecord) -> list[str]:
    texts = []
    if group.unpriced:
        unpriced = {_priced_item(charge) for charge in record.charges if charge.cost_basis is CostBasis.UNPRICED}
        texts.append(
            f"{_count_lines(group.unpriced)} unpriced: the price book has no price for {', '.join(sorted(unpriced))}."
        )
    if group.unreported:
        texts.append(f"{_count_lines(group.unreported)} unreported: the quantity was not counted.")
    return texts


def _priced_item(charge: Charge) -> str:
    """The model or meter that needs a price; the model of a call without an answer may be unknown."""
    if charge.kind is not CostKind.MODEL:
        return charge.meter.value.replace("_", " ")
    return charge.model or f"the unnamed model of component {charge.component}"


def _count_lines(number: int) -> str:
    return "1 line is" if number == 1 else f"{number} lines are"


def _tokens(record: TaskRecord) -> tuple[Fact, ...]:
    facts = []
    for name, attribute in (("input", "input_tokens"), ("of which cached", "cached"), ("output", "output_tokens")):
        counts = [(getattr(call.usage, attribute), call.usage.basis) for call in record.calls]
        facts.append(Fact(name, formatting.tokens_sum(counts)))
    wasted = [call for call in record.calls if call.wasted]
    for name, attribute in (("wasted input", "input_tokens"), ("wasted output", "output_tokens")):
        if wasted:
            counts = [(getattr(call.usage, attribute), call.usage.basis) for call in wasted]
            facts.append(Fact(name, formatting.tokens_sum(counts)))
    return (Fact("model calls", str(len(record.calls))), *facts)


def _share(part: TimePart, length: timedelta, whole: timedelta) -> TimeShare:
    percent = round(100 * (length / whole), 1) if whole else 0.0
    return TimeShare(page_texts.part_text(part), duration(length), percent, part.value)


def _about(record: TaskRecord) -> list[Fact]:
    facts = [
        Fact("Tenant", record.tenant),
        Fact("Agent", record.agent),
        Fact("Workflow", f"{record.workflow} {record.version}".strip()),
        Fact("Category", record.category or NOTHING),
        Fact("Started", f"{formatting.instant(record.started_at)} UTC"),
        Fact("Ended", f"{formatting.instant(record.ended_at)} UTC" if record.ended_at else "not yet"),
        Fact("History", f"{record.events:,} events, {formatting.size(record.size)}, {record.turns:,} turns"),
    ]
    facts += [Fact("Rerun of", record.rerun_of)] if record.rerun_of else []
    facts += [Fact("Trace", record.trace_parent.split("-")[1])] if record.trace_parent.count("-") == 3 else []
    return facts
