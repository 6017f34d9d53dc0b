"""The process, without Dapr: which stages run, when a person is asked, and what a person's word does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.domain.models import (
    Category,
    Classification,
    DecisionState,
    Deferred,
    Draft,
    Frozen,
    Outcome,
    Refund,
    TaskStatus,
)
from app.domain.orders import Effects, Hold, Letter, Order
from app.workflow.activities.classify import ClassifyOutput
from app.workflow.activities.close_case import CloseOutput
from app.workflow.activities.draft_refund import DraftOutput, HoldInput, HoldOutput
from app.workflow.activities.notify_customer import NotifyOutput
from app.workflow.activities.retrieve_account import AccountInput, AccountOutput
from app.workflow.activities.tools import OrderOutput, PolicyOutput, ToolCall
from tests.makers import USE, account, draft, exposure, order, refund_policy, task
from tests.scripted import Script, run

TOOL_CALLS = (
    ToolCall(id="call_1_1", tool="lookup_order", argument="AC-10442"),
    ToolCall(id="call_1_2", tool="lookup_refund_policy", argument="damaged"),
)
FOUND = Classification.model_validate(
    {"category": "damaged", "wants_refund": True, "order_id": "AC-10442", "language": "en", "confidence": "0.9"}
)
REFUND = Refund.model_validate({"order_id": "AC-10442", "amount": "49.90", "currency": "EUR"})
APPROVE: dict[str, Any] = {"verdict": "approve", "by": "kim", "refund": None}
FIVE_STAGES = ["classify", "retrieve_account", "draft_refund", "notify_customer", "close_case"]


class World:
    """Answers every step; `drafts` are the draft stage's turns, the last one repeated."""

    def __init__(self, *drafts: DraftOutput, **changes: Any) -> None:
        self.drafts = list(drafts) or [DraftOutput(tool_calls=TOOL_CALLS, use=USE), drafted(draft())]
        self.classified: list[Classification | None] = changes.get("classified", [FOUND])
        self.order: Order | None = changes.get("order", order())
        self.account = changes.get("account", account())
        self.earlier: Effects = changes.get("earlier", Effects())
        self.holds: list[Hold | str | None] = changes.get("holds", [None])  # the books' answer, or their refusal
        self.refusals: list[str | None] = changes.get("refusals", [None])  # of the letter

    def __call__(self, name: str, question: Frozen) -> Frozen:
        match name:
            case "classify":
                found = _next(self.classified)
                return ClassifyOutput(classification=found, problem=None if found else "no JSON", use=USE)
            case "retrieve_account":
                problem = None if self.account else "account_not_found"
                assert isinstance(question, AccountInput)
                earlier = self.earlier if question.again else Effects()
                return AccountOutput(account=self.account, problem=problem, earlier=earlier)
            case "draft_refund":
                turn: DraftOutput = _next(self.drafts)
                return turn
            case "lookup_order":
                return OrderOutput(order=self.order, problem=None if self.order else "order_not_found")
            case "lookup_refund_policy":
                return PolicyOutput(policy=refund_policy(), problem=None)
            case "hold_refund":
                assert isinstance(question, HoldInput)
                return self.hold(question.refund)
            case "notify_customer":
                refusal = _next(self.refusals)
                return NotifyOutput(notification_id=None if refusal else "N-1", refusal=refusal)
            case "close_case":
                return CloseOutput(case_id="CA-1", refund_id="R-1")
        raise AssertionError(name)

    def hold(self, refund: Refund) -> HoldOutput:
        """As the books would, unless the test says otherwise."""
        answer = _next(self.holds)
        known = exposure(order=self.order) if self.order else None
        if self.order is None:
            return HoldOutput(refusal="order_not_found")
        if isinstance(answer, str) or refund.amount > self.order.refundable:
            return HoldOutput(refusal=answer if isinstance(answer, str) else "exceeds_refundable")
        return HoldOutput(hold=answer or Hold(state="held", refund=refund), exposure=known)


def _next(values: list[Any]) -> Any:
    return values.pop(0) if len(values) > 1 else values[0]


def drafted(proposal: Draft) -> DraftOutput:
    """A turn that ends with a draft."""
    return DraftOutput(draft=proposal, use=USE)


