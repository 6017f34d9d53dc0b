"""A second published list of prices, to compare with: the JSON file of the installed litellm package.

The file is read without importing litellm.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from app.domain.errors import ConfigurationError
from app.domain.money import product
from app.pricing.charge_types import Meter
from app.pricing.providers import provider_id

PACKAGE = "litellm"
_FILE = "model_prices_and_context_window_backup.json"
_METERS = {
    Meter.INPUT: "input_cost_per_token",
    Meter.CACHED_INPUT: "cache_read_input_token_cost",
    Meter.CACHE_WRITE: "cache_creation_input_token_cost",
    Meter.OUTPUT: "output_cost_per_token",
}
# litellm's names for our providers, in its keys and in its entries.
_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "aws": ("bedrock", "bedrock_converse"),
    "google": ("gemini", "vertex_ai", "vertex_ai-language-models"),
}
_FINE_TUNED = re.compile(r"ft:[^:]+")
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")
_MILLION = Decimal(1_000_000)


class LiteLLMPrices:
    """The prices of litellm's list. The list has no dates, and its prices are per token."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self._entries = entries

    def find(self, provider: str, model: str) -> dict[Meter, Decimal] | None:
        """Prices per million tokens by kind; None if the list does not have this model of this provider."""
        entry = self._entry(provider, self._model_names(model))
        return None if entry is None else _prices(entry)

    def context_tokens(self, provider: str, model: str) -> int | None:
        """The most input tokens of a request; None when this list does not say."""
        limit = (self._entry(provider, self._model_names(model)) or {}).get("max_input_tokens")
        return limit if isinstance(limit, int) else None

    def retires(self, provider: str, model: str) -> date | None:
        """The first day on which the provider no longer serves the model; None when this list does not say. Only an
        entry of exactly that name counts: an alias outlives the dated version behind it."""
        text = (self._entry(provider, (model,)) or {}).get("deprecation_date")
        try:
            return date.fromisoformat(text) if isinstance(text, str) else None
        except ValueError:
            return None

    def _entry(self, provider: str, model_names: Iterable[str]) -> Mapping[str, Any] | None:
        names = _PROVIDERS.get(provider_id(provider), (provider_id(provider),))
        for model_name in model_names:
            for key in (*(f"{name}/{model_name}" for name in names), model_name):
                entry = self._entries.get(key)
                if isinstance(entry, dict) and entry.get("litellm_provider") in names:
                    return entry
        return None

    def _model_names(self, model: str) -> Iterator[str]:
        """The names that the list may have for a model, most exact first: its own name, then its base if it is
        fine-tuned (`ft:base:organisation:name:id`); each also without a date, and with the latest date."""
        base = _FINE_TUNED.match(model)
        for name in dict.fromkeys((model, base[0] if base else model)):
            yield name
            undated = _DATE.sub("", name)
            yield undated
            dated = re.compile(re.escape(undated) + _DATE.pattern)
            yield from sorted(filter(dated.fullmatch, self._entries), reverse=True)


def _prices(entry: Mapping[str, Any]) -> dict[Meter, Decimal]:
    prices = {meter: entry.get(key) for meter, key in _METERS.items()}
    return {
        meter: product(Decimal(price), _MILLION) for meter, price in prices.items() if isinstance(price, Decimal | int)
    }


def load() -> LiteLLMPrices | None:
    """The installed list (about 0.1 s); None if litellm is not installed. Raises ConfigurationError if it cannot be
    read."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(next(iter(spec.submodule_search_locations))) / _FILE
    try:
        return LiteLLMPrices(json.loads(file.read_text(encoding="utf-8"), parse_float=Decimal))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: cannot be read ({error}); install the lock file's {PACKAGE} again") from None
