"""One run's figures: what must be zero, what the faults cost, how quickly work went on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from statistics import median

from lab.chaos.checks import Check, answered_again, checks, handed_out_twice
from lab.chaos.evidence import Evidence, Restart, Row
from lab.chaos.plan import VICTIMS
from lab.chaos.tokens import Tokens, tokens

# What the journal alone prevents: without it, these are counted and not demanded.
ONLY_WITH_JOURNAL = ("answers_paid_again",)


@dataclass(frozen=True)
class Resumed:
    """After the worker alone was killed: seconds from its new process's start until it worked at its first step, and
    how much of that came after it had written itself into the record."""

    from_start: float
    from_record: float


@dataclass(frozen=True)
class Verdict:
    """What a run proves. `held`: nothing was found of what must be zero.

    killed, frozen: how often each process was. helped: how often one was started again that nobody had killed.
    repeated: executions of an attempt beyond its first. handed_out_twice: those that began when the result had reached
    the sidecar and was not in the history yet. journal_answers: executions that found their answer in the journal, and
    the tokens that these answers had cost. spent, wasted: money by currency, the latter of work that was done again.
    """

    tasks: int
    seconds: float
    killed: Mapping[str, int]
    frozen: Mapping[str, int]
    helped: Mapping[str, int]
    checks: tuple[Check, ...]
    tokens: Tokens
    executions: int
    repeated: int
    handed_out_twice: int
    resumed: tuple[Resumed, ...]
    journal_answers: tuple[int, int]
    spent: Mapping[str, Decimal]
    wasted: Mapping[str, Decimal]

    @property
    def held(self) -> bool:
        """Whether all that must be zero is."""
        return not self.broken

    @property
    def broken(self) -> tuple[Check, ...]:
        """The checks that found something."""
        return tuple(check for check in self.checks if check.count)

    @property
    def resume_seconds(self) -> tuple[float, float] | None:
        """Median and longest, from the new process's start; None when none was seen."""
        seen = [each.from_start for each in self.resumed]
        return (median(seen), max(seen)) if seen else None

    def check(self, key: str) -> Check:
        """The check of that key."""
        return next(check for check in self.checks if check.key == key)


def judge(evidence: Evidence, clean_bill: Sequence[Row], *, journal: bool = True) -> Verdict:
    """The verdict on one run; `clean_bill` is what the same tickets cost without faults. Without the journal, what only
    the journal prevents is left out of what must be zero; `tokens` still tells it."""
    counted = tokens(evidence, clean_bill)
    found = (*checks(evidence), *counted.checks)
    killed = Counter(restart.name for restart in evidence.restarts)
    return Verdict(
        tasks=len(evidence.tickets),
        seconds=evidence.seconds,
        killed={name: killed[name] for name in dict.fromkeys((*VICTIMS, *sorted(killed)))},
        frozen=evidence.frozen,
        helped=evidence.helped,
        checks=tuple(check for check in found if journal or check.key not in ONLY_WITH_JOURNAL),
        tokens=counted,
        executions=len(evidence.executions),
        repeated=sum(execution.number > 1 for execution in evidence.executions),
        handed_out_twice=handed_out_twice(evidence),
        resumed=resumed(evidence),
        journal_answers=_answered_again(evidence) if journal else (0, 0),
        spent=evidence.spent,
        wasted=evidence.wasted,
    )


def resumed(evidence: Evidence) -> tuple[Resumed, ...]:
    """How quickly each new worker was at work, where it was the only process that had been killed."""
    first: dict[str, datetime] = {}
    for execution in evidence.executions:
        first[execution.worker] = min(execution.started_at, first.get(execution.worker, execution.started_at))
    found = []
    for restart in evidence.restarts:
        if restart.name != "worker" or not restart.alone:
            continue
        later = [worker for worker in evidence.workers if worker.started_at >= restart.started_at]
        new = min(later, key=lambda worker: worker.started_at, default=None)
        if new is not None and new.worker in first:
            begun = first[new.worker]
            found.append(Resumed(_seconds(restart, begun), (begun - new.started_at).total_seconds()))
    return tuple(found)


def _seconds(restart: Restart, until: datetime) -> float:
    return (until - restart.started_at).total_seconds()


def _answered_again(evidence: Evidence) -> tuple[int, int]:
    found = answered_again(evidence)
    return len(found), sum((call.usage.input_tokens or 0) + (call.usage.output_tokens or 0) for call in found)