def test_a_clear_refund_takes_the_five_stages_and_the_tools_between_two_turns() -> None:
    script = Script(World())
    result = run(script, task())
    assert result.outcome is Outcome.REFUNDED
    assert result.refund == REFUND
    assert result.refund_id == "R-1"
    assert script.steps() == [
        "classify",
        "retrieve_account",
        "draft_refund",
        "lookup_order",
        "lookup_refund_policy",
        "draft_refund",
        "hold_refund",
        "notify_customer",
        "close_case",
    ]
    assert script.shown == []


def test_a_step_that_has_to_wait_for_its_model_pauses_the_task_and_is_run_anew() -> None:
    world = World()
    busy = [Deferred(deferred_seconds=90.0), Deferred(deferred_seconds=12.5)]

    def answers(name: str, question: Frozen) -> Frozen:
        return busy.pop(0) if name == "draft_refund" and busy else world(name, question)

    script = Script(answers)
    assert run(script, task()).outcome is Outcome.REFUNDED
    assert script.pauses == [timedelta(seconds=90), timedelta(seconds=12.5)]
    assert script.steps().count("draft_refund") == 4, "two that waited, two that asked"
    assert script.shown == [], "it is running all the time"


@pytest.mark.parametrize(("action", "outcome"), [("answer", Outcome.ANSWERED), ("decline", Outcome.DECLINED)])
def test_without_money_one_turn_is_enough(action: str, outcome: Outcome) -> None:
    script = Script(World(drafted(draft(action=action, amount=None, currency=None))))
    result = run(script, task())
    assert (result.outcome, result.refund) == (outcome, None)
    assert script.steps() == FIVE_STAGES


def test_a_model_that_looks_nothing_up_is_checked_against_the_books_all_the_same() -> None:
    script = Script(World(drafted(draft(amount="5000.00"))), events=[None])
    run(script, task())
    assert script.steps()[2:5] == ["draft_refund", "hold_refund", "lookup_order"]
    assert script.shown[0] is not None
    assert script.shown[0].reason == "above_refundable"
    assert script.shown[0].refund == REFUND, "a person is shown no more than the books allow"


def test_an_approval_posts_what_was_proposed() -> None:
    script = Script(World(drafted(draft(confidence="0.10"))), events=[APPROVE])
    result = run(script, task())
    assert (result.outcome, result.decided_by, result.refund) == (Outcome.REFUNDED, "kim", REFUND)
    assert script.shown[-1] is not None
    assert script.shown[-1].status is TaskStatus.RUNNING, "the task no longer says that it waits"


def test_a_rejection_posts_nothing_and_sends_our_words_not_the_models() -> None:
    script = Script(World(drafted(draft(confidence="0.10"))), events=[{"verdict": "reject", "by": "kim"}])
    result = run(script, task())
    assert (result.outcome, result.refund) == (Outcome.REJECTED, None)
    notice = script.calls[-2].question
    assert notice.reply_digest is None
    assert script.calls[-1].question.refund is None


def test_the_models_letter_is_sent_only_with_the_refund_it_was_written_for() -> None:
    other = {"order_id": "AC-10442", "amount": "10.00", "currency": "EUR"}
    unsure = drafted(draft(confidence="0.10"))
    as_drafted = Script(World(unsure), events=[APPROVE])
    changed = Script(World(unsure), events=[APPROVE | {"refund": other}])
    run(as_drafted, task())
    run(changed, task())
    assert as_drafted.calls[-2].question.reply_digest == "0" * 64
    assert changed.calls[-2].question.reply_digest is None
    assert str(changed.calls[-2].question.refund.amount) == "10.00"


def test_nobody_decides_in_time() -> None:
    script = Script(World(drafted(draft(confidence="0.10"))), events=[None])
    assert run(script, task()).outcome is Outcome.EXPIRED
    assert script.steps()[-1] == "notify_customer", "the case stays open"


def test_not_even_a_person_gets_more_out_of_the_books_than_is_in_them() -> None:
    greedy = {"order_id": "AC-10442", "amount": "49.91", "currency": "EUR"}
    script = Script(
        World(drafted(draft(action="escalate"))),
        events=[APPROVE | {"refund": greedy}, APPROVE, {"verdict": "reject", "by": "kim"}],
    )
    assert run(script, task()).outcome is Outcome.REJECTED
    reasons = [progress.reason for progress in script.questions]
    assert reasons == ["model_unsure", "model_unsure", "refund_missing"]


