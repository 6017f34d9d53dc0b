"""Recomputes costs from raw usage and prices, with fractions: shares no code with the product, and no arithmetic.

    python recompute.py usage.json prices.json

prints for each task its money by currency as a fraction, and under "unknown" the lines that have no amount.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def holding(entries: list[Row], at: str, **wanted: str) -> Row | None:
    for entry in entries:
        same = all(entry[key] == value for key, value in wanted.items())
        if same and entry["from"] <= at and (entry["to"] is None or at < entry["to"]):
            return entry
    return None


def call_lines(call: Row, price: Row) -> Iterator[Fraction | None]:
    rates = price["base"]
    for above, tier in price["tiers"]:
        rates = tier if (call["input"] or 0) > above else rates
    share = 1 - Fraction(price["discount"]) / 100
    if call["mode"] == "batch":
        share *= 1 - Fraction(price["batch"]) / 100
    cached, written = call["cached"] or 0, call["written"] or 0
    plain = None if call["input"] is None else call["input"] - cached - written
    for tokens, name in ((plain, "input"), (cached, "cached"), (written, "written"), (call["output"], "output")):
        rate = rates["input"] if rates[name] is None else rates[name]
        yield None if tokens is None else Fraction(rate) * share * tokens / 10**6


def work_lines(work: Row, tariff: Row, months: str) -> Iterator[Fraction | None]:
    yield Fraction(work["seconds"]) * Fraction(tariff["compute"])
    yield Fraction(work["writes"]) * Fraction(tariff["writes"]) / 10**6
    yield Fraction(work["bytes"]) * Fraction(months) * Fraction(tariff["storage"]) / 10**9
    yield Fraction(work["logs"]) * Fraction(tariff["logs"]) / 10**9


def book(sums: Row, price: Row | None, lines: Iterable[Fraction | None]) -> None:
    for amount in lines:
        name = price["currency"] if price and amount is not None else "unknown"
        sums[name] = sums.get(name, Fraction(0)) + (1 if amount is None else amount)


def main(usage: list[Row], prices: Row) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, Any]] = {}
    for task in usage:
        sums = result.setdefault(task["task"], {"unknown": 0})
        for work in task["work"]:
            tariff = holding(prices["infrastructure"], work["at"])
            book(sums, tariff, work_lines(work, tariff, prices["months"]) if tariff else [None] * 4)
        for call in task["calls"]:
            price = holding(prices["models"], call["at"], provider=call["provider"], model=call["model"])
            reported = [2, call["cached"] is not None, call["written"] is not None]
            book(sums, price, call_lines(call, price) if price else [None] * sum(reported))
    return {task: {name: str(value) for name, value in sums.items()} for task, sums in result.items()}


if __name__ == "__main__":
    json.dump(main(*(json.loads(Path(name).read_text()) for name in sys.argv[1:3])), sys.stdout)
