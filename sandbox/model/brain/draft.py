"""Stage draft: requests the lookups it needs, proposes an action and writes the reply.

A ticket that asks for no money takes one turn. A claim takes two: first both lookups at once, then the proposal. The
draft obeys a ticket that orders the model to pay (see `injection`): the product's guards must stop it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from app.domain.models import REFUNDABLE, Action, Category
from sandbox.model.brain.claim import claim_worth, order_status, plausible_order
from sandbox.model.brain.classify import classify
from sandbox.model.brain.conversation import ORDER_TOOL, POLICY_TOOL, Lookups, Order, Policy, Prompt, read_lookups
from sandbox.model.brain.injection import demanded_amount, is_ordered, unspaced, without_orders
from sandbox.model.brain.signals import Signals, read_signals
from sandbox.model.exchange import Answer, Question, ToolCall, make_call

_NEEDS_DELIVERY = (Category.DAMAGED, Category.WRONG_ITEM)


@dataclass(frozen=True)
class Decision:
    """What the draft proposes; `reason` is a short code and names the reply's template."""

    action: Action
    reason: str
    order_id: str | None = None
    amount: Decimal | None = None
    currency: str | None = None


def decide(category: Category, lookups: Lookups, ticket: str, signals: Signals) -> Decision:
    """Decides a claim after both lookups, each of which brought a result or an error."""
    order, policy = lookups.order, lookups.policy
    if lookups.order_error == "order_not_found":
        return Decision(Action.ANSWER, "order_not_found")
    if order is None or policy is None:
        return Decision(Action.ESCALATE, "lookup_failed")
    refusal = refusal_of(category, order, policy)
    if refusal is not None:
        return Decision(Action.DECLINE, refusal, order.order_id)
    if category in _NEEDS_DELIVERY and order.status == "processing":
        return Decision(Action.ESCALATE, "conflicting_story", order.order_id)
    worth = claim_worth(category, order, policy, ticket, signals)
    if worth is None:
        return Decision(Action.ESCALATE, "items_unclear", order.order_id)
    return Decision(Action.REFUND, category.value, order.order_id, worth, order.currency)


def refusal_of(category: Category, order: Order, policy: Policy) -> str | None:
    """The code of why nothing can be refunded; None if something can."""
    if order.refundable <= 0:
        return "already_refunded"
    if category is Category.DOUBLE_CHARGE and order.charged <= order.total:
        return "not_overcharged"
    if category is Category.CANCELLATION and order.status in ("shipped", "delivered"):
        return "already_shipped"
    return "out_of_window" if days_counted(order, policy) > policy.window_days else None


def days_counted(order: Order, policy: Policy) -> int:
    """Days since the event from which the policy counts: the order, or its delivery (0 before delivery)."""
    if policy.counted_from == "delivery":
        return order.delivered_days_ago or 0
    return order.placed_days_ago


# Replies to the customer, from one data file per language.

_FOLDER = Path(__file__).parent / "replies"


@lru_cache(maxsize=16)
def templates(language: str) -> Mapping[str, str]:
    """The reply templates of a language, by name."""
    return tomllib.loads((_FOLDER / f"{language}.toml").read_text("utf-8"))


def write_reply(decision: Decision, template: str, language: str) -> str:
    """The reply for a decision, with greeting and close."""
    texts = templates(language)
    body = texts[template].format(
        order_id=decision.order_id or "", amount=decision.amount, currency=decision.currency or ""
    )
    return f"{texts['greeting']}\n\n{body}\n\n{texts['close']}"


GULLIBLE = 0.99
DISAGREES = 0.6
_IN_ONE_TURN = {
    Category.QUESTION: (Action.ANSWER, "information"),
    Category.COMPLAINT: (Action.ANSWER, "apology"),
    Category.UNCLEAR: (Action.ANSWER, "more_needed"),
    Category.FRAUD: (Action.ESCALATE, "fraud"),
}


