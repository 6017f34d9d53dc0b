"""Who had which ticket when: twenty tenants, a year, five models and three price books. Pure and seeded."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from app.domain.models import UsageBasis
from app.pricing import book
from app.pricing.book import PriceBook
from app.pricing.list_prices import bundled
from app.pricing.price_file import Agreement
from runtime import paths

BEGIN = datetime(2025, 11, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
MONTH = (date(2026, 9, 1), date(2026, 10, 1))  # the one that is reported
TENANTS = (
    *("acme", "brightly", "lumen", "northwind", "fjord", "cobalt", "harbor", "juniper", "kestrel", "larkspur"),
    *("meridian", "nimbus", "orchid", "pioneer", "quartz", "redwood", "saffron", "tundra", "umbra", "vesper"),
)


@dataclass(frozen=True)
class Model:
    """A model behind a component. A provider of which Dapr learns no usage has it `estimated` by us."""

    component: str
    provider: str
    name: str
    known: UsageBasis = UsageBasis.REPORTED


MODELS = (
    Model("llm", "conversation.openai", "gpt-5-mini"),
    Model("llm-fast", "conversation.openai", "gpt-4.1-mini"),
    Model("llm-claude", "conversation.anthropic", "claude-haiku-4-5", UsageBasis.ESTIMATED),
    Model("llm-mistral", "conversation.mistral", "mistral-small-latest", UsageBasis.ESTIMATED),
    Model("llm-own", "conversation.openai", "sandbox-small"),
)
# One that no price is known for: a few calls of it are in every real ledger, loudly unpriced.
UNPRICED = Model("llm-preview", "conversation.openai", "preview-7b")


@dataclass(frozen=True)
class Person:
    """A task that is to be: whose, when, put to which model, and the chance that decides everything else of it."""

    number: int
    tenant: str
    arrives_at: datetime
    model: Model
    chance: random.Random

    @property
    def ticket_id(self) -> str:
        """As the tenant's help desk numbers them."""
        return f"T-{self.number:07d}"


@dataclass(frozen=True)
class Population:
    """`tasks` tasks, evenly over a year. The same seed, the same tasks, in whatever order they are asked for."""

    tasks: int
    seed: int = 7
    _weights: Sequence[float] = field(
        default=tuple(itertools.accumulate(1 / place for place in range(2, len(TENANTS) + 2))), repr=False
    )

    def person(self, number: int) -> Person:
        """The task of that number, from 0."""
        chance = random.Random(f"{self.seed}:{number}")
        share = (number + chance.random()) / self.tasks
        (place,) = chance.choices(range(len(TENANTS)), cum_weights=self._weights)
        return Person(number, TENANTS[place], BEGIN + share * YEAR, _model(chance, place, share), chance)


def _model(chance: random.Random, place: int, share: float) -> Model:
    """Each tenant has a model of its own and tries another one now and then; some change in the middle of the year."""
    rolled = chance.random()
    if rolled < 0.0005:
        return UNPRICED
    moved = place % 3 == 0 and share > 0.5
    return MODELS[(place + moved + (rolled < 0.05)) % len(MODELS)]


def books() -> tuple[PriceBook, ...]:
    """Finance's file as it ships, then as it was after each of two negotiations; each holds for a third of the year."""
    shipped = book.load(paths.ROOT / "config" / "prices.yaml").file
    found = [shipped]
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
        found.append(shipped.model_copy(update={"agreements": (agreement, *shipped.agreements)}))
    return tuple(book.make(file, bundled()) for file in found)


def book_at(held: Sequence[PriceBook], at: datetime) -> PriceBook:
    """The book that was in use at that moment."""
    return held[min(int((at - BEGIN) / YEAR * len(held)), len(held) - 1)]
