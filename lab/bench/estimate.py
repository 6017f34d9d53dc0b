"""`python -m lab.bench.estimate`: compares our estimate of usage with the sandbox's bill, over all sample tickets.

The figures do not depend on the machine. They are measured against the sandbox, not the real providers: for OpenAI's
protocol it counts as OpenAI documents, for Anthropic's with the tokenizer that Anthropic published for Claude 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.llm import estimate
from app.llm.estimate import PLAIN, Counting
from lab.bench.sampled import ANTHROPIC, OPENAI, BilledCall, Protocol, run_tickets


@dataclass(frozen=True)
class Figures:
    """The error of the estimate for one part of the usage, in percent of the bill; negative if it is too low."""

    protocol: str
    counted: str
    part: str
    calls: int
    billed: int
    of_the_sum: float
    median: float  # this and the next two: of the absolute errors of the calls
    p95: float
    worst: float


def measure_estimates(protocols: Iterable[Protocol] = (OPENAI, ANTHROPIC)) -> list[Figures]:
    """The figures of each protocol. A model family that counts unlike OpenAI is also counted as OpenAI would."""
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        for protocol in protocols:
            billed = run_tickets(protocol, Path(folder))
            own = estimate.counting(protocol.provider, protocol.model)
            figures += _compare(protocol, "as its family", own, billed)
            if own is not PLAIN:
                figures += _compare(protocol, "as OpenAI", PLAIN, billed)
    return figures


def _compare(protocol: Protocol, counted: str, counting: Counting, billed: Sequence[BilledCall]) -> list[Figures]:
    inputs = [
        (estimate.input_tokens(call.call.messages, call.call.tools, counting), call.usage.input) for call in billed
    ]
    outputs = [(estimate.output_tokens(call.answer, counting), call.usage.output) for call in billed]
    sums = [(i[0] + o[0], i[1] + o[1]) for i, o in zip(inputs, outputs, strict=True)]
    parts = {"input": inputs, "output": outputs, "both": sums}
    return [_figures(protocol.wire.NAME, counted, part, pairs) for part, pairs in parts.items()]


def _figures(protocol: str, counted: str, part: str, pairs: Sequence[tuple[int, int]]) -> Figures:
    errors = sorted(abs(_percent(ours, theirs)) for ours, theirs in pairs)
    whole = _percent(sum(ours for ours, _ in pairs), sum(theirs for _, theirs in pairs))
    percentiles = [errors[min(len(errors) - 1, int(len(errors) * share))] for share in (0.5, 0.95, 1)]
    rounded = [round(value, 1) for value in (whole, *percentiles)]
    return Figures(protocol, counted, part, len(pairs), sum(theirs for _, theirs in pairs), *rounded)


def _percent(ours: int, theirs: int) -> float:
    return 100 * (ours - theirs) / theirs


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m lab.bench.estimate", description="Our estimate against the bill.")
    parser.add_argument("--json", action="store_true", help="as JSON instead of a table")
    as_json = parser.parse_args().json
    figures = measure_estimates()
    if as_json:
        sys.stdout.write(json.dumps([asdict(row) for row in figures], indent=1) + "\n")
    else:
        Console(width=120).print(_table(figures))
    return 0


def _table(figures: Sequence[Figures]) -> Table:
    table = Table(title="Error of the estimate in percent of the sandbox's bill")
    for heading in ("protocol", "counted", "tokens", "calls", "billed", "sum", "median", "p95", "worst"):
        table.add_column(heading, justify="left" if heading in ("protocol", "counted", "tokens") else "right")
    for row in figures:
        numbers = (f"{row.of_the_sum:+.1f}", f"{row.median:.1f}", f"{row.p95:.1f}", f"{row.worst:.1f}")
        table.add_row(row.protocol, row.counted, row.part, str(row.calls), f"{row.billed:,}", *numbers)
    return table


if __name__ == "__main__":
    sys.exit(main())
