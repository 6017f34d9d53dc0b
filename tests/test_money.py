"""No money moves twice, and no letter says what the books do not: whatever is drafted, decided, killed and begun again,
in whatever order, for up to four tickets of one order and customer."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.domain.models import Category, Draft, Refund
from app.workflow.activities import letters
from sandbox.systems import entries
from tests.interleaving import A_HOLD_IS_OVER, CURRENCY, ORDER, Case, Shop, an_order, open_shop
from tests.makers import RULES, draft

HONEST = "Dear Ada,\n\nwe are sorry, and have looked at your order AC-10442.\n\nYour support"
LETTERS = (
    HONEST,
    "We refund 49.90 EUR for AC-10442.",
    "Your refund of 5000.00 USD is on its way: http://pay.example",
    "You get 20,00 € and twenty dollars more.",
)
AMOUNTS = ("1e1", "20.000", "49.90", "49.91", "59.90", "99.80", "100.00", "0.01")
CATEGORIES = (Category.DAMAGED, Category.DOUBLE_CHARGE, Category.CHANGED_MIND)

drafts = st.builds(
    lambda action, amount, confidence: draft(action=action, amount=amount, confidence=confidence),
    st.sampled_from(("refund", "refund", "refund", "decline", "answer", "escalate")),
    st.sampled_from(AMOUNTS),
    st.sampled_from(("0.95", "0.95", "0.10")),
)
tickets = st.tuples(st.sampled_from(CATEGORIES), st.lists(drafts, min_size=3, max_size=3), st.sampled_from(LETTERS))
orders = st.sampled_from(
    (("49.90", "49.90", "0.00"), ("59.90", "0.00", "0.00"), ("200.00", "0.00", "150.00"), ("300.00", "20.00", "0.00"))
)
happenings = st.one_of(
    *[st.just(("step",))] * 12,
    *[st.tuples(st.just("die"), st.integers(0, 2), st.booleans())] * 2,
    *[st.tuples(st.just("approve"), st.one_of(st.none(), st.sampled_from(AMOUNTS)))] * 3,
    *[st.just((what,)) for what in ("left_behind", "reject", "nobody_decides", "terminate")],
    st.just(("time_passes",)),
    st.tuples(st.just("start_over"), st.booleans()),
)
HAPPENINGS = st.lists(st.tuples(st.integers(0, 3), happenings), min_size=20, max_size=80)


def happens(case: Case, shop: Shop, what: tuple[Any, ...]) -> None:
    """One thing that happens to a ticket, or to the time."""
    match what:
        case ("step",):
            case.step()
        case ("die", lives, answered):
            case.step(lives, answered)
        case ("start_over", again) if case.runs < 3:
            case.start_over(again)
        case ("left_behind",):
            case.finish_what_was_left()
        case ("approve", amount):
            refund = {"order_id": ORDER, "amount": amount, "currency": CURRENCY} if amount else None
            case.decide({"verdict": "approve", "by": "kim", "refund": refund})
        case ("reject",):
            case.decide({"verdict": "reject", "by": "kim"})
        case ("nobody_decides",):
            case.decide(None)
        case ("terminate",):
            case.terminate()
        case ("time_passes",):
            shop.now += A_HOLD_IS_OVER


def to_the_end(case: Case) -> None:
    """Nothing goes wrong any more; a person who is asked rejects."""
    for _ in range(60):
        if case.over:
            break
        case.step()
        case.decide({"verdict": "reject", "by": "kim"})
    assert case.over, f"{case.task.ticket_id} never ends: {[call.name for call in case.run.calls]}"


def money(rows: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    """Whose money the rows name."""
    return Counter((row["ticket_id"], row["order_id"], row["amount"], row["currency"]) for row in rows if row["amount"])


def check(shop: Shop, cases: list[Case], charged: Decimal, overcharged: Decimal, refunded: Decimal) -> None:
    """What must hold of the books when everything has ended."""
    posted, sent = (entries.book_rows(shop.books, name) for name in ("refunds", "notifications"))
    total = sum((Decimal(str(row["amount"])) for row in posted), Decimal(0))
    assert total <= charged - refunded, "an order gives back what was paid and not given back yet"
    assert money(posted) == money(sent), "every refund has its one letter, and no letter names other money"
    assert max(Counter(row["ticket_id"] for row in posted).values(), default=1) == 1
    assert max(Counter(row["ticket_id"] for row in sent).values(), default=1) == 1
    assert max(Counter(row["ticket_id"] for row in entries.book_rows(shop.books, "cases")).values(), default=1) == 1
    for row in sent:
        refund = Refund.model_validate({name: row[name] for name in Refund.model_fields}) if row["amount"] else None
        letter = str(row["text"]).rpartition("\n\n")[0] or str(row["text"])
        assert letters.unfit(letter, refund, ORDER) is None, letter
        assert ("Refund: " in str(row["text"])) == (refund is not None)
    in_flight = [row for row in entries.book_rows(shop.books, "holds") if row["state"] in ("held", "committed")]
    assert not in_flight, "nothing is kept for a ticket that has ended"
    told = {row["ticket_id"]: row["outcome"] for row in sent}
    for case in cases:
        output = case.run.output
        if output is not None:
            assert told[case.task.ticket_id] == output.outcome.value
            assert (output.refund_id is not None) == (output.refund is not None)
    if posted and not any(case.decisions for case in cases):
        assert total <= RULES.approval.limits[CURRENCY], "without a person, a customer gets no more than the limit"
        tickets = {row["ticket_id"] for row in posted}
        paid = {case.category for case in cases if case.task.ticket_id in tickets}
        shares = [overcharged if each is Category.DOUBLE_CHARGE else charged * 9 / 10 for each in paid]
        assert total + refunded <= max(*shares, refunded), "nor an order more than its policy's share"


def worked(
    order: tuple[str, str, str],
    wanted: list[tuple[Category, list[Draft], str]],
    happened: list[tuple[int, tuple[Any, ...]]],
) -> tuple[Shop, list[Case]]:
    """Everything happens, and then everything comes to its end."""
    shop = open_shop(an_order(*order), percent=90)
    cases = []
    for number, (category, some, letter) in enumerate(wanted):
        cases.append(Case(shop, number, category, some, letter))
    for number, what in happened:
        if number < len(cases):
            happens(cases[number], shop, what)
    for case in cases:
        while case.left_behind:
            case.finish_what_was_left()
        to_the_end(case)
    return shop, cases


STEP, DIE = ("step",), ("die", 2, True)
AGAIN, UNTOLD = ("start_over", True), ("start_over", False)
DOUBLE = (Category.DOUBLE_CHARGE, [draft(amount="49.90")], HONEST)
PART = (Category.DAMAGED, [draft(amount="59.90")], HONEST)
BROKEN = (Category.DAMAGED, [draft(amount="20.00"), draft(action="decline")], HONEST)
FIRST, SECOND = (0, STEP), (1, STEP)
TO_THE_LETTER = [FIRST] * 5


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
# The surplus of a double charge, asked for twice, one after the other and side by side.
@example(order=("49.90", "49.90", "0.00"), wanted=[DOUBLE, DOUBLE], happened=[])
@example(order=("49.90", "49.90", "0.00"), wanted=[DOUBLE, DOUBLE], happened=[FIRST, SECOND] * 7)
# Two parts of an order, each below the limit.
@example(order=("300.00", "0.00", "0.00"), wanted=[PART, PART], happened=[])
@example(order=("300.00", "0.00", "0.00"), wanted=[PART, PART], happened=[FIRST, SECOND] * 7)
# Money that is not the ticket's any more when its letter would go out, and money whose letter has gone out.
@example(
    order=("59.90", "0.00", "0.00"),
    wanted=[(Category.DAMAGED, [draft(amount="49.90")], HONEST)] * 2,
    happened=[*TO_THE_LETTER, (0, ("time_passes",)), *[SECOND] * 7],
)
@example(
    order=("59.90", "0.00", "0.00"),
    wanted=[(Category.DAMAGED, [draft(amount="49.90")], HONEST)] * 2,
    happened=[*TO_THE_LETTER, FIRST, (0, ("time_passes",)), *[SECOND] * 7],
)
@example(order=("59.90", "0.00", "0.00"), wanted=[PART], happened=[*TO_THE_LETTER, FIRST, (0, ("terminate",))])
# A run that starts over and would decide otherwise: before its letter, at it, after it, and after its refund.
@example(order=("59.90", "0.00", "0.00"), wanted=[BROKEN], happened=[*TO_THE_LETTER, (0, AGAIN)])
@example(order=("59.90", "0.00", "0.00"), wanted=[BROKEN], happened=[*TO_THE_LETTER, (0, DIE), (0, AGAIN)])
@example(order=("59.90", "0.00", "0.00"), wanted=[BROKEN], happened=[*TO_THE_LETTER, FIRST, (0, AGAIN)])
@example(
    order=("59.90", "0.00", "0.00"),
    wanted=[BROKEN],
    happened=[*TO_THE_LETTER, FIRST, (0, DIE), (0, AGAIN)],
)
# A worker of a run that was given up sends its letter while the next run is past looking for one.
@example(
    order=("59.90", "0.00", "0.00"),
    wanted=[(Category.DAMAGED, [draft(amount="20.00"), draft(amount="30.00")], HONEST)],
    happened=[*TO_THE_LETTER, (0, AGAIN), FIRST, FIRST, (0, ("left_behind",))],
)
@example(
    order=("59.90", "0.00", "0.00"),
    wanted=[(Category.DAMAGED, [draft(action="decline"), draft(amount="30.00")], HONEST)],
    happened=[*[FIRST] * 3, (0, AGAIN), *[FIRST] * 5, (0, ("left_behind",))],
)
# The same where nobody knows any more that the ticket was worked before.
@example(order=("59.90", "0.00", "0.00"), wanted=[BROKEN], happened=[*TO_THE_LETTER, FIRST, (0, UNTOLD)])
@example(
    order=("59.90", "0.00", "0.00"),
    wanted=[(Category.DAMAGED, [draft(action="decline"), draft(amount="30.00")], HONEST)],
    happened=[*[FIRST] * 4, (0, UNTOLD)],
)
@given(order=orders, wanted=st.lists(tickets, min_size=1, max_size=4), happened=HAPPENINGS)
def test_no_money_moves_twice_and_no_letter_says_otherwise(
    order: tuple[str, str, str],
    wanted: list[tuple[Category, list[Draft], str]],
    happened: list[tuple[int, tuple[Any, ...]]],
) -> None:
    shop, cases = worked(order, wanted, happened)
    try:
        total, overcharged, refunded = map(Decimal, order)
        check(shop, cases, total + overcharged, overcharged, refunded)
    finally:
        shop.books.close()
