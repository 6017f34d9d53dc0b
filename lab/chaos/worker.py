"""The product's worker with a journal that never answers, to show what crashes cost without the journal.

python -m lab.chaos.worker     replaces `python -m app serve`

The journal writes its rows as usual, so that record and bill can be compared. A repeated execution finds no answer in
it, so the model is called, and paid, again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from app import bootstrap
from app.config import settings
from app.domain.models import CallState
from app.ledger.store.tables import MODEL_CALLS
from app.ledger.store.writer import run
from app.llm.call import ModelCall, Reserve
from app.llm.journal import Journal, SettledCall

_THIS_STEP = and_(MODEL_CALLS.c.execution_id == bindparam("the_step"), MODEL_CALLS.c.turn == bindparam("the_turn"))
_COUNT = select(func.count()).select_from(MODEL_CALLS).where(_THIS_STEP)
_CLOSE_LEFT = (
    update(MODEL_CALLS)
    .where(_THIS_STEP, MODEL_CALLS.c.state == CallState.STARTED)
    .values(state=CallState.INTERRUPTED, error="the step was executed again")
)
_OPEN = insert(MODEL_CALLS)


class SilentJournal(Journal):
    """A journal that stores calls and returns no answer."""

    async def begin(
        self, call: ModelCall, component: str, provider: str, reserve: Reserve, *_: Any, **__: Any
    ) -> str | SettledCall:
        """Opens a row, even if the turn was settled before."""
        row = self._row(call, component, reserve) | {"provider": provider}
        return await self._writer.write(lambda connection: _open_row(connection, row))


def _open_row(connection: Connection, row: dict[str, Any]) -> str:
    step = {"the_step": row["execution_id"], "the_turn": row["turn"]}
    connection.execute(_CLOSE_LEFT, step)
    before: int = connection.execute(_COUNT, step).scalar_one()
    run(connection, _OPEN, row | {"number": before + 1})
    return str(row["call_id"])


def main() -> None:
    """Serves until it is stopped."""
    assert hasattr(bootstrap, "Journal"), "app.bootstrap has no Journal to replace"  # noqa: S101
    vars(bootstrap)["Journal"] = SilentJournal
    bootstrap.serve(settings.load())


if __name__ == "__main__":
    main()