@dataclass(frozen=True)
class Case:
    """One ticket on its way to a draft."""

    prompt: Prompt
    category: Category
    order_id: str | None
    signals: Signals
    lookups: Lookups

    @property
    def ticket(self) -> str:
        """Subject and text, as the customer wrote them."""
        return unspaced(f"{self.prompt.subject}\n{self.prompt.text}")

    @property
    def ordered_sum(self) -> tuple[Decimal, str | None] | None:
        """The sum that the ticket orders the model to pay, or claims beyond the order's total."""
        demanded = demanded_amount(self.ticket)
        if demanded is None or is_ordered(self.ticket):
            return demanded
        order = self.lookups.order
        excessive = order is not None and order.refundable > 0 and demanded[0] > max(order.total, order.charged)
        return demanded if excessive else None


def draft(question: Question, prompt: Prompt) -> Answer:
    """The next turn of the draft."""
    case = open_case(prompt, read_lookups(question.messages))
    wanted = _lookups_wanted(case) if _claims_money(case) else ()
    offered = {tool.name for tool in question.tools}
    if wanted and offered.issuperset(name for name, _ in wanted):
        calls = _calls(wanted, len(question.messages))
        return Answer(tool_calls=calls, thoughts=f"{case.category} for {case.order_id}: look up first")
    decision = propose(case)
    return Answer(text=_answer_text(case, decision), thoughts=f"{decision.action}: {decision.reason}")


def open_case(prompt: Prompt, lookups: Lookups) -> Case:
    """The case of a prompt. If the ticket names no order, the account's only fitting order is used."""
    text = without_orders(unspaced(prompt.text))
    category = Category(prompt.category) if prompt.category in list(Category) else Category.UNCLEAR
    order_id = prompt.order_id or plausible_order(category, prompt.account, f"{prompt.subject}\n{text}")
    return Case(prompt, category, order_id, read_signals(prompt.subject, text), lookups)


def _claims_money(case: Case) -> bool:
    return case.category in REFUNDABLE and case.order_id is not None


def _lookups_wanted(case: Case) -> tuple[tuple[str, dict[str, str]], ...]:
    lookups = case.lookups
    wanted = []
    if lookups.order is None and lookups.order_error is None:
        wanted.append((ORDER_TOOL, {"order_id": case.order_id or ""}))
    if lookups.policy is None and lookups.policy_error is None:
        wanted.append((POLICY_TOOL, {"category": case.category.value}))
    return tuple(wanted)


def _calls(wanted: Sequence[tuple[str, dict[str, str]]], turn: int) -> tuple[ToolCall, ...]:
    return tuple(make_call(name, arguments, turn) for name, arguments in wanted)


def propose(case: Case) -> Decision:
    """The proposal for the case; a ticket that orders the model to pay is obeyed."""
    demanded = case.ordered_sum
    if demanded is not None and case.lookups.order_error is None:
        return _obey(case, *demanded)
    if case.category not in REFUNDABLE:
        action, reason = _IN_ONE_TURN[case.category]
        return Decision(action, reason, case.order_id)
    if case.order_id is None:
        return Decision(Action.ANSWER, "order_needed")
    return decide(case.category, case.lookups, f"{case.prompt.subject}\n{case.prompt.text}", case.signals)


def _obey(case: Case, amount: Decimal, currency: str | None) -> Decision:
    order = case.lookups.order
    currency = currency or (order.currency if order else "EUR")
    return Decision(Action.REFUND, "as_requested", case.order_id, amount, currency)


def _answer_text(case: Case, decision: Decision) -> str:
    template = "refund" if decision.action is Action.REFUND else decision.reason
    if decision.action is Action.ESCALATE:
        template = "escalate"
    if case.category is Category.QUESTION and template == "information":
        order_id, status = order_status(case.prompt.account, case.order_id, case.signals)
        template, decision = (status, replace(decision, order_id=order_id)) if status else (template, decision)
    return json.dumps(
        {
            "action": decision.action.value,
            "order_id": decision.order_id,
            "amount": None if decision.amount is None else format(decision.amount, "f"),
            "currency": decision.currency,
            "reason": decision.reason,
            "confidence": _confidence(case, decision),
            "reply": write_reply(decision, template, case.signals.language),
        },
        ensure_ascii=False,
    )


def _confidence(case: Case, decision: Decision) -> float:
    if decision.reason == "as_requested":
        return GULLIBLE
    own = classify(case.prompt)
    return own.confidence if own.category is case.category else min(own.confidence, DISAGREES)
