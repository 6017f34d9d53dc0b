"""The verdict on one run: the checks that must be zero, the cost of the faults, and how soon work continued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from statistics import median

from lab.chaos.checks import Check, checks, count_unsaved_repeats, find_repeated_answers
from lab.chaos.evidence import Evidence, Row
from lab.chaos.plan import VICTIMS
from lab.chaos.tokens import Tokens, compare_bills

# Checks of faults that only the journal prevents; they are left out if the journal is off.
ONLY_WITH_JOURNAL = ("answers_paid_again",)


@dataclass(frozen=True)
class ResumeTime:
    """Seconds until a new worker started its first step, after only the worker had been killed.

    from_start: since the start of its process; from_record: since it registered itself in the ledger.
    """

    from_start: float
    from_record: float


@dataclass(frozen=True)
class Verdict:
    """The results of a run.

    killed, frozen, unplanned_restarts: counts by process. repeated: executions of an attempt beyond its first.
    unsaved_repeats: executions that started after the sidecar had the result and before it was in the history.
    journal_answers: the number of executions that the journal answered, and the tokens of these answers. spent, wasted:
    money by currency.
    """

    tasks: int
    seconds: float
    killed: Mapping[str, int]
    frozen: Mapping[str, int]
    unplanned_restarts: Mapping[str, int]
    checks: tuple[Check, ...]
    tokens: Tokens
    executions: int
    repeated: int
    unsaved_repeats: int
    resume_times: tuple[ResumeTime, ...]
    journal_answers: tuple[int, int]
    spent: Mapping[str, Decimal]
    wasted: Mapping[str, Decimal]

    @property
    def held(self) -> bool:
        """Whether all checks are zero."""
        return not self.broken

    @property
    def broken(self) -> tuple[Check, ...]:
        """The checks that are not zero."""
        return tuple(check for check in self.checks if check.count)

    @property
    def resume_seconds(self) -> tuple[float, float] | None:
        """Median and maximum of the times from the process's start; None without any."""
        times = [time.from_start for time in self.resume_times]
        return (median(times), max(times)) if times else None

    def check(self, key: str) -> Check:
        """The check with that key."""
        return next(check for check in self.checks if check.key == key)


def judge(evidence: Evidence, clean_bill: Sequence[Row], *, journal: bool = True) -> Verdict:
    """The verdict on one run. `clean_bill` is the bill of the same tickets without faults.

    With `journal` False, `ONLY_WITH_JOURNAL` is left out of the checks; `tokens` still counts these calls.
    """
    tokens = compare_bills(evidence, clean_bill)
    all_checks = (*checks(evidence), *tokens.checks)
    killed = Counter(restart.name for restart in evidence.restarts)
    return Verdict(
        tasks=len(evidence.tickets),
        seconds=evidence.seconds,
        killed={name: killed[name] for name in dict.fromkeys((*VICTIMS, *sorted(killed)))},
        frozen=evidence.frozen,
        unplanned_restarts=evidence.unplanned_restarts,
        checks=tuple(check for check in all_checks if journal or check.key not in ONLY_WITH_JOURNAL),
        tokens=tokens,
        executions=len(evidence.executions),
        repeated=sum(execution.number > 1 for execution in evidence.executions),
        unsaved_repeats=count_unsaved_repeats(evidence),
        resume_times=resume_times(evidence),
        journal_answers=_journal_answers(evidence) if journal else (0, 0),
        spent=evidence.spent,
        wasted=evidence.wasted,
    )


def resume_times(evidence: Evidence) -> tuple[ResumeTime, ...]:
    """The resume time of each new worker that replaced one killed alone."""
    first: dict[str, datetime] = {}
    for execution in evidence.executions:
        first[execution.worker] = min(execution.started_at, first.get(execution.worker, execution.started_at))
    times = []
    for restart in evidence.restarts:
        if restart.name != "worker" or not restart.alone:
            continue
        later = [worker for worker in evidence.workers if worker.started_at >= restart.started_at]
        new = min(later, key=lambda worker: worker.started_at, default=None)
        if new is not None and new.worker in first:
            at_work = first[new.worker]
            from_start = (at_work - restart.started_at).total_seconds()
            times.append(ResumeTime(from_start, (at_work - new.started_at).total_seconds()))
    return tuple(times)


def _journal_answers(evidence: Evidence) -> tuple[int, int]:
    calls = find_repeated_answers(evidence)
    return len(calls), sum((call.usage.input_tokens or 0) + (call.usage.output_tokens or 0) for call in calls)
