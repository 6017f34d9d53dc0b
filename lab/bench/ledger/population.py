"""A seeded population of tickets: twenty tenants, a year of arrivals, five models and three price books."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from app.domain.models import Outcome, UsageBasis
from app.pricing import book
from app.pricing.book import PriceBook
from app.pricing.list_prices import load_bundled
from app.pricing.price_file import Agreement
from runtime import paths


class Ending(StrEnum):
    """How a synthetic task ends."""

    ANSWERED = "answered"
    DECLINED = "declined"
    REFUNDED = "refunded"
    APPROVED = "approved"  # refunded after a person approved
    REJECTED = "rejected"
    EXPIRED = "expired"
    TERMINATED = "terminated"  # by a person, while it waited for a decision
    FAILED = "failed"  # by an error in the workflow's code

    @property
    def waits(self) -> bool:
        """Whether the task waits for a person."""
        return self in (Ending.APPROVED, Ending.REJECTED, Ending.EXPIRED, Ending.TERMINATED)

    @property
    def looks_up(self) -> bool:
        """Whether the draft looks things up, which takes two turns."""
        return self is not Ending.ANSWERED


@dataclass(frozen=True)
class _Share:
    ending: Ending
    percent: float
    outcome: Outcome | None


_SHARES = (
    _Share(Ending.ANSWERED, 41, Outcome.ANSWERED),
    _Share(Ending.DECLINED, 14, Outcome.DECLINED),
    _Share(Ending.REFUNDED, 26, Outcome.REFUNDED),
    _Share(Ending.APPROVED, 12, Outcome.REFUNDED),
    _Share(Ending.REJECTED, 4, Outcome.REJECTED),
    _Share(Ending.EXPIRED, 2.6, Outcome.EXPIRED),
    _Share(Ending.TERMINATED, 0.3, None),
    _Share(Ending.FAILED, 0.1, None),
)
_WEIGHTS = [share.percent for share in _SHARES]
OUTCOMES = {share.ending: share.outcome for share in _SHARES}


def choose_ending(chance: random.Random) -> Ending:
    """An ending at random, by the percentages of the mix."""
    return chance.choices(_SHARES, _WEIGHTS)[0].ending


# Texts of tickets, answers and step results, as long as those of the sample tickets.

_SENTENCES = (
    "I ordered this two weeks ago and it still has not arrived.",
    "The tracking page has said the same thing for days now.",
    "When I opened the parcel, the glass was cracked in two places.",
    "I have attached photos to my first message, please have a look at them.",
    "Could you tell me whether the larger size will be back in stock before the holidays?",
    "My bank statement shows the same amount twice, on the same day.",
    "I would rather have my money back than a voucher.",
    "Honestly, I have been a customer for years and never had to write to you before.",
    "Please let me know which address I should send it back to, and who pays for that.",
    "The colour on the website looks nothing like the thing that is on my desk now.",
    "If that is not possible, a replacement would be fine as well.",
    "Thank you for your help, and kind regards.",
)
_SUBJECTS = ("Broken on arrival", "Where is my order?", "Charged twice", "Question about sizes", "Cancel, please")


def subject(chance: random.Random) -> str:
    """A ticket's subject."""
    return chance.choice(_SUBJECTS)


def letter(chance: random.Random) -> str:
    """A ticket's text: usually a paragraph, sometimes pages."""
    sentences = min(max(int(chance.lognormvariate(2.2, 0.7)), 1), 120)
    return " ".join(chance.choices(_SENTENCES, k=sentences))


def reply(chance: random.Random) -> str:
    """The agent's answer to the customer."""
    return "Hello,\n\n" + " ".join(chance.choices(_SENTENCES, k=chance.randint(2, 5))) + "\n\nCustomer service"


def classification(category: str, order_id: str | None) -> str:
    """The model's answer in the first stage, as JSON."""
    wants = order_id is not None
    return json.dumps(
        {"category": category, "wants_refund": wants, "order_id": order_id, "language": "en", "confidence": 0.94}
    )


def draft(action: str, order_id: str | None, amount: str | None, text: str) -> str:
    """The model's answer in the third stage, as JSON."""
    money = {"order_id": order_id, "amount": amount, "currency": "EUR" if amount else None}
    return json.dumps({"action": action, **money, "reason": "as_ordered", "confidence": 0.91, "reply": text})


