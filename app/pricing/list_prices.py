"""The providers' published prices, from the bundled data of genai-prices.

Only its data is used, because its own lookup guesses: it takes a misspelt price context for the standard price, and
falls back to the first price if no condition is met. Which price applies is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version

from genai_prices import types
from genai_prices.data_snapshot import DataSnapshot

from app.pricing.charge_types import Meter, Mode
from app.pricing.schedule import BASE, Schedule, Steps

PACKAGE = "genai-prices"
CURRENCY = "USD"
_METERS = {
    "input_mtok": Meter.INPUT,
    "cache_read_mtok": Meter.CACHED_INPUT,
    "cache_write_mtok": Meter.CACHE_WRITE,
    "output_mtok": Meter.OUTPUT,
}
# Prices of quantities that Dapr does not report. A call of a model with such a price costs more than its tokens.
_UNCOUNTED = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")
_BATCH = {"processing": "batch"}


@dataclass(frozen=True)
class DatedSchedule:
    """Prices that apply from day `start` on, or between two times of each day (`window`), in UTC. `uncounted`: the
    model's prices of quantities that the record does not count."""

    schedule: Schedule
    uncounted: tuple[str, ...] = ()
    start: date | None = None
    window: tuple[time, time] | None = None

    @property
    def label(self) -> str:
        """A text that distinguishes the prices of one model; empty for a price without a condition."""
        since = f"@{self.start}" if self.start else ""
        return since + (f"@{self.window[0]:%H:%M}-{self.window[1]:%H:%M}" if self.window else "")

    def holds(self, at: datetime) -> bool:
        """Whether the prices apply at an instant, given in UTC."""
        if self.start is not None and at.date() < self.start:
            return False
        if self.window is None:
            return True
        begin, end = self.window
        clock = at.time()
        return begin <= clock < end if begin <= end else clock >= begin or clock < end


@dataclass(frozen=True)
class Published:
    """The prices of a model at an instant. `label` distinguishes them from its prices at other times."""

    schedule: Schedule
    uncounted: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class ListedModel:
    """A model of the list. If several of its standard prices hold at a time, the last of them applies."""

    provider: str
    model: str
    source: str
    standard: tuple[DatedSchedule, ...]
    batch: tuple[DatedSchedule, ...]
    context_tokens: int | None = None

    def at(self, at: datetime, mode: Mode) -> Published | None:
        """The prices at an instant; None if the list has none for the time and mode."""
        standard = next((price for price in reversed(self.standard) if price.holds(at)), None)
        if standard is None:
            return None
        if mode is Mode.STANDARD:
            return Published(standard.schedule, standard.uncounted, standard.label)
        variants = [price for price in self.batch if price.holds(at)]
        if not variants:
            return None
        schedule = dict(standard.schedule)  # a kind of token without a batch price keeps its standard price
        for variant in reversed(variants):  # for each kind of token the first variant wins, so it comes last
            schedule.update(variant.schedule)
        return Published(schedule, standard.uncounted, standard.label + "".join(priced.label for priced in variants))


class ListPrices:
    """The published prices of one version of genai-prices."""

    def __init__(self, providers: Iterable[types.Provider], version: str) -> None:
        self.version = version
        self._snapshot = DataSnapshot(providers=list(providers), from_auto_update=False)

    def find(self, provider: str, model: str) -> ListedModel | None:
        """A model by provider id and name; None if the list does not have it."""
        try:
            listed, info = self._snapshot.find_provider_model(model, None, provider, None)
        except LookupError:
            return None
        source = next(iter(listed.pricing_urls or ()), listed.name)
        return ListedModel(listed.id, info.id, source, _standard(info), _batch(info), info.context_window)

    def models(self, provider: str) -> tuple[str, ...]:
        """The ids of all models of a provider; empty if the list does not have the provider."""
        return tuple(
            model.id for listed in self._snapshot.providers if listed.id == provider for model in listed.models
        )


@lru_cache(maxsize=1)
def load_bundled() -> ListPrices:
    """The installed package's prices. The first call takes about 0.1 s and 40 MB."""
    from genai_prices.data import providers  # imported late, because most commands need no list

    return ListPrices(providers, version(PACKAGE))


def _standard(info: types.ModelInfo) -> tuple[DatedSchedule, ...]:
    if isinstance(info.prices, types.ModelPrice):
        return _usable([_dated_schedule(info.prices, None)])
    return _usable([_dated_schedule(price.prices, price.constraint) for price in info.prices])


def _usable(dated: list[DatedSchedule]) -> tuple[DatedSchedule, ...]:
    """The prices that have one for input. Those of image and speech models have none, and price no text call."""
    return tuple(price for price in dated if Meter.INPUT in price.schedule)


def _batch(info: types.ModelInfo) -> tuple[DatedSchedule, ...]:
    return tuple(
        _dated_schedule(price_variant.prices, price_variant.constraint)
        for price_variant in info.price_variants or ()
        if price_variant.when == _BATCH
    )


_Constraint = types.StartDateConstraint | types.TimeOfDateConstraint | None


def _dated_schedule(prices: types.ModelPrice, constraint: _Constraint) -> DatedSchedule:
    schedule, uncounted = _schedule(vars(prices))
    if isinstance(constraint, types.StartDateConstraint):
        return DatedSchedule(schedule, uncounted, start=constraint.start_date)
    if isinstance(constraint, types.TimeOfDateConstraint):
        return DatedSchedule(schedule, uncounted, window=(_clock(constraint.start_time), _clock(constraint.end_time)))
    return DatedSchedule(schedule, uncounted)


def _clock(value: time) -> time:
    """A time of day in UTC; one without a zone is taken as UTC."""
    if value.tzinfo is None:
        return value
    return datetime.combine(date(2000, 1, 1), value).astimezone(UTC).time()


def _schedule(prices: Mapping[str, Decimal | types.TieredPrices | None]) -> tuple[Schedule, tuple[str, ...]]:
    schedule = {_METERS[key]: _steps(price) for key, price in prices.items() if key in _METERS and price is not None}
    return schedule, tuple(key for key in _UNCOUNTED if prices.get(key) is not None)


def _steps(price: Decimal | types.TieredPrices) -> Steps:
    if isinstance(price, Decimal):
        return ((BASE, price),)
    return ((BASE, price.base), *((tier.start, tier.price) for tier in price.tiers))
