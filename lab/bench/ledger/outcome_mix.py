"""What becomes of a ticket, and how often. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from app.domain.models import Outcome


class Fate(StrEnum):
    """How a task goes."""

    ANSWERED = "answered"
    DECLINED = "declined"
    REFUNDED = "refunded"
    APPROVED = "approved"  # refunded, after a person was waited for
    REJECTED = "rejected"
    EXPIRED = "expired"
    TERMINATED = "terminated"  # by a person, while it waited for another one
    FAILED = "failed"  # the workflow's own code

    @property
    def waits(self) -> bool:
        """Whether a person is waited for."""
        return self in (Fate.APPROVED, Fate.REJECTED, Fate.EXPIRED, Fate.TERMINATED)

    @property
    def looks_up(self) -> bool:
        """Whether the draft needs the books, and so two turns."""
        return self is not Fate.ANSWERED


@dataclass(frozen=True)
class _Share:
    fate: Fate
    percent: float
    outcome: Outcome | None


_SHARES = (
    _Share(Fate.ANSWERED, 41, Outcome.ANSWERED),
    _Share(Fate.DECLINED, 14, Outcome.DECLINED),
    _Share(Fate.REFUNDED, 26, Outcome.REFUNDED),
    _Share(Fate.APPROVED, 12, Outcome.REFUNDED),
    _Share(Fate.REJECTED, 4, Outcome.REJECTED),
    _Share(Fate.EXPIRED, 2.6, Outcome.EXPIRED),
    _Share(Fate.TERMINATED, 0.3, None),
    _Share(Fate.FAILED, 0.1, None),
)
_WEIGHTS = [share.percent for share in _SHARES]
OUTCOMES = {share.fate: share.outcome for share in _SHARES}


def fate(chance: random.Random) -> Fate:
    """One of them."""
    return chance.choices(_SHARES, _WEIGHTS)[0].fate
