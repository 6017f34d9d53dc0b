"""Prints the verdicts of the runs side by side, and writes them as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.chaos.tokens import Excess
from lab.chaos.verdict import Verdict

CLEAN, FAULTS, WITHOUT_JOURNAL = "without faults", "with faults", "with faults, without the journal"
TWO_WORKERS = "two workers with a sidecar each"


def show(console: Console, machine_facts: Mapping[str, str], runs: Mapping[str, Verdict]) -> None:
    """Prints all tables, then the occurrences of the checks that are not zero."""
    for name, value in machine_facts.items():
        console.print(f"{name:>20}  {value}", highlight=False)
    console.print(_table("What happened", runs, _event_rows(runs)))
    console.print(_table("What must be zero", runs, _check_rows(runs)))
    console.print(_table("Tokens: the provider's bill beyond that of the run without faults", runs, _token_rows(runs)))
    for name, verdict in runs.items():
        for check in verdict.broken:
            console.print(f"{name}: {check.count} {check.title}", style="red", highlight=False)
            for example in check.examples:
                console.print(f"    {example}", markup=False, highlight=False, soft_wrap=True)
    saved = prevented_calls(runs)
    if saved is not None:
        calls, tokens = saved
        console.print(f"Paid model calls that the journal prevented: {calls:,} ({tokens:,} tokens)", highlight=False)


def prevented_calls(runs: Mapping[str, Verdict]) -> tuple[int, int] | None:
    """Model calls and tokens that were paid again only without the journal; None if there is no such run."""
    if not {FAULTS, WITHOUT_JOURNAL} <= runs.keys():
        return None
    with_, without = runs[FAULTS].tokens, runs[WITHOUT_JOURNAL].tokens
    again = Excess.PAID_AGAIN
    calls = without.excess_requests.get(again, 0) - with_.excess_requests.get(again, 0)
    return calls, without.excess.get(again, 0) - with_.excess.get(again, 0)


def as_json(
    machine_facts: Mapping[str, str], options: Mapping[str, Any], runs: Mapping[str, Verdict]
) -> dict[str, Any]:
    """The machine, the options and all verdicts as JSON values."""
    return {
        "machine": dict(machine_facts),
        "options": dict(options),
        "held": all(verdict.held for verdict in runs.values()),
        "runs": {name: _verdict_json(verdict) for name, verdict in runs.items()},
    }


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Writes the document into a file, whose folder is created if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    spent = verdict.tokens
    resume = verdict.resume_seconds
    return {
        "held": verdict.held,
        "tasks": verdict.tasks,
        "seconds": round(verdict.seconds, 1),
        "killed": dict(verdict.killed),
        "frozen": dict(verdict.frozen),
        "started_again_by_the_supervisor": dict(verdict.unplanned_restarts),
        "must_be_zero": {
            check.key: {"title": check.title, "count": check.count, "found": list(check.examples)}
            for check in verdict.checks
        },
        "tokens": {
            "billed": spent.billed,
            "billed_without_faults": spent.clean,
            "excess": spent.billed - spent.clean,
            "excess_by_cause": {cause.name.lower(): count for cause, count in spent.excess.items() if count},
            "requests": spent.requests,
            "requests_without_faults": spent.clean_requests,
            "excess_requests_by_cause": {
                cause.name.lower(): count for cause, count in spent.excess_requests.items() if count
            },
        },
        "executions": verdict.executions,
        "executions_repeated": verdict.repeated,
        "handed_out_again_before_saved": verdict.unsaved_repeats,
        "answered_by_journal": {"calls": verdict.journal_answers[0], "tokens": verdict.journal_answers[1]},
        "resume_seconds": None if resume is None else {"median": round(resume[0], 2), "longest": round(resume[1], 2)},
        "resume_seconds_of_record": [round(time.from_record, 3) for time in verdict.resume_times],
        "spent": _money(verdict.spent),
        "wasted": _money(verdict.wasted),
    }


def _event_rows(runs: Mapping[str, Verdict]) -> Iterator[tuple[str, ...]]:
    verdicts = list(runs.values())
    yield "tasks", *(f"{verdict.tasks:,}" for verdict in verdicts)
    yield "seconds", *(f"{verdict.seconds:.0f}" for verdict in verdicts)
    for name in dict.fromkeys(name for verdict in verdicts for name in verdict.killed):
        yield f"{name} killed", *(str(verdict.killed.get(name, 0)) for verdict in verdicts)
    for name in dict.fromkeys(name for verdict in verdicts for name in verdict.frozen):
        yield f"{name} frozen", *(str(verdict.frozen.get(name, 0)) for verdict in verdicts)
    yield "ended by itself, restarted", *(_counts(verdict.unplanned_restarts) for verdict in verdicts)
    yield "executions of steps", *(f"{verdict.executions:,}" for verdict in verdicts)
    yield "  of these, repeated", *(f"{verdict.repeated:,}" for verdict in verdicts)
    yield "  with a result that was not saved yet", *(f"{verdict.unsaved_repeats:,}" for verdict in verdicts)
    yield "model answers from the journal", *(_journal_cell(verdict) for verdict in verdicts)
    yield "new worker at its first step, median s", *(_seconds(verdict, 0) for verdict in verdicts)
    yield "new worker at its first step, longest s", *(_seconds(verdict, 1) for verdict in verdicts)
    yield "spent", *(_format_money(verdict.spent) for verdict in verdicts)
    yield "  of this, wasted", *(_format_money(verdict.wasted) for verdict in verdicts)


def _check_rows(runs: Mapping[str, Verdict]) -> Iterator[tuple[str, ...]]:
    keys = dict.fromkeys((check.key, check.title) for verdict in runs.values() for check in verdict.checks)
    for key, title in keys:
        counts = [{check.key: check.count for check in verdict.checks} for verdict in runs.values()]
        yield title, *(str(count[key]) if key in count else "" for count in counts)


def _token_rows(runs: Mapping[str, Verdict]) -> Iterator[tuple[str, ...]]:
    spent = [verdict.tokens for verdict in runs.values()]
    yield "billed", *(f"{tokens.billed:,} in {tokens.requests:,} requests" for tokens in spent)
    yield "beyond the run without faults", *(f"{tokens.billed - tokens.clean:,}" for tokens in spent)
    for cause in Excess:
        if any(tokens.excess.get(cause) for tokens in spent):
            cells = (f"{tokens.excess.get(cause, 0):,} in {tokens.excess_requests.get(cause, 0)}" for tokens in spent)
            yield f"  {cause.value}", *cells


def _table(title: str, runs: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in runs:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "0"


def _journal_cell(verdict: Verdict) -> str:
    calls, tokens = verdict.journal_answers
    return f"{calls:,} ({tokens:,} tokens)" if calls else "0"


def _seconds(verdict: Verdict, position: int) -> str:
    resume = verdict.resume_seconds
    return "" if resume is None else f"{resume[position]:.2f}"


def _money(sums: Mapping[str, Decimal]) -> dict[str, str]:
    return {currency: f"{amount:f}" for currency, amount in sorted(sums.items())}


def _format_money(sums: Mapping[str, Decimal]) -> str:
    return ", ".join(f"{amount:.4f} {currency}" for currency, amount in sorted(sums.items())) or "0"
