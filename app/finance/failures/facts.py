"""What the ledger tells of failures: frozen values, one for each failure, and sums of charges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from app.pricing.charge_types import Charge

INTERRUPTED = "interrupted"  # a failure of this kind was a crash; of any other, an attempt that ended with an error


class Role(StrEnum):
    """What a sum of charges stands for. All but the first two were paid once and would have been paid again."""

    CLEAN = "clean"  # charges that are no reruns
    RERUN = "rerun"  # work in vain
    REPLAY = "replay"  # of steps that were completed before the failure: their results came from history
    JOURNAL = "journal"  # of answers that a repeated execution of their step found in the journal
    UNDER_WAY = "under_way"  # of calls that were begun before, and brought their steps' answers themselves


class Spent(NamedTuple):
    """Model spend of a failure's task in one currency, in weights: before the failure, and in all. No reruns."""

    currency: str
    before: int
    clean: int


def progress_of(spent: Sequence[Spent], *, whole: bool) -> Decimal | None:
    """How much of its clean model spend a task had paid, from 0 to 1. None where that is not known: it spent nothing,
    or in several currencies; or it is not the `whole`, since a price or a usage is not known."""
    if not whole or len(spent) != 1 or not spent[0].clean:
        return None
    return Decimal(spent[0].before) / Decimal(spent[0].clean)


class Failure(NamedTuple):
    """One failure of a task that has ended.

    restarts: a runner without a record would have begun again here. progress: see `progress_of`; None where nothing
    restarts. spent: one for each currency.
    """

    task: int
    tenant: str
    stage: str
    kind: str
    cause: str
    restarts: bool
    progress: Decimal | None
    spent: tuple[Spent, ...]

    @property
    def crash(self) -> bool:
        """Whether the process went away, rather than an attempt ending with an error."""
        return self.kind == INTERRUPTED


class Vain(NamedTuple):
    """Model spend in vain of one task, stage and currency, in weights."""

    task: int
    tenant: str
    stage: str
    currency: str
    spent: int


class Sum(NamedTuple):
    """Charges that equal each other in role, price and so on, as one, and how many they are.

    Their stage is that of the failed step for what was prevented, else their own. crash: of a crash's restart.
    """

    role: Role
    crash: bool
    charge: Charge
    times: int


@dataclass(frozen=True)
class Facts:
    """All that the figures are made of, for the tasks that ended in a period. `ended`: how many, by tenant."""

    ended: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    vain: Sequence[Vain] = ()
    sums: Sequence[Sum] = ()
