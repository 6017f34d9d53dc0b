"""The price book: finance's agreements on top of the published list, and one digest over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from app.pricing import price_file
from app.pricing.agreements import agreed, discounted_list, matches, suffix
from app.pricing.charge_kinds import Mode
from app.pricing.charge_types import utc
from app.pricing.list_prices import CURRENCY, PACKAGE, ListedModel, ListPrices, bundled
from app.pricing.price_file import NAME, Agreement, Infrastructure, PriceFile
from app.pricing.providers import provider_id
from app.pricing.schedule import NoPrice, Price

_FORMULA = 1  # part of the digest: another way to reckon is another book


@dataclass(frozen=True, eq=False)
class PriceBook:
    """Every price that applies at any time. `where` says in which file and line an id of ours stands."""

    file: PriceFile
    list_prices: ListPrices
    where: Mapping[str, str]
    digest: str
    content: str  # JSON, of which the digest is
    _found: dict[tuple[str, str], tuple[tuple[Agreement, ...], ListedModel | None]] = field(
        default_factory=dict, init=False, repr=False
    )
    _prices: dict[tuple[str, str, str, str | None, Mode], Price] = field(default_factory=dict, init=False, repr=False)

    def find(self, provider: str, model: str, at: datetime, mode: Mode = Mode.STANDARD) -> Price | NoPrice:
        """The price of a model at an instant. Raises ValueError for a time without a zone."""
        at = utc(at)
        agreements, listed = self._candidates(provider, model)
        agreement = next((each for each in agreements if each.holds(at)), None)
        dated = listed.at(at, mode) if listed else None
        key = (provider, model, agreement.id if agreement else "", dated.label if dated else None, mode)
        if key not in self._prices:
            found = self._resolved(provider, model, mode, agreement, at)
            if isinstance(found, NoPrice):
                return found
            self._prices[key] = found
        return self._prices[key]

    def infrastructure(self, at: datetime) -> Infrastructure | None:
        """What compute and keeping the record cost at an instant; the first entry that holds."""
        at = utc(at)
        return next((each for each in self.file.infrastructure if each.holds(at)), None)

    def agreements(self, provider: str, model: str) -> tuple[Agreement, ...]:
        """The agreements whose patterns match, whatever their dates, in the file's order."""
        return self._candidates(provider, model)[0]

    def listed(self, provider: str, model: str) -> ListedModel | None:
        """The model as its provider publishes it."""
        return self._candidates(provider, model)[1]

    def _candidates(self, provider: str, model: str) -> tuple[tuple[Agreement, ...], ListedModel | None]:
        key = (provider, model)
        if key not in self._found:
            agreements = tuple(each for each in self.file.agreements if matches(each, provider, model))
            self._found[key] = (agreements, self.list_prices.find(provider_id(provider), model))
        return self._found[key]

    def _resolved(
        self, provider: str, model: str, mode: Mode, agreement: Agreement | None, at: datetime
    ) -> Price | NoPrice:
        published = self._published(provider, model, mode, at)
        if agreement is None:
            return published
        if agreement.per_million_tokens is None:
            return discounted_list(agreement, published, self.where)
        return agreed(agreement, published, provider, model, mode, self.where)

    def _published(self, provider: str, model: str, mode: Mode, at: datetime) -> Price | NoPrice:
        listed = self.listed(provider, model)
        dated = listed.at(at, mode) if listed else None
        what = f"model {model or '(none)'} of provider {provider or '(none)'}"
        if listed is None or dated is None:
            missing = f"at {at:%Y-%m-%d %H:%M} UTC in mode {mode}" if listed else "under that name"
            return NoPrice(f"{what} is not in {PACKAGE} {self.list_prices.version} {missing}", _remedy(provider, model))
        if dated.uncarried:
            reason = f"{what} is billed by {', '.join(dated.uncarried)} too, which the record does not count"
            return NoPrice(reason, _remedy(provider, model))
        version = f"{PACKAGE}-{self.list_prices.version}"
        return Price(
            id=f"{version}/{listed.provider}/{listed.model}{dated.label}{suffix(mode)}",
            provider=listed.provider,
            model=model,
            mode=mode,
            currency=CURRENCY,
            contracted=dated.schedule,
            listed=dated.schedule,
            source=f"{version}: {listed.source}",
            checked=self.file.list_prices.checked,
        )


def load(path: Path) -> PriceBook:
    """The book of finance's file at `path` over the installed list. Raises ConfigurationError."""
    document = price_file.read(path)
    sections = {"agreements": document.value.agreements, "infrastructure": document.value.infrastructure}
    where = {
        dated.id: document.where(section, number, "id")
        for section, entries in sections.items()
        for number, dated in enumerate(entries)
    }
    return make(document.value, bundled(), where)


def make(file: PriceFile, list_prices: ListPrices, where: Mapping[str, str] | None = None) -> PriceBook:
    """A book of what was read already."""
    content = {
        "formula": _FORMULA,
        "list": [PACKAGE, list_prices.version],
        "file": file.model_dump(mode="json", by_alias=True),
    }
    text = json.dumps(content, sort_keys=True)
    return PriceBook(file, list_prices, where or {}, hashlib.sha256(text.encode()).hexdigest(), text)


def again(content: str) -> PriceBook | None:
    """The book of a `content` that was kept; None when the list that it is over, or the formula, is another by now."""
    found = make(PriceFile.model_validate(json.loads(content)["file"], strict=False), bundled())
    return found if found.content == content else None


def _remedy(provider: str, model: str) -> str:
    return f"add an agreement for provider {provider or '*'} and model {model or '*'} to config/{NAME}"
