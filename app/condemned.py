"""Tasks that Dapr condemned although nobody had touched them, begun again.

With history signing, daprd 1.18.2 can take an honest task for a tampered one (dapr#10419): when placement or the
sidecar goes while a turn's steps are handed out, a step's result may come in before the turn that asked for it is
saved. daprd then fails the run for good, since the result belongs to no step that it knows. Nothing of the history was
changed. Such a task is worked again from its ticket; the refund's key and the books see to it that nothing is posted
twice. Any other word about a history that does not verify is left as it is, for people to look into.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable

from app.errors import HistoryTampered, RefundAgentError
from app.ledger.anew import give_up_calls
from app.ledger.writer import Writer

log = logging.getLogger(__name__)

_HONEST = re.compile(r"activity completion references unknown task scheduled id \d+")
# It takes a crash at the worst moment each time; a task that meets it again and again has another trouble.
_MOST = 3


class Condemned:
    """Begins them again; `restart` starts a task's run anew. Thread-safe enough for the one thread that records."""

    def __init__(self, writer: Writer, restart: Callable[[str], None]) -> None:
        self._writer = writer
        self._restart = restart
        self._begun = Counter[str]()

    def begin_again(self, error: HistoryTampered) -> bool:
        """Whether the task was begun again. What its model calls cost was in vain, and is marked so first."""
        task_id = error.instance_id
        if not _HONEST.fullmatch(error.words) or self._begun[task_id] >= _MOST:
            return False
        why = f"the run was given up by Dapr: {error.words}"
        self._writer.run(lambda connection: give_up_calls(connection, task_id, why))
        try:
            self._restart(task_id)
        except RefundAgentError as failure:
            log.warning("task %s: cannot be begun again yet: %s", task_id, failure)
            return False
        self._begun[task_id] += 1
        log.error("task %s: Dapr gave its run up although nobody touched it (%s); begun again", task_id, error.words)
        return True
