"""Recomputes costs from raw usage and finance's prices with fractions, without any code of the product.

    python recompute.py usage.json|ledger.sqlite prices.yaml

prints for each task its money by currency as a fraction, and under "unknown" the lines that have no amount. Times are
microseconds since 1970. A ledger's usage is in its journal, its steps and its tasks; what was charged is not looked at.
"""

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]
# No model worked if it was said this soon, in microseconds.
FREE = {"breaker_open": 750_000} | dict.fromkeys(
    ("rate_limit", "status", "model_refused", "refused_connection", "sidecar_gone"), 5_000_000
)
STEPS = """SELECT task_id, writes, active_us, task_no, max(min(scheduled_at), started_at) AS at FROM steps
    JOIN tasks USING (task_no) JOIN attempts USING (task_no, step) GROUP BY task_no, step
    HAVING writes AND (tasks.ended_at OR sum(attempts.outcome = 'completed'))"""
ENDS = """SELECT task_id, ended_at AS at, size, events - ifnull(sum(writes), 0) AS writes,
    ifnull(json_extract(parts, '$.active'), 0) - ifnull(sum(active_us), 0) AS active_us
    FROM tasks LEFT JOIN steps USING (task_no) WHERE ended_at GROUP BY task_no"""


def calls_of(rows: list[Row]) -> Iterator[Row]:
    answers = {(row["execution_id"], row["turn"]): row for row in rows if row["state"] == "settled"}
    models = {(row["task_id"], row["component"]): row["model"] for row in rows if row["model"]}
    for row in (row for row in rows if row["state"] != "started"):
        answer = answers.get((row["execution_id"], row["turn"]), {})
        model = row["model"] or answer.get("model") or models.get((row["task_id"], row["component"]), "")
        call = row | {"model": model, "at": row["started_at"], "mode": "standard", "written": None}
        call |= {name: row[f"{name}_tokens"] for name in ("input", "cached", "output")}
        if row["state"] != "settled" and call["input"] is None:
            soon = FREE.get((row["error"] or "").partition(":")[0], -1)
            free = row["ended_at"] is not None and row["ended_at"] - row["started_at"] <= soon
            for name in ("input", "output"):
                known = answer.get(f"{name}_tokens")
                call[name] = 0 if free else row[f"reserve_{name}"] if known is None else known
        yield call


def usage_of(path: str) -> list[Row]:
    if path.endswith(".json"):
        return list(json.loads(Path(path).read_text()))
    with closing(sqlite3.connect(path)) as ledger:
        return usage_in(ledger)


def usage_in(ledger: sqlite3.Connection) -> list[Row]:
    ledger.row_factory = lambda cursor, row: dict(zip([column[0] for column in cursor.description], row, strict=True))
    tasks: Row = {row["task_id"]: {"work": [], "calls": []} for row in ledger.execute("SELECT task_id FROM tasks")}
    for call in calls_of(ledger.execute("SELECT * FROM model_calls ORDER BY started_at").fetchall()):
        tasks[call["task_id"]]["calls"].append(call)
    for row in [*ledger.execute(STEPS), *ledger.execute(ENDS)]:
        work = row | {"seconds": Fraction(row["active_us"], 10**6), "bytes": row.get("size", 0), "logs": 0}
        tasks[row["task_id"]]["work"].append(work)
    return [{"task": task, **used} for task, used in tasks.items()]


def moment(day: date | None) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 10**6 if day else float("inf")


def holding(entries: list[Row], at: int, **wanted: str) -> Row | None:
    for entry in entries:
        same = all(entry[key] == value for key, value in wanted.items())
        if same and moment(entry["from"]) <= at < moment(entry.get("to")):
            return entry
    return None


def call_lines(call: Row, price: Row) -> Iterator[Fraction | None]:
    rates = price["per_million_tokens"]
    for tier in price.get("tiers", ()):
        rates = tier["per_million_tokens"] if (call["input"] or 0) > tier["above_input_tokens"] else rates
    share = 1 - Fraction(price.get("discount_percent", 0)) / 100
    if call["mode"] == "batch":
        share *= 1 - Fraction(price["batch"]["discount_percent"]) / 100
    cached, written = call["cached"] or 0, call["written"] or 0
    plain = None if call["input"] is None else call["input"] - cached - written
    for tokens, name in (
        (plain, "input"),
        (cached, "cached_input"),
        (written, "cache_write"),
        (call["output"], "output"),
    ):
        yield None if tokens is None else Fraction(rates.get(name, rates["input"])) * share * tokens / 10**6


def work_lines(work: Row, tariff: Row, months: str) -> Iterator[Fraction | None]:
    yield Fraction(work["seconds"]) * Fraction(tariff["compute_per_second"])
    yield Fraction(work["writes"]) * Fraction(tariff["writes_per_million"]) / 10**6
    yield Fraction(work["bytes"]) * Fraction(months) * Fraction(tariff["storage_per_gb_month"]) / 10**9
    yield Fraction(work["logs"]) * Fraction(tariff["logs_per_gb"]) / 10**9


def book(sums: Row, price: Row | None, lines: Iterable[Fraction | None]) -> None:
    for amount in lines:
        name = price.get("currency", "USD") if price and amount is not None else "unknown"
        sums[name] = sums.get(name, Fraction(0)) + (1 if amount is None else amount)


def main(usage: list[Row], prices: Row) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, Any]] = {}
    for task in usage:
        sums = result.setdefault(task["task"], {"unknown": 0})
        for work in task["work"]:
            tariff = holding(prices["infrastructure"], work["at"])
            book(sums, tariff, work_lines(work, tariff, prices["retention_months"]) if tariff else [None] * 4)
        for call in task["calls"]:
            price = holding(prices["agreements"], call["at"], provider=call["provider"], model=call["model"])
            reported = [2, call["cached"] is not None, call["written"] is not None]
            lacking = [] if call["input"] == call["output"] == 0 else [None] * sum(reported)
            book(sums, price, call_lines(call, price) if price else lacking)
    return {task: {name: str(value) for name, value in sums.items()} for task, sums in result.items()}


if __name__ == "__main__":
    json.dump(main(usage_of(sys.argv[1]), yaml.safe_load(Path(sys.argv[2]).read_text())), sys.stdout)
