"""What a model call used that settled nothing: failed, or begun by an execution that is gone. Pure.

Nobody tells what such a call used, and unknown is not zero. It is zero only where the failure proves that no model
worked; elsewhere it is what the step's own answer used, since that was the same question, and before there is one it
is the reserve that was written ahead of the call.
"""

from __future__ import annotations

from datetime import timedelta

from app.cost.calls import CallRecord
from app.cost.values import Usage
from app.errors import FailureCause
from app.models import Known

# Being turned away takes milliseconds, and the sidecar's pauses between its quick repeats stay below this. A call that
# lasted longer may hold an earlier request, unseen by us, that timed out after the model had worked.
_TURNED_AWAY_WITHIN = timedelta(seconds=5)

NOTHING = Usage(0, 0, known=Known.ESTIMATED)


def lost_usage(call: CallRecord, settled: CallRecord | None) -> Usage:
    """What `call`, failed or interrupted, used or may have used; `settled` is the call that answered the same turn of
    the same step, if one has.

    An estimate, always; but an answer that came too late to settle anything keeps the usage it came with.
    """
    if call.usage.input_tokens is not None:
        return call.usage
    if _never_worked_on(call):
        return NOTHING
    known = settled.usage if settled else call.usage
    return Usage(
        call.reserve_input if known.input_tokens is None else known.input_tokens,
        call.reserve_output if known.output_tokens is None else known.output_tokens,
        known=Known.ESTIMATED,
    )


def _never_worked_on(call: CallRecord) -> bool:
    if call.ended_at is None or call.ended_at - call.started_at > _TURNED_AWAY_WITHIN:
        return False
    return FailureCause.told(call.error).no_model_worked
