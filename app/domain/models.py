"""The types that the rooms exchange: frozen, validated and JSON-safe. Money is `Decimal`, time is UTC.

Except for tickets and the views of them, these types may enter a workflow's history, so they contain no person's text,
address or secret: texts stay in the ledger, under a digest.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

import iso4217
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)

from app.domain.texts import Text

# The decimal places of each currency. Precious metals and test codes have none and are left out.
_MINOR_UNITS = {currency.code: currency.exponent for currency in iso4217.Currency if currency.exponent is not None}


def minor_units(currency: str) -> int:
    """The number of decimal places of a currency by ISO 4217: USD 2, JPY 0, KWD 3. Raises ValueError for any other
    code."""
    if currency not in _MINOR_UNITS:
        raise ValueError(f"{currency} is not a currency of ISO 4217")
    return _MINOR_UNITS[currency]


def is_currency(word: str) -> bool:
    """Whether the word is a currency code of ISO 4217."""
    return word in _MINOR_UNITS


def in_minor_units(amount: Decimal, currency: str) -> Decimal:
    """The amount with exactly the decimal places of its currency: 1E+1 USD gives 10.00.

    Raises ValueError for an amount with more places, such as 100.50 JPY.
    """
    places = minor_units(currency)
    normal = amount.quantize(Decimal(1).scaleb(-places))
    if normal != amount:
        raise ValueError(f"{amount:f} {currency} has more than the {places} decimal places of {currency}")
    return normal


def _currency(code: str) -> str:
    minor_units(code)
    return code


def _digits(amount: object) -> object:
    """Refuses `1_000` and the digits of other scripts, which Python would read as numbers."""
    if isinstance(amount, str) and ("_" in amount or not amount.isascii()):
        raise ValueError("an amount is written with the digits 0 to 9 and a point")
    return amount


Money = Annotated[
    Decimal,
    BeforeValidator(_digits),
    Field(ge=0, max_digits=14, decimal_places=4),
    PlainSerializer(lambda amount: format(amount, "f"), return_type=str),
]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$"), AfterValidator(_currency)]
TenantId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
TicketId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

# The name of a caller's token, which decisions record.
CallerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}$")]

Confidence = Annotated[Decimal, Field(ge=0, le=1), PlainSerializer(str, return_type=str)]

MAX_TICKET_CHARACTERS = 64_000


class Frozen(BaseModel):
    """The base of all value types: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InCurrency(Frozen):
    """The base of types with an amount and a currency. If both are set, the amount gets the currency's decimal
    places."""

    currency: Currency | None
    amount: Money | None

    @field_validator("amount")
    @classmethod
    def _normal(cls, amount: Decimal | None, known: ValidationInfo) -> Decimal | None:
        currency = known.data.get("currency")
        return amount if amount is None or currency is None else in_minor_units(amount, currency)


class Category(StrEnum):
    """The subject of a ticket."""

    DAMAGED = "damaged"  # arrived broken, defective, spoiled
    NOT_RECEIVED = "not_received"  # never arrived, lost, marked as delivered but missing
    WRONG_ITEM = "wrong_item"  # another product, size or colour than ordered; an item missing from the parcel
    CHANGED_MIND = "changed_mind"  # wants to return something that is fine
    DOUBLE_CHARGE = "double_charge"  # charged twice, or more than the order's total
    CANCELLATION = "cancellation"  # wants an order stopped before it is sent
    QUESTION = "question"  # asks for information; wants no money back
    COMPLAINT = "complaint"  # is unhappy; wants no money back
    FRAUD = "fraud"  # says that somebody else ordered or paid, threatens a chargeback over an unknown order
    UNCLEAR = "unclear"  # says too little to decide


REFUNDABLE = frozenset(
    {
        Category.DAMAGED,
        Category.NOT_RECEIVED,
        Category.WRONG_ITEM,
        Category.CHANGED_MIND,
        Category.DOUBLE_CHARGE,
        Category.CANCELLATION,
    }
)


class UsageBasis(StrEnum):
    """How a quantity is known, best first. A sum has the worst basis of its parts; unknown is never zero."""

    REPORTED = "reported"  # by the provider
    ESTIMATED = "estimated"  # by the agent
    UNREPORTED = "unreported"  # unknown


class Action(StrEnum):
    """The action that a draft proposes."""

    REFUND = "refund"
    DECLINE = "decline"  # the policy or the order does not allow a refund
    ANSWER = "answer"  # the customer wants no money, or gets a question back
    ESCALATE = "escalate"  # the model is unsure: a person decides


class Outcome(StrEnum):
    """How a task ended."""

    REFUNDED = "refunded"
    DECLINED = "declined"  # by the refund policy
    ANSWERED = "answered"
    REJECTED = "rejected"  # by a person
    EXPIRED = "expired"  # nobody decided in time; the case stays open with the support desk


