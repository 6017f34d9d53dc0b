"""Which charges belong to which span, and how a span says what it cost. Pure.

Each charge belongs to one span, so the spans of a trace sum to the task, exactly: a model call's to the call, a step's
to the step, all else to the task. Amounts are decimal strings, since floats would not sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal

from app.domain.models import UsageBasis
from app.domain.money import add, plain
from app.ledger.store.task_record import StepRecord, TaskRecord
from app.pricing.call_record import CallRecord
from app.pricing.charge_kinds import CostBasis, Kind, worst_of
from app.pricing.charge_types import Charge
from app.pricing.charges import standing
from app.telemetry import names

Value = str | int | float | bool | tuple[str, ...]
Key = tuple[str, int, int]  # execution id, turn, number of the call; zeros for a step, and empty for the task

_TASK: Key = ("", 0, 0)


@dataclass(slots=True)
class Cost:
    """What one span cost: the sum of what is known of it, by currency."""

    amounts: dict[str, Decimal] = field(default_factory=dict)
    knowns: set[CostBasis] = field(default_factory=set)
    price_id: str = ""
    book_digest: str = ""
    _last: tuple[UsageBasis, bool] | None = None

    def take(self, charge: Charge) -> None:
        """Adds one charge."""
        known = (charge.known, charge.unit_price is None)
        if known != self._last:  # mostly the same as before, and cheaper to compare than to look up
            self._last = known
            self.knowns.add(charge.money_known)
        self.book_digest = charge.book_digest
        self.price_id = charge.price_id or self.price_id
        if charge.amount is not None and charge.currency is not None:
            self._add(charge.currency, charge.amount)

    def take_all(self, other: Cost) -> None:
        """Adds another span's."""
        self.knowns |= other.knowns
        self.book_digest = other.book_digest
        for currency, amount in other.amounts.items():
            self._add(currency, amount)

    def _add(self, currency: str, amount: Decimal) -> None:
        known = self.amounts.get(currency)
        self.amounts[currency] = amount if known is None else add(known, amount)

    def attributes(self, prefix: str) -> dict[str, Value]:
        """`amount` and `currency`, or `amounts` of several currencies; none while nothing is known. `known` says how
        well: where it is `unreported` or `unpriced`, the true amount is another one."""
        found: dict[str, Value] = {f"{prefix}.known": worst_of(self.knowns).value}
        if len(self.amounts) == 1:
            ((currency, amount),) = self.amounts.items()
            found |= {f"{prefix}.amount": plain(amount), f"{prefix}.currency": currency}
        elif self.amounts:
            found[f"{prefix}.amounts"] = tuple(f"{plain(self.amounts[name])} {name}" for name in sorted(self.amounts))
        return found


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of a task's spans."""

    whole: Cost
    by_span: Mapping[Key, Cost]

    def of_task(self) -> dict[str, Value]:
        """The workflow's own, and the whole task's."""
        if not self.whole.knowns:
            return {}
        whole = self.whole.attributes(names.TASK_COST) | {names.PRICE_BOOK: self.whole.book_digest}
        return self._of(_TASK) | whole

    def of_step(self, step: StepRecord) -> dict[str, Value]:
        """The step's work, without its model calls."""
        return self._of((step.execution_id, 0, 0))

    def of_call(self, call: CallRecord) -> dict[str, Value]:
        """The call's tokens, and at which price of which book."""
        key = (call.execution_id, call.turn, call.number)
        found = self._of(key)
        if found:
            cost = self.by_span[key]
            found |= {names.PRICE: cost.price_id} if cost.price_id else {}
            found[names.PRICE_BOOK] = cost.book_digest
        return found

    def _of(self, key: Key) -> dict[str, Value]:
        cost = self.by_span.get(key)
        return {} if cost is None else cost.attributes(names.COST)


def costs(record: TaskRecord) -> Costs:
    """Sums the record's charges by span, as they stand after corrections."""
    spans = _keys(record)
    whole, by_span = Cost(), dict[Key, Cost]()
    for charge in standing(record.charges):
        key = _key(charge, spans)
        if key not in by_span:
            by_span[key] = Cost()
        by_span[key].take(charge)
    for cost in by_span.values():
        whole.take_all(cost)
    return Costs(whole, by_span)


def _keys(record: TaskRecord) -> set[Key]:
    calls = {(call.execution_id, call.turn, call.number) for call in record.calls}
    return calls | {(step.execution_id, 0, 0) for step in record.steps}


def _key(charge: Charge, spans: Set[Key]) -> Key:
    """The narrowest span that there is. What the sidecar repeated on its own has the call's number below zero."""
    call = (charge.execution_id, charge.turn, abs(charge.number))
    if charge.kind is Kind.MODEL and call in spans:
        return call
    step = (charge.execution_id, 0, 0)
    return step if step in spans else _TASK
