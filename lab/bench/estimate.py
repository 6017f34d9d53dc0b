"""`python -m lab.bench.estimate`: how far our estimate of usage is from the sandbox's bill, over all sample tickets.

The figures depend on no machine. They are measured against the sandbox, which counts OpenAI's protocol as OpenAI says
it counts and Anthropic's with the tokenizer that Anthropic published for Claude 2: not against the real providers.
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
from lab.bench.sampled import ANTHROPIC, OPENAI, Billed, Protocol, work


@dataclass(frozen=True)
class Figures:
    """The error of one part of the usage, in percent of the bill; below zero is too little."""

    protocol: str
    counted: str
    part: str
    calls: int
    billed: int
    of_the_sum: float
    median: float  # of the calls' errors without their sign, like the next two
    p95: float
    worst: float


def measured(protocols: Iterable[Protocol] = (OPENAI, ANTHROPIC)) -> list[Figures]:
    """The figures of each protocol; where a family counts unlike OpenAI, also those of counting it as OpenAI does."""
    found: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        for protocol in protocols:
            billed = work(protocol, Path(folder))
            own = estimate.counting(protocol.provider, protocol.model)
            found += _of(protocol, "as its family", own, billed)
            if own is not PLAIN:
                found += _of(protocol, "as OpenAI", PLAIN, billed)
    return found


def _of(protocol: Protocol, counted: str, by: Counting, billed: Sequence[Billed]) -> list[Figures]:
    asked = [(estimate.input_tokens(call.call.messages, call.call.tools, by), call.usage.input) for call in billed]
    said = [(estimate.output_tokens(call.answer, by), call.usage.output) for call in billed]
    both = [(a[0] + s[0], a[1] + s[1]) for a, s in zip(asked, said, strict=True)]
    parts = {"input": asked, "output": said, "both": both}
    return [_figures(protocol.wire.NAME, counted, part, pairs) for part, pairs in parts.items()]


def _figures(protocol: str, counted: str, part: str, pairs: Sequence[tuple[int, int]]) -> Figures:
    errors = sorted(abs(_percent(ours, theirs)) for ours, theirs in pairs)
    whole = _percent(sum(ours for ours, _ in pairs), sum(theirs for _, theirs in pairs))
    at = [errors[min(len(errors) - 1, int(len(errors) * share))] for share in (0.5, 0.95, 1)]
    rounded = [round(value, 1) for value in (whole, *at)]
    return Figures(protocol, counted, part, len(pairs), sum(theirs for _, theirs in pairs), *rounded)


def _percent(ours: int, theirs: int) -> float:
    return 100 * (ours - theirs) / theirs


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m lab.bench.estimate", description="Our estimate against a bill.")
    parser.add_argument("--json", action="store_true", help="as JSON instead of a table")
    as_json = parser.parse_args().json
    found = measured()
    if as_json:
        sys.stdout.write(json.dumps([asdict(each) for each in found], indent=1) + "\n")
    else:
        Console(width=120).print(_table(found))
    return 0


def _table(found: Sequence[Figures]) -> Table:
    table = Table(title="Error of the estimate in percent of the sandbox's bill")
    for heading in ("protocol", "counted", "tokens", "calls", "billed", "sum", "median", "p95", "worst"):
        table.add_column(heading, justify="left" if heading in ("protocol", "counted", "tokens") else "right")
    for result in found:
        numbers = (f"{result.of_the_sum:+.1f}", f"{result.median:.1f}", f"{result.p95:.1f}", f"{result.worst:.1f}")
        table.add_row(result.protocol, result.counted, result.part, str(result.calls), f"{result.billed:,}", *numbers)
    return table


if __name__ == "__main__":
    sys.exit(main())
