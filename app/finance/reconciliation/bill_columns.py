"""What the columns of a bill in CSV are called, by OpenAI, by Anthropic and by people; and what none can be. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.finance.reconciliation.bill import BadBill

# Each of ours with the other names that it goes by.
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "time": ("timestamp", "datetime", "created", "created_at", "request_time"),
    "date": ("day", "usage_date", "usage_date_utc", "date_utc"),
    "hour": ("usage_hour", "hour_utc"),
    "start": ("start_time_iso", "start_time", "starting_at", "period_start"),
    "end": ("end_time_iso", "end_time", "ending_at", "period_end"),
    "model": ("model_name", "model_id", "model_version", "line_item"),
    "provider": ("vendor",),
    "requests": (
        "num_model_requests",
        "num_requests",
        "n_requests",
        "request_count",
        "model_requests",
    ),
    "input_tokens": ("prompt_tokens", "tokens_in", "input", "total_input_tokens", "n_context_tokens_total"),
    "uncached_tokens": ("uncached_input_tokens", "input_tokens_no_cache", "usage_input_tokens_no_cache"),
    "cached_tokens": ("input_cached_tokens", "cached_input_tokens", "prompt_cached_tokens", "cached"),
    "read_tokens": ("cache_read_input_tokens", "cache_read_tokens", "usage_input_tokens_cache_read"),
    "written_tokens": ("cache_creation_input_tokens", "cache_write_tokens", "usage_input_tokens_cache_write"),
    "written_5m_tokens": ("usage_input_tokens_cache_write_5m", "ephemeral_5m_input_tokens"),
    "written_1h_tokens": ("usage_input_tokens_cache_write_1h", "ephemeral_1h_input_tokens"),
    "output_tokens": ("completion_tokens", "tokens_out", "output", "usage_output_tokens", "n_generated_tokens_total"),
    "cost": ("amount", "amount_value", "total_cost", "cost_total", "charge"),
    "currency": ("amount_currency", "cost_currency"),
}
# Money in a column that names its currency: cost_usd, `Cost (EUR)`, `Amount in USD`.
_MONEY = re.compile(r"(?:cost|amount|total_cost|charge)_(?:in_)?([a-z]{3})")
_CURRENCIES = frozenset(
    "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD INR JPY KRW MXN NOK NZD PLN SEK SGD USD ZAR".split()  # noqa: SIM905
)
# Columns whose quantity stands in another one as well.
_INSIDE = frozenset(
    {
        *("total_tokens", "input_uncached_tokens", "input_text_tokens", "output_text_tokens"),
        *("input_cached_text_tokens", "reasoning_tokens", "output_reasoning_tokens"),
    }
)
_QUANTITY = re.compile(
    r"token|request|count|quantity|audio|image|search|character|second|minute|cost|amount|price|fee|tax"
)
_MOST_COLUMNS = 500
# Columns that the exports of one provider have, all of them, and nobody else's.
_SIGNATURES = (
    (frozenset({"start_time_iso", "end_time_iso", "num_model_requests", "input_cached_tokens"}), "openai"),
    (frozenset({"start_time_iso", "end_time_iso", "amount_value", "amount_currency", "line_item"}), "openai"),
    (frozenset({"usage_date_utc", "usage_output_tokens"}), "anthropic"),
    (frozenset({"usage_date_utc", "token_type", "context_window"}), "anthropic"),
)
# Where a second name adds nothing that counts.
_SAID_TWICE = frozenset({"start", "end", "model", "provider"})
_OF_TIME = frozenset({"time", "date", "hour", "start"})
HEADER = (
    "time (or date, hour), model, input_tokens, output_tokens, and perhaps cached_tokens, requests, provider, cost_usd"
)


@dataclass(frozen=True)
class Columns:
    """The columns of a table: `known` tells where each of ours stands, `currency` what its money is in if its name
    says so, `unread` which were not looked at."""

    names: tuple[str, ...]
    known: Mapping[str, int]
    currency: str
    unread: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether the table holds tokens."""
        return "output_tokens" in self.known

    @property
    def provider(self) -> str:
        """Whose export it is, when its columns are those of one; empty when they may be anybody's."""
        names = frozenset(self.names)
        return next((whose for columns, whose in _SIGNATURES if columns <= names), "")

    def quantity(self, name: str) -> bool:
        """Whether an unread column looks like a quantity that stands nowhere else."""
        return bool(_QUANTITY.search(name)) and name not in _INSIDE and not name.endswith(("_id", "_name"))


def plain_name(cell: str) -> str:
    """A column's name without capitals, spaces, hyphens and brackets."""
    return re.sub(r"[^a-z0-9]+", "_", cell.strip().lower()).strip("_")


def columns_of(name: str, place: str, header: Sequence[str]) -> Columns:
    """What the columns are. Raises BadBill when one is missing, doubled, or may be two things."""
    names = tuple(plain_name(cell) for cell in header)
    if len(names) > _MOST_COLUMNS:
        raise BadBill(
            name, place, f"{len(names)} columns are more than any bill has", "export it again, one row a line"
        )
    twice = sorted(each for each, times in Counter(names).items() if each and times > 1)
    if twice:
        raise BadBill(name, place, f"columns {twice[:5]} stand twice", "name each column once")
    known: dict[str, int] = {}
    currency = ""
    for index, each in enumerate(names):
        money = _MONEY.fullmatch(each)
        if money and money[1].upper() in _CURRENCIES and "cost" not in known:
            known["cost"], currency = index, money[1].upper()
    for ours, aliases in _ALIASES.items():
        found = [each for each in (ours, *aliases) if each in names]
        if len(found) > 1 and ours not in _SAID_TWICE:
            raise BadBill(name, place, f"columns {found[0]} and {found[1]} mean the same", "leave one of them out")
        if found and ours not in known:
            known[ours] = names.index(found[0])
    _refuse_unclear(name, place, known, names)
    _refuse_missing(name, place, known, header)
    read = set(known.values())
    twins = {alias for ours in ("start", "end") for alias in _ALIASES[ours]}  # OpenAI gives each time twice
    unread = tuple(each for index, each in enumerate(names) if each and index not in read and each not in twins)
    return Columns(names, known, currency, unread)


def _refuse_unclear(name: str, place: str, known: Mapping[str, int], names: Sequence[str]) -> None:
    apart = [
        each for each in ("read_tokens", "written_tokens", "written_5m_tokens", "written_1h_tokens") if each in known
    ]
    if apart and "input_tokens" in known and "uncached_tokens" not in known:
        whole, piece = names[known["input_tokens"]], names[known[apart[0]]]
        raise BadBill(
            name,
            place,
            f"{whole} may hold what {piece} counts (as OpenAI means it), or leave it out (as Anthropic does)",
            f"name it uncached_input_tokens where it leaves it out; else name {piece} cached_tokens",
        )


def _refuse_missing(name: str, place: str, known: Mapping[str, int], header: Sequence[str]) -> None:
    lacks: list[str] = []
    if "cost" not in known or {"input_tokens", "uncached_tokens", "output_tokens"} & set(known):
        lacks += [each for each in ("input_tokens", "output_tokens") if each not in known]
        if "uncached_tokens" in known and "input_tokens" in lacks:
            lacks.remove("input_tokens")
        lacks += ["model"] if "model" not in known else []
    lacks += ["time"] if not _OF_TIME & set(known) else []
    if lacks:
        given = ",".join(header)
        raise BadBill(name, place, f"header {given!r:.200} lacks {', '.join(lacks)}", f"head it {HEADER}")
