"""The replies to customers that the model drafted: history carries their digest, the text lies here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine, bindparam, select

from app.domain.errors import TaskNotFound
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.tables import REPLIES
from app.ledger.store.writer import Writer

# Built once: composing a statement costs more than running it.
_TEXT = select(REPLIES.c.text).where(
    REPLIES.c.task_id == bindparam("the_task"), REPLIES.c.digest == bindparam("the_digest")
)


class Replies:
    """Reads and writes the replies table. Thread-safe."""

    def __init__(self, engine: Engine, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock

    def keep(self, task_id: str, text: str) -> str:
        """Keeps a reply and returns its digest. Keeping the same text again changes nothing."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        row = {"task_id": task_id, "digest": digest, "text": text, "written_at": self._clock()}
        # A step that was executed again finds its reply here already.
        self._writer.run(lambda connection: connection.execute(insert_or_ignore(connection, REPLIES), row).rowcount)
        return digest

    def get(self, task_id: str, digest: str) -> str:
        """The text of a reply. Raises TaskNotFound when it is not here (another ledger, or past retention)."""
        with self._engine.connect() as connection:
            text = connection.execute(_TEXT, {"the_task": task_id, "the_digest": digest}).scalar_one_or_none()
        if text is None:
            raise TaskNotFound(
                f"task {task_id}: reply {digest[:12]} is not in this ledger; check REFUND_AGENT_LEDGER_URL"
            )
        return str(text)