@pytest.mark.parametrize("refusals", [{"holds": ["ticket_voided"]}, {"refusals": ["ticket_voided", None]}])
def test_books_that_refuse_bring_a_person_in_before_anybody_is_told(refusals: dict[str, Any]) -> None:
    script = Script(World(**refusals), events=[{"verdict": "reject", "by": "kim"}])
    result = run(script, task())
    assert result.outcome is Outcome.REJECTED
    assert [progress.reason for progress in script.questions] == ["books_refuse_ticket_voided"]


OTHER = Refund.model_validate({"order_id": "AC-10442", "amount": "20.00", "currency": "EUR"})


@pytest.mark.parametrize(
    ("earlier", "outcome", "refund"),
    [
        (Effects(hold=Hold(state="committed", refund=OTHER)), Outcome.REFUNDED, OTHER),
        (Effects(hold=Hold(state="posted", refund=OTHER, refund_id="R-1")), Outcome.REFUNDED, OTHER),
        (Effects(told=Letter(outcome=Outcome.DECLINED)), Outcome.DECLINED, None),
        (Effects(told=Letter(outcome=Outcome.REFUNDED, refund=OTHER)), Outcome.REFUNDED, OTHER),
    ],
)
def test_a_run_that_starts_over_carries_out_what_the_one_before_has_settled(
    earlier: Effects, outcome: Outcome, refund: Refund | None
) -> None:
    script = Script(World(earlier=earlier))
    result = run(script, task(again=True))
    assert (result.outcome, result.refund) == (outcome, refund)
    assert script.steps() == ["classify", "retrieve_account", "notify_customer", "close_case"], "no draft, no person"


def test_money_that_is_only_held_settles_nothing() -> None:
    script = Script(World(earlier=Effects(hold=Hold(state="held", refund=OTHER))))
    assert run(script, task(again=True)).refund == REFUND


def test_a_run_that_another_one_overtakes_at_the_hold_follows_it_without_asking_anybody() -> None:
    script = Script(World(drafted(draft(confidence="0.10")), holds=[Hold(state="committed", refund=OTHER)]))
    assert run(script, task()).refund == OTHER


def test_an_approval_that_comes_after_another_runs_refund_is_too_late() -> None:
    holds = [Hold(state="held", refund=REFUND), Hold(state="committed", refund=OTHER)]
    result = run(Script(World(drafted(draft(confidence="0.10")), holds=holds), events=[APPROVE]), task())
    assert (result.refund, result.decided_by) == (OTHER, None)
    assert [each.state for each in result.decisions] == [DecisionState.TOO_LATE]


def test_nonsense_gets_one_corrective_turn_then_a_person() -> None:
    once = Script(World(classified=[None, FOUND]))
    assert run(once, task()).outcome is Outcome.REFUNDED
    assert once.calls[1].question.problem == "no JSON"
    twice = Script(World(classified=[None, None]), events=[None])
    assert run(twice, task()).category is None
    assert twice.steps()[:3] == ["classify", "classify", "retrieve_account"]
    assert twice.shown[0] is not None
    assert twice.shown[0].reason == "classification_unusable"


def test_a_drafts_nonsense_gets_one_corrective_turn_then_a_person() -> None:
    bad = DraftOutput(problem="no JSON", use=USE)
    once = Script(World(bad, drafted(draft())))
    assert run(once, task()).outcome is Outcome.REFUNDED
    assert once.calls[3].question.problem == "no JSON"
    twice = Script(World(bad, bad), events=[None])
    run(twice, task())
    assert twice.steps().count("draft_refund") == 2
    assert twice.shown[0] is not None
    assert twice.shown[0].reason == "draft_unusable"


def test_the_drafting_loop_is_capped() -> None:
    endless = DraftOutput(tool_calls=TOOL_CALLS[:1], use=USE)
    script = Script(World(endless), events=[None])
    run(script, task())
    assert script.steps().count("draft_refund") == task().rules.drafting.max_turns
    assert script.shown[0] is not None
    assert script.shown[0].reason == "too_many_turns"


def test_an_unknown_customer_costs_no_draft() -> None:
    script = Script(World(account=None), events=[{"verdict": "reject", "by": "kim"}])
    assert run(script, task()).category is Category.DAMAGED
    assert "draft_refund" not in script.steps()


def test_results_of_tools_reach_the_next_turn() -> None:
    script = Script(World(order=None), events=[None])
    run(script, task())
    second = script.calls[5].question
    assert [(each.call.tool, each.problem) for each in second.lookups] == [
        ("lookup_order", "order_not_found"),
        ("lookup_refund_policy", None),
    ]