class Ticket(Frozen):
    """A customer's request. `tenant` and `ticket_id` together identify it."""

    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    order_id: Reference | None = None
    subject: Text = Field(default="", max_length=500)
    text: Text = Field(default="", max_length=MAX_TICKET_CHARACTERS)

    @field_validator("ticket_id", "customer_id", "order_id", mode="before")
    @classmethod
    def _number_to_text(cls, value: Any) -> Any:
        """Accepts a number as an id, since many help desks export ids as numbers."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**20 else value

    @field_validator("subject", "text", mode="before")
    @classmethod
    def _null_to_empty(cls, value: Any) -> Any:
        """Accepts null as an empty text, since help desks export an empty subject so."""
        return "" if value is None else value

    @property
    def task_id(self) -> str:
        """The workflow instance id of the ticket's task: `tenant:ticket_id`."""
        return task_id(self.tenant, self.ticket_id)


def task_id(tenant: str, ticket_id: str) -> str:
    """The id of a ticket's task. A tenant contains no colon, so the id can be split again."""
    return f"{tenant}:{ticket_id}"


class Refund(InCurrency):
    """An amount to refund for one order."""

    order_id: Reference
    currency: Currency
    amount: Annotated[Money, Field(gt=0)]


class Decision(Frozen):
    """A person's decision about a waiting task. A `refund` replaces the drafted one; `question` is the number of the
    answered question, `decision_id` the decision's id in the ledger, which also keeps its note."""

    verdict: Literal["approve", "reject"]
    by: CallerName
    refund: Refund | None = None
    question: int | None = None
    decision_id: str = Field(default="", max_length=36)


class DecisionState(StrEnum):
    """The state of a decision."""

    HANDED_OVER = "handed_over"  # sent to the task, which is not known to have answered
    ACCEPTED = "accepted"
    REFUSED = "refused"  # by the books, or before it reached the task
    TOO_LATE = "too_late"  # it came after its question was answered, or after the task had ended


class SettledDecision(Frozen):
    """The result of a decision, as the task reports it: `code` is why it was not accepted, `most` what was left to
    refund on the order. It travels in the history, so it contains figures and ids only."""

    decision_id: str
    question: int | None
    verdict: Literal["approve", "reject"]
    by: str
    refund: Refund | None = None  # what was approved, the proposed one included
    at: str  # ISO 8601, UTC
    state: DecisionState
    code: str = ""
    most: Money | None = None
    currency: Currency | None = None  # of `most`
    reason: str = ""  # why the person was asked


class DecisionView(Frozen):
    """A decision about a task, accepted or not, for a reader. `words` is its result in words; `most` is what was left
    to refund on the order, in `currency`."""

    decision_id: str
    at: str  # ISO 8601, UTC
    by: str
    verdict: Literal["approve", "reject"]
    question: int | None = None
    refund: Refund | None = None
    note: str = ""
    state: DecisionState
    code: str = ""
    most: Money | None = None
    currency: Currency | None = None
    words: str
    settled_at: str | None = None
    reason: str = ""  # why the person was asked; empty if unknown


class AnsweredBy(StrEnum):
    """The source of the answer to a model call."""

    PROVIDER = "provider"
    JOURNAL = "journal"  # the step was repeated; its answer had been paid before


class CallState(StrEnum):
    """The state of a model call."""

    STARTED = "started"
    SETTLED = "settled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # its execution died, or another execution's answer came first


class Deferred(Frozen):
    """A step's result when it could not begin: the task pauses for so long, and the step is run anew."""

    deferred_seconds: float = Field(gt=0)


class ToolForm(StrEnum):
    """How a model call offered its tools."""

    NATIVE = "native"  # as the provider's own tools
    JSON = "json"  # in words, answered by JSON, since the component cannot pass tools on


class ModelUse(Frozen):
    """The usage of one model call, and how it is known. None means unknown, not zero."""

    answered_by: AnsweredBy
    component: str
    model: str
    prompt_version: str
    request_digest: str
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    usage_basis: UsageBasis


class Classification(Frozen):
    """The result of the classify stage."""

    category: Category
    wants_refund: bool
    order_id: Reference | None = None
    language: str = Field(pattern=r"^[a-z]{2}$")
    confidence: Confidence


class Proposal(InCurrency):
    """The model's proposal, without the letter to the customer."""

    action: Action
    order_id: Reference | None = None
    amount: Money | None = None
    currency: Currency | None = None
    reason: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    confidence: Confidence


class Draft(Proposal):
    """A proposal in the workflow's history. The letter to the customer is in the ledger, under `reply_digest`."""

    reply_digest: str


class Intake(StrEnum):
    """The result of sending a ticket."""

    NEW = "new"  # its task was started
    KNOWN = "known"  # the same ticket was sent before, and its task exists
    LATER = "later"  # the ticket is stored; its task is started once the engine answers