ACCOUNT = json.dumps(
    {
        "account": {
            "customer_id": "c-4711",
            "tier": "gold",
            "since_days": 812,
            "risk": "low",
            "refunds_90d": 1,
            "orders": [
                {
                    "order_id": f"AC-1044{place}",
                    "status": "delivered",
                    "placed_days_ago": 9 + place,
                    "total": "49.90",
                    "currency": "EUR",
                    "items": ["desk lamp", "cable"],
                }
                for place in range(2)
            ],
        },
        "problem": None,
    }
)
ORDER = json.dumps(
    {
        "order": {
            "order_id": "AC-10442",
            "status": "delivered",
            "placed_days_ago": 9,
            "delivered_days_ago": 4,
            "currency": "EUR",
            "total": "49.90",
            "charged": "49.90",
            "refunded": "0.00",
            "refundable": "49.90",
            "items": [{"sku": "L-1", "name": "desk lamp", "quantity": 1, "unit_price": "49.90"}],
        },
        "problem": None,
    }
)
POLICY = json.dumps(
    {
        "policy": {
            "category": "damaged",
            "window_days": 30,
            "counted_from": "delivery",
            "refund_percent": 100,
            "text": "Damaged goods are refunded in full within 30 days of delivery; no return is needed.",
        },
        "problem": None,
    }
)
NOTICE = json.dumps({"notification_id": "n-20991"})
CLOSED = json.dumps({"case_id": "k-20991", "refund_id": None, "refusal": None})
RESULTS = {
    "retrieve_account": ACCOUNT,
    "lookup_order": ORDER,
    "lookup_refund_policy": POLICY,
    "notify_customer": NOTICE,
    "close_case": CLOSED,
}


BEGIN = datetime(2025, 11, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
MONTH = (date(2026, 9, 1), date(2026, 10, 1))  # the month of the monthly reports
TENANTS = (
    *("acme", "brightly", "lumen", "northwind", "fjord", "cobalt", "harbor", "juniper", "kestrel", "larkspur"),
    *("meridian", "nimbus", "orchid", "pioneer", "quartz", "redwood", "saffron", "tundra", "umbra", "vesper"),
)


@dataclass(frozen=True)
class Model:
    """A model behind a Dapr component. Usage is `estimated` if Dapr does not pass on the provider's."""

    component: str
    provider: str
    name: str
    usage_basis: UsageBasis = UsageBasis.REPORTED


MODELS = (
    Model("llm", "conversation.openai", "gpt-5-mini"),
    Model("llm-fast", "conversation.openai", "gpt-4.1-mini"),
    Model("llm-claude", "conversation.anthropic", "claude-haiku-4-5", UsageBasis.ESTIMATED),
    Model("llm-mistral", "conversation.mistral", "mistral-small-latest", UsageBasis.ESTIMATED),
    Model("llm-own", "conversation.openai", "sandbox-small"),
)
# A model without a price; real ledgers have a few such calls.
UNPRICED = Model("llm-preview", "conversation.openai", "preview-7b")


@dataclass(frozen=True)
class Person:
    """The seed of one task: tenant, arrival, model, and the random source of everything else."""

    number: int
    tenant: str
    arrives_at: datetime
    model: Model
    chance: random.Random

    @property
    def ticket_id(self) -> str:
        """The ticket number of the tenant's help desk."""
        return f"T-{self.number:07d}"


@dataclass(frozen=True)
class Population:
    """`tasks` tasks, evenly over a year. Equal seeds give equal tasks, in any order of the calls."""

    tasks: int
    seed: int = 7
    _weights: Sequence[float] = field(
        default=tuple(itertools.accumulate(1 / place for place in range(2, len(TENANTS) + 2))), repr=False
    )

    def person(self, number: int) -> Person:
        """The person with this number, counted from 0."""
        chance = random.Random(f"{self.seed}:{number}")
        share = (number + chance.random()) / self.tasks
        (place,) = chance.choices(range(len(TENANTS)), cum_weights=self._weights)
        return Person(number, TENANTS[place], BEGIN + share * YEAR, _model(chance, place, share), chance)


def _model(chance: random.Random, place: int, share: float) -> Model:
    """Each tenant has its usual model and sometimes tries the next one; some tenants switch in mid-year."""
    rolled = chance.random()
    if rolled < 0.0005:
        return UNPRICED
    moved = place % 3 == 0 and share > 0.5
    return MODELS[(place + moved + (rolled < 0.05)) % len(MODELS)]


def books() -> tuple[PriceBook, ...]:
    """The shipped price file, and two versions with a negotiated discount. Each applies for a third of the year."""
    shipped = book.load(paths.ROOT / "config" / "prices.yaml").file
    files = [shipped]
    for percent in ("8", "12.5"):
        agreement = Agreement.model_validate(
            {
                "id": f"frame-{percent}",
                "provider": "conversation.openai",
                "model": "gpt-*",
                "from": BEGIN,
                "discount_percent": Decimal(percent).normalize().to_eng_string(),
                "source": "made up for the benchmark",
                "checked": BEGIN.date(),
            }
        )
        files.append(shipped.model_copy(update={"agreements": (agreement, *shipped.agreements)}))
    return tuple(book.make(file, load_bundled()) for file in files)


def book_at(books: Sequence[PriceBook], at: datetime) -> PriceBook:
    """The price book that applied at that moment."""
    return books[min(int((at - BEGIN) / YEAR * len(books)), len(books) - 1)]
