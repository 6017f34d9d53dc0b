"""Random usage, books and charges for the property tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from app.domain.models import UsageBasis
from app.pricing.book import PriceBook
from app.pricing.charge_types import UNREPORTED, Charge, Mode, Quantity, TokenUsage, Work
from app.pricing.formula import charge_call, charge_work
from tests.pricing.makers import NOW, OPENAI, agreement, origin, price_book

prices = st.decimals("0", "10000", places=6).map(str)
counts = st.one_of(st.integers(0, 3_000), st.integers(0, 10**9))
knowns = st.sampled_from([UsageBasis.REPORTED, UsageBasis.ESTIMATED])


@st.composite
def usages(draw: st.DrawFn, *, whole: bool = False) -> TokenUsage:
    """Any possible usage; with `whole`, all counts are reported."""
    tokens = draw(counts)
    cached = draw(st.integers(0, tokens))
    written = draw(st.integers(0, tokens - cached))
    output = draw(counts)
    usage = TokenUsage(
        input_tokens=tokens,
        output_tokens=output,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=draw(st.integers(0, output)),
        basis=draw(knowns),
    )
    if whole:
        return usage
    lost = draw(st.sets(st.sampled_from(["output_tokens", "cached_tokens", "cache_write_tokens", "input_tokens"])))
    return replace(usage, **dict.fromkeys(lost))  # type: ignore[arg-type]


@st.composite
def token_prices(draw: st.DrawFn) -> dict[str, str]:
    """Prices per million tokens; some kinds may have none."""
    required = {"input": draw(prices), "output": draw(prices)}
    return required | {name: draw(prices) for name in draw(st.sets(st.sampled_from(["cached_input", "cache_write"])))}


@st.composite
def books(draw: st.DrawFn, *, tiers: bool = True) -> PriceBook:
    """A book with prices for `model-a` and `model-b`, each in its own currency, and none for `model-c`."""
    starts = sorted(draw(st.sets(st.integers(1, 3_000), max_size=2))) if tiers else []
    agreed: list[dict[str, Any]] = [
        agreement(
            id=f"price-{name}",
            model=f"model-{name}",
            currency=draw(st.sampled_from(["USD", "EUR"])),
            per_million_tokens=draw(token_prices()),
            tiers=[{"above_input_tokens": start, "per_million_tokens": draw(token_prices())} for start in starts],
            batch={"discount_percent": draw(st.decimals("0", "100", places=3).map(str))},
            discount_percent=draw(st.decimals("0", "100", places=3).map(str)),
        )
        for name in "ab"
    ]
    return price_book(*agreed)


def _quantities(highest: int, places: int) -> st.SearchStrategy[Quantity]:
    values = st.decimals(0, highest, places=places)
    return st.one_of(st.builds(Quantity, values, knowns), st.just(UNREPORTED))


@st.composite
def charges(draw: st.DrawFn, book: PriceBook) -> list[Charge]:
    """Charges of a few tasks of two tenants: calls of two priced models and an unpriced one, and work."""
    drawn: list[Charge] = []
    for number in range(draw(st.integers(0, 8))):
        tenant, task = draw(st.sampled_from(["acme", "globex"])), draw(st.integers(1, 2))
        where = origin(
            tenant=tenant,
            task_id=f"{tenant}:T-{task}",
            stage=draw(st.sampled_from(["classify", "draft_refund"])),
            model=f"model-{draw(st.sampled_from('abc'))}",
            provider=OPENAI,
            at=NOW - timedelta(days=draw(st.integers(0, 2))),
            number=number,
        )
        wasted = draw(st.booleans())
        drawn += charge_call(book, draw(usages()), where, mode=draw(st.sampled_from(Mode)), wasted=wasted)
        work = Work(draw(_quantities(10**6, 6)), draw(_quantities(1000, 0)), draw(_quantities(10**9, 0)))
        drawn += charge_work(book, work, where, wasted=wasted)
    return drawn
