"""The log of people's decisions about tasks: who decided what and when, and the result; refused attempts included.

A decision is saved before it is sent to the task. The task determines the result, which is saved by the first to read
it: the service that waits for it, a reader, or the projector at the task's end.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, func, select, update

from app.domain import decision_texts
from app.domain.models import Decision, DecisionState, DecisionView, Refund, SettledDecision
from app.domain.redaction import redact
from app.ledger.store.database import insert_or_ignore
from app.ledger.store.tables import DECISIONS
from app.ledger.store.writer import Writer

MAX_NOTE_CHARACTERS = 500
# The most refused attempts that are saved for a task, so that a client that repeats them cannot fill the table.
_MAX_ATTEMPTS = 100

_OF_TASK = (
    select(DECISIONS).where(DECISIONS.c.task_id == bindparam("the_task")).order_by(DECISIONS.c.at, DECISIONS.c.sequence)
)
_ATTEMPTS = (
    select(func.count())
    .select_from(DECISIONS)
    .where(DECISIONS.c.task_id == bindparam("the_task"), DECISIONS.c.question.is_(None))
)
_SETTLED = ("state", "code", "order_id", "amount", "currency", "most", "most_currency", "settled_at")
_SETTLE = (
    update(DECISIONS)
    .where(
        DECISIONS.c.decision_id == bindparam("this"), DECISIONS.c.state.in_(bindparam("from_states", expanding=True))
    )
    .values({name: bindparam(name) for name in _SETTLED})
)
# The states that a result may replace. A refusal also replaces an acceptance, because the books may refuse a refund
# that the earlier check accepted.
_OPEN = (DecisionState.HANDED_OVER.value,)
_OPEN_TO_REFUSAL = (DecisionState.HANDED_OVER.value, DecisionState.ACCEPTED.value)


class Decisions:
    """Reads and writes the log. Thread-safe; every write is one committed transaction."""

    def __init__(self, engine: Engine, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock

    def record(self, task_id: str, decision: Decision, note: str, reason: str = "") -> None:
        """Saves a decision before it is sent to its task. `reason`: why the person was asked. The note is redacted."""
        row = self._row(task_id, decision, note, DecisionState.HANDED_OVER, "") | {"reason": reason[:300]}
        self._writer.run(lambda connection: _insert(connection, row))

    def record_refusal(self, task_id: str, decision: Decision, note: str, code: str) -> None:
        """Saves an attempt that was refused before it reached the task; `code` says why."""
        row = self._row(task_id, decision, note, DecisionState.REFUSED, code)
        row["settled_at"] = row["at"]

        def insert(connection: Connection) -> None:
            if connection.execute(_ATTEMPTS, {"the_task": task_id}).scalar_one() < _MAX_ATTEMPTS:
                _insert(connection, row)

        self._writer.run(insert)

    def settle(self, task_id: str, settled: Sequence[SettledDecision]) -> None:
        """Saves the results of decisions. Those without an id were raised by hand; the projector adds them from the
        history."""
        views = [view_of(task_id, decision) for decision in settled if decision.decision_id]
        if views:
            self._writer.run(lambda connection: keep(connection, task_id, views))

    def of(self, task_id: str) -> tuple[DecisionView, ...]:
        """All decisions about a task, including refused attempts, oldest first."""
        with self._engine.connect() as connection:
            return read(connection, task_id)

    def _row(self, task_id: str, decision: Decision, note: str, state: DecisionState, code: str) -> dict[str, Any]:
        return {
            "decision_id": decision.decision_id,
            "task_id": task_id,
            "question": decision.question,
            "at": self._clock(),
            "decided_by": decision.by,
            "verdict": decision.verdict,
            **_money(decision.refund),
            "note": _clean(note),
            "state": state.value,
            "code": code,
            "most": None,
            "most_currency": None,
            "settled_at": None,
            "reason": "",
        }


def keep(connection: Connection, task_id: str, views: Iterable[DecisionView]) -> None:
    """Inserts missing decisions and saves the results of those without one. Repeating it changes nothing; the first
    result stays, except that a refusal replaces an acceptance."""
    for view in views:
        row = {
            "decision_id": view.decision_id,
            "task_id": task_id,
            "question": view.question,
            "at": datetime.fromisoformat(view.at),
            "decided_by": view.by,
            "verdict": view.verdict,
            **_money(view.refund),
            "note": "",
            "state": view.state.value,
            "code": view.code,
            "most": None if view.most is None else str(view.most),
            "most_currency": view.currency,
            "settled_at": datetime.fromisoformat(view.settled_at) if view.settled_at else None,
            "reason": view.reason[:300],
        }
        _insert(connection, row)
        if view.state is not DecisionState.HANDED_OVER:
            states = _OPEN_TO_REFUSAL if view.state is DecisionState.REFUSED else _OPEN
            # Only these: SQLAlchemy would also write the value of any other column's name.
            changes = {name: row[name] for name in _SETTLED}
            connection.execute(_SETTLE, changes | {"this": view.decision_id, "from_states": states})


def read(connection: Connection, task_id: str) -> tuple[DecisionView, ...]:
    """The decisions about a task, oldest first."""
    return tuple(_view(row) for row in connection.execute(_OF_TASK, {"the_task": task_id}).mappings())


def view_of(task_id: str, settled: SettledDecision, said_at: str | None = None) -> DecisionView:
    """The view of a decision and its result, as a task reports them. `said_at`: when the decision was made, if known
    more precisely than in `settled`."""
    said_at = said_at or settled.at
    return DecisionView(
        decision_id=settled.decision_id or _derived_id(task_id, said_at),
        at=said_at,
        by=settled.by,
        verdict=settled.verdict,
        question=settled.question,
        refund=settled.refund,
        state=settled.state,
        code=settled.code,
        most=settled.most,
        currency=settled.currency,
        words=decision_texts.words(settled.state, settled.code, settled.refund, settled.most, settled.currency),
        settled_at=None if settled.state is DecisionState.HANDED_OVER else settled.at,
        reason=settled.reason,
    )


def _derived_id(task_id: str, at: str) -> str:
    """An id for a decision that has none because its event was raised by hand; stable for the same task and time."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{task_id}|{at}"))


def _insert(connection: Connection, row: dict[str, Any]) -> None:
    connection.execute(insert_or_ignore(connection, DECISIONS), row)


def _money(refund: Refund | None) -> dict[str, str | None]:
    if refund is None:
        return {"order_id": None, "amount": None, "currency": None}
    return {"order_id": refund.order_id, "amount": str(refund.amount), "currency": refund.currency}


def _clean(note: str) -> str:
    """The note redacted, shortened, and without characters that a database or a terminal cannot show."""
    plain = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in note)
    return redact(plain.strip())[:MAX_NOTE_CHARACTERS]


def _view(row: Any) -> DecisionView:
    state = DecisionState(row["state"])
    most = None if row["most"] is None else Decimal(row["most"])
    refund = (
        Refund(order_id=row["order_id"], amount=Decimal(row["amount"]), currency=row["currency"])
        if row["amount"]
        else None
    )
    return DecisionView(
        decision_id=row["decision_id"],
        at=_iso(row["at"]),
        by=row["decided_by"],
        verdict=row["verdict"],
        question=row["question"],
        refund=refund,
        note=row["note"],
        state=state,
        code=row["code"],
        most=most,
        currency=row["most_currency"],
        words=decision_texts.words(state, row["code"], refund, most, row["most_currency"]),
        settled_at=_iso(row["settled_at"]) if row["settled_at"] else None,
        reason=row["reason"],
    )


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
