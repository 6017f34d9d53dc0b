"""What a model call used that settled nothing: failed, or begun by an execution that is gone. Pure.

Nobody tells what such a call used, and unknown is not zero. It is zero only where the failure proves that no model
worked; elsewhere it is what the step's own answer used, since that was the same question, and before there is one it
is the reserve that was written ahead of the call.
"""

from __future__ import annotations

from datetime import timedelta

from app.domain.errors import FailureCause
from app.domain.models import UsageBasis
from app.pricing.call_record import CallRecord
from app.pricing.charge_types import TokenUsage

# Nobody told us whether the sidecar repeats calls (docs/operations.md). Where it does, two refusals and its pause
# between them take less than this; a call that lasted longer may hold an earlier request, unseen by us, that timed out
# after the model had worked.
_TURNED_AWAY_WITHIN = timedelta(seconds=5)
# Shorter than that pause, longer than a busy machine takes to be refused: a breaker that refused later than this
# refused the repetition of a request that had left, and how that one failed, nobody says.
_REFUSED_AT_ONCE_WITHIN = timedelta(milliseconds=750)

NOTHING = TokenUsage(0, 0, known=UsageBasis.ESTIMATED)


def lost_usage(call: CallRecord, settled: CallRecord | None) -> TokenUsage:
    """What `call`, failed or interrupted, used or may have used; `settled` is the call that answered the same turn of
    the same step, if one has.

    An estimate, always; but an answer that came too late to settle anything keeps the usage it came with.
    """
    if call.usage.input_tokens is not None:
        return call.usage
    if _never_worked_on(call):
        return NOTHING
    known = settled.usage if settled else call.usage
    return TokenUsage(
        call.reserve_input if known.input_tokens is None else known.input_tokens,
        call.reserve_output if known.output_tokens is None else known.output_tokens,
        known=UsageBasis.ESTIMATED,
    )


def _never_worked_on(call: CallRecord) -> bool:
    cause = FailureCause.told(call.error)
    within = _REFUSED_AT_ONCE_WITHIN if cause is FailureCause.BREAKER_OPEN else _TURNED_AWAY_WITHIN
    return call.ended_at is not None and call.ended_at - call.started_at <= within and cause.no_model_worked
