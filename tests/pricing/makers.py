"""Valid values for the tests of prices and costs; each maker takes changes to its defaults."""

from __future__ import annotations

import datetime as dt
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from genai_prices import types

from app.pricing import book
from app.pricing.book import PriceBook
from app.pricing.charge_types import Origin
from app.pricing.list_prices import ListPrices
from app.pricing.price_file import PriceFile
from tests.paths import ROOT

PROJECT_FILE = ROOT / "config" / "prices.yaml"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
OPENAI = "conversation.openai"


def agreement(**changes: Any) -> dict[str, Any]:
    """A price of 2 / 0.50 / 8 per million for `model-a`, since 2026."""
    values = {
        "id": "agreed",
        "provider": OPENAI,
        "model": "model-a",
        "from": dt.date(2026, 1, 1),
        "per_million_tokens": {"input": "2", "cached_input": "0.50", "output": "8"},
        "source": "a contract",
        "checked": dt.date(2026, 11, 1),
    }
    return values | changes


def tariff(**changes: Any) -> dict[str, Any]:
    """Infrastructure prices since 2026."""
    values = {
        "id": "cloud",
        "from": dt.date(2026, 1, 1),
        "compute_per_second": "0.00002",
        "writes_per_million": "1.25",
        "storage_per_gb_month": "0.25",
        "logs_per_gb": "0.50",
        "source": "a cloud's price list",
        "checked": dt.date(2026, 11, 1),
    }
    return values | changes


def price_file(*agreements: dict[str, Any], **changes: Any) -> PriceFile:
    """A price file with these agreements."""
    values: dict[str, Any] = {
        "list_prices": {"version": "1", "checked": dt.date(2026, 11, 1), "source": "the list"},
        "stale_after_days": 90,
        "retention_months": "1",
        "agreements": list(agreements),
        "infrastructure": [tariff()],
    }
    return PriceFile.model_validate(values | changes)


def price_book(*agreements: dict[str, Any], listed: ListPrices | None = None, **changes: Any) -> PriceBook:
    """A price book of these agreements and a small list."""
    return book.make(price_file(*agreements, **changes), listed or small_list())


def small_list() -> ListPrices:
    """OpenAI with `listed` (flat, batch since October), `tiered` (above 1,000 tokens), `dated` and `by-request`."""
    models = [
        model("listed", prices(input_mtok="1", cache_read_mtok="0.1", output_mtok="4"), batch=("0.5", "2")),
        model("tiered", tiered()),
        model(
            "dated",
            [
                types.ConditionalPrice(prices=prices(input_mtok="4", output_mtok="8")),
                types.ConditionalPrice(
                    types.StartDateConstraint(dt.date(2026, 6, 1)), prices=prices(input_mtok="2", output_mtok="4")
                ),
            ],
        ),
        model("by-request", prices(input_mtok="1", output_mtok="1", requests_kcount="5")),
    ]
    return ListPrices([types.Provider(id="openai", name="OpenAI", api_pattern="-", models=models)], "1")


def model(name: str, price: Any, batch: tuple[str, str] | None = None) -> types.ModelInfo:
    """A model of the list."""
    variant = types.PriceVariant(
        {"processing": "batch"},
        prices(input_mtok=batch[0], output_mtok=batch[1]) if batch else prices(),
        types.StartDateConstraint(dt.date(2026, 10, 1)),
    )
    variants = [variant] if batch else None
    return types.ModelInfo(id=name, match=types.ClauseEquals(name), prices=price, price_variants=variants)


def prices(**values: str) -> types.ModelPrice:
    """Prices per million by the list's own names."""
    return types.ModelPrice(**{key: Decimal(value) for key, value in values.items()})


def tiered() -> types.ModelPrice:
    """Twice the price for the whole request above 1,000 input tokens; cached input has no tier."""
    return types.ModelPrice(
        input_mtok=types.TieredPrices(Decimal(1), [types.Tier(1000, Decimal(2))]),
        cache_read_mtok=Decimal("0.1"),
        output_mtok=types.TieredPrices(Decimal(4), [types.Tier(1000, Decimal(8))]),
    )


def origin(**changes: Any) -> Origin:
    """The first call of a task's classify stage."""
    values: dict[str, Any] = {
        "task_id": "acme:T-1",
        "tenant": "acme",
        "agent": "refund-agent",
        "workflow": "refund_ticket",
        "at": NOW,
        "stage": "classify",
        "step": "classify",
        "execution_id": "e-1",
        "turn": 1,
        "number": 1,
        "model": "model-a",
        "provider": OPENAI,
        "component": "llm",
        "outcome": "refunded",
    }
    return Origin(**values | changes)
