"""What providers publish, from the bundled data of genai-prices; the only file that imports it.

genai-prices guesses where we must not: a misspelt price context silently means standard, a price without an active
condition falls back to the first one. So its data is read, and the choice is made here.
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
_LINES = {
    "input_mtok": Meter.INPUT,
    "cache_read_mtok": Meter.CACHED_INPUT,
    "cache_write_mtok": Meter.CACHE_WRITE,
    "output_mtok": Meter.OUTPUT,
}
# Each call of a model with such a price costs more than its tokens, by a quantity that Dapr does not report.
_UNCARRIED = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")
_BATCH = {"processing": "batch"}


@dataclass(frozen=True)
class DatedSchedule:
    """Prices that hold from a day on, or between two times of each day, in UTC."""

    schedule: Schedule
    uncarried: tuple[str, ...] = ()
    start: date | None = None
    window: tuple[time, time] | None = None

    @property
    def label(self) -> str:
        """Tells the prices of one model apart; the ones without a condition have none."""
        since = f"@{self.start}" if self.start else ""
        return since + (f"@{self.window[0]:%H:%M}-{self.window[1]:%H:%M}" if self.window else "")

    def holds(self, at: datetime) -> bool:
        """Whether they hold at that instant, given in UTC."""
        if self.start is not None and at.date() < self.start:
            return False
        if self.window is None:
            return True
        begin, end = self.window
        clock = at.time()
        return begin <= clock < end if begin <= end else clock >= begin or clock < end


@dataclass(frozen=True)
class Published:
    """The prices of a model at an instant; `label` tells them from its prices at other times."""

    schedule: Schedule
    uncarried: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class ListedModel:
    """A model as its provider lists it. Of several standard prices that hold, the last one applies."""

    provider: str
    model: str
    source: str
    standard: tuple[DatedSchedule, ...]
    batch: tuple[DatedSchedule, ...]

    def at(self, at: datetime, mode: Mode) -> Published | None:
        """The prices at that instant; `None` when the list has none for it."""
        standard = next((price for price in reversed(self.standard) if price.holds(at)), None)
        if standard is None:
            return None
        if mode is Mode.STANDARD:
            return Published(standard.schedule, standard.uncarried, standard.label)
        variants = [price for price in self.batch if price.holds(at)]
        if not variants:
            return None
        schedule = dict(standard.schedule)  # what has no batch price costs what it always does
        for variant in reversed(variants):  # the first of them goes before the others, for each kind of token
            schedule.update(variant.schedule)
        return Published(schedule, standard.uncarried, standard.label + "".join(priced.label for priced in variants))


class ListPrices:
    """The published prices of one version of the package."""

    def __init__(self, providers: Iterable[types.Provider], version: str) -> None:
        self.version = version
        self._snapshot = DataSnapshot(providers=list(providers), from_auto_update=False)

    def find(self, provider: str, model: str) -> ListedModel | None:
        """The model of that provider id; `None` when the list does not know it."""
        try:
            found, info = self._snapshot.find_provider_model(model, None, provider, None)
        except LookupError:
            return None
        source = next(iter(found.pricing_urls or ()), found.name)
        return ListedModel(found.id, info.id, source, _standard(info), _batch(info))

    def models(self, provider: str) -> tuple[str, ...]:
        """The ids of all models of a provider; none for one that the list does not know."""
        return tuple(
            model.id for listed in self._snapshot.providers if listed.id == provider for model in listed.models
        )


@lru_cache(maxsize=1)
def bundled() -> ListPrices:
    """The installed package's prices (about 0.1 s and 40 MB the first time)."""
    from genai_prices.data import providers  # late: whoever only adds up charges needs no list

    return ListPrices(providers, version(PACKAGE))


def _standard(info: types.ModelInfo) -> tuple[DatedSchedule, ...]:
    if isinstance(info.prices, types.ModelPrice):
        return _usable([_dated(info.prices, None)])
    return _usable([_dated(price.prices, price.constraint) for price in info.prices])


def _usable(dated: list[DatedSchedule]) -> tuple[DatedSchedule, ...]:
    """Without a price for input (an image or speech model) nothing can be said about a text call."""
    return tuple(price for price in dated if Meter.INPUT in price.schedule)


def _batch(info: types.ModelInfo) -> tuple[DatedSchedule, ...]:
    return tuple(
        _dated(price_variant.prices, price_variant.constraint)
        for price_variant in info.price_variants or ()
        if price_variant.when == _BATCH
    )


_Constraint = types.StartDateConstraint | types.TimeOfDateConstraint | None


def _dated(prices: types.ModelPrice, constraint: _Constraint) -> DatedSchedule:
    schedule, uncarried = _schedule(vars(prices))
    if isinstance(constraint, types.StartDateConstraint):
        return DatedSchedule(schedule, uncarried, start=constraint.start_date)
    if isinstance(constraint, types.TimeOfDateConstraint):
        return DatedSchedule(schedule, uncarried, window=(_clock(constraint.start_time), _clock(constraint.end_time)))
    return DatedSchedule(schedule, uncarried)


def _clock(value: time) -> time:
    """The time of day in UTC; one without a zone is in UTC already."""
    if value.tzinfo is None:
        return value
    return datetime.combine(date(2000, 1, 1), value).astimezone(UTC).time()


def _schedule(prices: Mapping[str, Decimal | types.TieredPrices | None]) -> tuple[Schedule, tuple[str, ...]]:
    schedule = {_LINES[key]: _steps(price) for key, price in prices.items() if key in _LINES and price is not None}
    return schedule, tuple(key for key in _UNCARRIED if prices.get(key) is not None)


def _steps(price: Decimal | types.TieredPrices) -> Steps:
    if isinstance(price, Decimal):
        return ((BASE, price),)
    return ((BASE, price.base), *((tier.start, tier.price) for tier in price.tiers))