def said(question: int, decision_id: str, **more: Any) -> dict[str, Any]:
    """An approval of what a question proposes."""
    return APPROVE | {"question": question, "decision_id": decision_id} | more


def test_a_person_is_shown_what_the_books_said_and_which_limit_holds() -> None:
    script = Script(World(drafted(draft(confidence="0.10"))), events=[None])
    run(script, task())
    question = script.questions[0].question
    assert question is not None
    assert question.order is not None
    assert question.account is not None
    assert (str(question.order.charged), str(question.order.refundable)) == ("49.90", "49.90")
    assert (question.account.risk, question.account.refunds_90d) == ("low", 0)
    assert question.limit == task().rules.limit("EUR")
    assert (question.number, question.asked_at) == (1, "2026-11-22T12:00:00.000+00:00")


def test_what_became_of_each_decision_is_told_and_returned() -> None:
    greedy = {"order_id": "AC-10442", "amount": "9999.00", "currency": "EUR"}
    rejected = {"verdict": "reject", "by": "kim", "question": 2, "decision_id": "b"}
    script = Script(World(drafted(draft(confidence="0.10"))), events=[said(1, "a", refund=greedy), rejected])
    result = run(script, task())
    first, second = result.decisions
    assert (first.decision_id, first.state, first.code) == ("a", DecisionState.REFUSED, "above_refundable")
    assert (str(first.most), first.currency, str(first.refund and first.refund.amount)) == ("49.90", "EUR", "9999.00")
    assert (second.decision_id, second.state, second.by) == ("b", DecisionState.ACCEPTED, "kim")
    assert [each.reason for each in result.decisions] == ["low_confidence", "low_confidence"], "it waits as before"
    assert script.questions[1].decisions == (first,), "whoever is asked again sees what came of it"


@pytest.mark.parametrize("patched", [True, False], ids=["now", "a task that was refused by 0.1.0"])
def test_refused_decisions_take_nothing_from_the_time_limit_and_add_nothing(patched: bool) -> None:
    greedy = {"order_id": "AC-10442", "amount": "9999.00", "currency": "EUR"}
    answers = World(drafted(draft(confidence="0.10")))
    script = Script(answers, events=[said(1, "a", refund=greedy), said(2, "b", refund=greedy), None], patched=patched)
    assert run(script, task()).outcome is Outcome.EXPIRED
    left = timedelta(hours=72)
    assert script.waits == ([left, left - timedelta(minutes=1), left - timedelta(minutes=2)] if patched else [left] * 3)
    asked = {each.question.asked_at for each in script.questions if each.question}
    assert len(asked) == (1 if patched else 3)


def test_a_decision_answers_its_own_question_alone() -> None:
    greedy = {"order_id": "AC-10442", "amount": "9999.00", "currency": "EUR"}
    answers: list[dict[str, Any] | None] = [said(1, "a", refund=greedy), said(1, "b"), said(2, "c")]
    script = Script(World(drafted(draft(confidence="0.10"))), events=answers)
    result = run(script, task())
    told = [(each.decision_id, each.state) for each in result.decisions]
    assert told == [("a", DecisionState.REFUSED), ("b", DecisionState.TOO_LATE), ("c", DecisionState.ACCEPTED)]
    assert len(script.questions) == 2
    assert script.waits == [timedelta(hours=72) - timedelta(minutes=minute) for minute in range(3)], (
        "what is left aside costs no time"
    )


@pytest.mark.parametrize("event", [{"approve": True}, "yes", 7, {"verdict": "reject"}, {"verdict": "pay", "by": "kim"}])
def test_an_event_that_is_no_decision_decides_nothing(event: Any) -> None:
    script = Script(World(drafted(draft(confidence="0.10"))), events=[event, None])
    result = run(script, task())
    assert (result.outcome, result.decisions) == (Outcome.EXPIRED, ())
    assert len(script.questions) == 1


def test_a_decision_that_the_books_refuse_at_the_last_moment_was_refused() -> None:
    rejected = {"verdict": "reject", "by": "kim", "question": 2, "decision_id": "b"}
    world = World(drafted(draft(confidence="0.10")), refusals=["exceeds_refundable", None])
    script = Script(world, events=[said(1, "a"), rejected])
    first, second = run(script, task()).decisions
    assert (first.state, first.code) == (DecisionState.REFUSED, "above_refundable")
    assert second.state is DecisionState.ACCEPTED
