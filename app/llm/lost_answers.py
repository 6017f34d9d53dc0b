"""How often one step may ask a model in vain. Pure.

A request that failed before a model worked costs nothing and may be repeated for hours. One whose answer was lost (no
answer in time, a cut connection, half an answer) was probably billed: such failures have a bound of their own. They
are not repeated at the workflow's pace either: a provider that is unreachable looks the same, and is often back in a
minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.config.policy import Losses
from app.domain.errors import AskedInVain, FailureCause, ModelUnavailable

# Between the second such failure of a step and the next request; the policy's longest pause, where that is shorter.
_PAUSE = timedelta(seconds=60)


Objection = AskedInVain | ModelUnavailable


@dataclass(frozen=True)
class Failed:
    """A request of the step that failed: its error, as the journal tells it, and when it ended."""

    error: str
    ended_at: datetime


def objection(component: str, failed: Sequence[Failed], losses: Losses, now: datetime) -> Objection | None:
    """Why the model is not asked once more: the bound is reached, or the pause is not over. None when it may be."""
    billed = sorted(
        (each for each in failed if not FailureCause.told(each.error).no_model_worked), key=lambda each: each.ended_at
    )
    if len(billed) >= losses.billed_attempts:
        return AskedInVain(component, len(billed), FailureCause.told(billed[-1].error).value)
    pause = min(_PAUSE, timedelta(seconds=losses.max_seconds))
    if len(billed) > 1 and now < billed[-1].ended_at + pause:
        return ModelUnavailable(
            f"model component {component}: {len(billed)} answers to this step were lost and probably billed; "
            f"it is asked again later, {pause.total_seconds():.0f} s after the last one"
        )
    return None
