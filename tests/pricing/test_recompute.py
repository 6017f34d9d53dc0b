"""A thousand random tasks, priced by the product and by an independent script."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from app.pricing.book import PriceBook
from app.pricing.charge_types import Charge, Mode, Quantity, TokenUsage, Work
from app.pricing.formula import charge_call, charge_work
from tests.pricing.makers import OPENAI, agreement, origin, price_book, tariff

SCRIPT = Path(__file__).parent / "recompute.py"
CHANGE = dt.date(2026, 7, 1)
START = datetime(2026, 1, 1, tzinfo=UTC)


def random_price(dice: random.Random) -> str:
    return str(Decimal(dice.randint(1, 10**6)).scaleb(-dice.randint(2, 6)))


def random_tokens(dice: random.Random) -> dict[str, str]:
    optional = [name for name in ("cached_input", "cache_write") if dice.random() < 0.7]
    return {name: random_price(dice) for name in ("input", "output", *optional)}


def random_model(dice: random.Random, number: int, begins: dt.date, ends: dt.date | None) -> dict[str, Any]:
    """An agreement as finance writes it."""
    starts = sorted(dice.sample(range(1, 20_000), dice.randint(0, 2)))
    base = random_tokens(dice)
    extra = {"to": ends} if ends else {}
    return extra | agreement(
        **{"from": begins},
        id=f"model-{number}-{begins}",
        model=f"model-{number}",
        currency=dice.choice(["USD", "EUR"]),
        per_million_tokens=base,
        # Of the same kinds as the base: what a tier leaves out is another test's business.
        tiers=[
            {"above_input_tokens": start, "per_million_tokens": {name: random_price(dice) for name in base}}
            for start in starts
        ],
        batch={"discount_percent": str(dice.randint(0, 100))},
        discount_percent=str(Decimal(dice.randint(0, 9999)) / 100),
    )


def random_moment(dice: random.Random) -> int:
    """In microseconds since 1970."""
    return int((START + timedelta(minutes=dice.randint(0, 500_000))).timestamp()) * 10**6


def moment(microseconds: int) -> datetime:
    """The same time as the product uses it."""
    return datetime.fromtimestamp(microseconds // 10**6, UTC)


def random_call(dice: random.Random, boundaries: list[int]) -> dict[str, Any]:
    tokens = dice.choice([dice.randint(0, 25_000), dice.choice(boundaries) + dice.randint(0, 1)])
    cached = dice.choice([None, dice.randint(0, tokens)])
    return {
        "at": random_moment(dice),
        "provider": OPENAI,
        "model": f"model-{dice.randint(0, 10)}",  # the last one has no price
        "mode": dice.choice(["standard", "batch"]),
        "input": None if dice.random() < 0.05 else tokens,
        "cached": cached,
        "written": dice.choice([None, dice.randint(0, tokens - (cached or 0))]),
        "output": None if dice.random() < 0.05 else dice.randint(0, 5_000),
    }


def random_work(dice: random.Random) -> dict[str, Any]:
    return {
        "at": random_moment(dice),
        "seconds": str(Decimal(dice.randint(0, 10**9)).scaleb(-6)),
        "writes": str(dice.randint(0, 60)),
        "bytes": str(dice.randint(0, 4_000_000)),
        "logs": str(dice.randint(0, 100_000)),
    }


def charged(book: PriceBook, task: dict[str, Any]) -> list[Charge]:
    """The product's charges of a task."""
    charges: list[Charge] = []
    for call in task["calls"]:
        usage = TokenUsage(
            input_tokens=call["input"],
            output_tokens=call["output"],
            cached_tokens=call["cached"],
            cache_write_tokens=call["written"],
        )
        where = origin(task_id=task["task"], model=call["model"], at=moment(call["at"]))
        charges += charge_call(book, usage, where, mode=Mode(call["mode"]))
    for work in task["work"]:
        parts = (Quantity(Decimal(work[name])) for name in ("seconds", "writes", "bytes", "logs"))
        charges += charge_work(book, Work(*parts), origin(task_id=task["task"], at=moment(work["at"])))
    return charges


def sums(charges: list[Charge]) -> dict[str, Fraction]:
    """Sums by currency, added here and not by the product; under `unknown`, the number of lines without amount."""
    by_currency: dict[str, Fraction] = defaultdict(Fraction)
    by_currency["unknown"] = Fraction(0)
    for charge in charges:
        name = "unknown" if charge.contracted_cost is None or charge.currency is None else charge.currency
        by_currency[name] += Fraction(1) if charge.contracted_cost is None else Fraction(charge.contracted_cost)
    return dict(by_currency)


def test_a_thousand_random_tasks_cost_the_same_by_an_independent_computation(tmp_path: Path) -> None:
    dice = random.Random(20_261_122)
    agreed = [random_model(dice, number, START.date(), CHANGE) for number in range(10)]
    agreed += [random_model(dice, number, CHANGE, None) for number in range(10)]
    cloud = tariff()
    boundaries = [tier["above_input_tokens"] for entry in agreed for tier in entry["tiers"]]
    tasks = [
        {
            "task": f"acme:T-{number}",
            "calls": [random_call(dice, boundaries) for _ in range(dice.randint(0, 6))],
            "work": [random_work(dice) for _ in range(dice.randint(0, 3))],
        }
        for number in range(1000)
    ]
    prices = {"retention_months": "1.5", "agreements": agreed, "infrastructure": [cloud]}
    (tmp_path / "usage.json").write_text(json.dumps(tasks))
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(prices))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "usage.json"), str(tmp_path / "prices.yaml")],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = {
        task: {name: Fraction(value) for name, value in money.items()}
        for task, money in json.loads(done.stdout).items()
    }
    book = price_book(*agreed, retention_months="1.5", infrastructure=[cloud])
    ours = {str(task["task"]): sums(charged(book, task)) for task in tasks}
    assert len(theirs) == 1000
    assert sum(money["unknown"] for money in theirs.values()) > 100
    assert sum(money.get("EUR", 0) for money in theirs.values()) > 0
    assert ours == theirs