class TaskStatus(StrEnum):
    """The status of a task, for a reader."""

    RUNNING = "running"
    WAITING = "waiting"  # for a person's decision
    PARKED = "parked"  # no retry is left, or none would help; `task resume` continues
    PAUSED = "paused"  # by a person
    COMPLETED = "completed"
    FAILED = "failed"
    TERMINATED = "terminated"

    @property
    def ended(self) -> bool:
        """Whether the task is completed, failed or terminated."""
        return self in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.TERMINATED)


class OrderFigures(Frozen):
    """The figures of an order in the books, at the time of the question."""

    order_id: Reference
    currency: Currency
    charged: Money
    refunded: Money
    held: Money = Decimal(0)  # in flight for other tickets
    refundable: Money  # charged, not refunded and not in flight


class AccountFigures(Frozen):
    """The figures of the customer's account in the books, at the time of the question."""

    tier: str
    risk: str
    since_days: int
    refunds_90d: int
    refunded_90d: Money | None = None  # received in 90 days or in flight for other tickets, in the order's currency


class Figures(Frozen):
    """The figures that a person needs to decide, at the time of the question."""

    limit: Money | None = None  # up to which no person is asked, in the proposed refund's currency
    order: OrderFigures | None = None
    account: AccountFigures | None = None


class Question(Figures):
    """A question to a person, besides its reason and the proposed refund. The questions of a task are numbered, and a
    decision names the number that it answers."""

    number: int
    asked_at: str  # ISO 8601, UTC
    expires_at: str  # without a decision by then, the task ends as expired


class Progress(Frozen):
    """The progress that a running task reports, as the workflow's custom status."""

    status: Literal[TaskStatus.RUNNING, TaskStatus.WAITING, TaskStatus.PARKED]
    reason: str = ""  # a short code such as above_limit, or the stage and error at which it is parked
    category: Category | None = None
    refund: Refund | None = None  # the drafted refund that waits for approval
    question: Question | None = None
    decisions: tuple[SettledDecision, ...] = ()  # the last ones that the task has processed


class TaskResult(Frozen):
    """How a task ended."""

    outcome: Outcome
    category: Category | None
    refund: Refund | None = None
    refund_id: str | None = None
    decided_by: str | None = None


class TaskOutput(TaskResult):
    """The output of the workflow: how the task ended, and the results of its decisions."""

    decisions: tuple[SettledDecision, ...] = ()

    @property
    def result(self) -> TaskResult:
        """How the task ended, without the decisions."""
        return TaskResult.model_validate(self.model_dump(exclude={"decisions"}))


class Retrying(Frozen):
    """A failed step that is retried. `attempt` is the last failed one, of `attempts` at most; `code` is the code of its
    error, None if the error is not one of the agent's; `next_at` is the time of the next attempt, None if it runs."""

    step: str
    attempt: int
    attempts: int | None
    error: str
    code: str | None = None
    next_at: str | None  # ISO 8601, UTC

    @property
    def words(self) -> str:
        """The state of the step as a sentence for a reader."""
        of = f" of {self.attempts}" if self.attempts else ""
        retry = f"next at {self.next_at[:19].replace('T', ' ')} UTC" if self.next_at else "the next is under way"
        return f"{self.step}: attempt {self.attempt}{of} failed, {retry}: {self.error}"


class TaskView(Frozen):
    """A task as API, command line and pages show it."""

    task_id: str
    tenant: TenantId
    ticket_id: TicketId
    status: TaskStatus
    created_at: str  # ISO 8601, UTC
    updated_at: str | None = None
    category: Category | None = None  # None until it is classified
    waiting_for: str | None = None  # the reason of a waiting or parked task
    proposed_refund: Refund | None = None
    question: Question | None = None  # of a waiting task
    result: TaskResult | None = None
    error: str | None = None
    retrying: Retrying | None = None  # what a running task is stuck at; not in lists
    decisions: tuple[DecisionView, ...] = ()  # oldest first; not in lists
    caveat: str | None = None  # why this view may be outdated, and the remedy


class TaskPage(Frozen):
    """One page of tasks in the requested order; `next_after` is the cursor of the next page."""

    tasks: tuple[TaskView, ...]
    next_after: str | None = None


class TicketView(Frozen):
    """A ticket as it is stored: its texts are redacted (e-mail addresses, card numbers and the like)."""

    task_id: str
    customer_id: str
    order_id: str | None
    subject: str
    text: str
    received_at: str  # ISO 8601, UTC


class Case(Frozen):
    """A task that waits for a person, with its ticket."""

    task: TaskView
    ticket: TicketView


class Inbox(Frozen):
    """One page of tasks that wait for a person, the oldest first. `total` counts the tasks that match the filter;
    `reasons` and `tenants` count all waiting tasks."""

    cases: tuple[Case, ...]
    total: int
    reasons: dict[str, int]
    tenants: dict[str, int]
    next_after: str | None = None
