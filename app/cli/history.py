"""`refund-agent task history TASK`: Dapr's own history of a task, event by event, as the sidecar returns it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PlainSerializer

from app.cli.client import AsJson
from app.cli.screen import Column, ColumnKind, Wide, figures, say, show_json, show_table
from app.cli.tasks import TaskId
from app.domain.formatting import clock_time, day
from app.domain.models import Frozen

if TYPE_CHECKING:
    from app.dapr.history.entries import Event

_COLUMNS = [
    Column("event", ColumnKind.FIGURE),
    Column("turn", ColumnKind.FIGURE, spare=2),
    Column("day", common=True),
    Column("at (UTC)"),
    Column("kind"),
    Column("name"),
    *figures("attempt"),
    Column("id", ColumnKind.FIGURE, spare=1),
    Column("ends", ColumnKind.FIGURE, spare=3),
    Column("error"),
    *figures("bytes"),
    Column("execution", spare=4),
]


class EventView(Frozen, from_attributes=True, serialize_by_alias=True):
    """The JSON form of one event."""

    number: int
    turn: int
    at: Annotated[datetime, PlainSerializer(datetime.isoformat, return_type=str)]
    kind: str
    name: str
    event_id: int | None
    ends: int | None
    attempt: int | None
    execution_id: str
    error: str
    size: int = Field(serialization_alias="bytes")


class HistoryView(Frozen):
    """The JSON form of a task's history."""

    task_id: str
    events: tuple[EventView, ...]


def history(task_id: TaskId, wide: Wide = False, as_json: AsJson = False) -> None:
    """Shows Dapr's own history of a task, event by event, as daprd verifies it: times, steps, attempts, ids and sizes;
    no texts."""
    events = _read_events(task_id)
    if as_json:
        show_json(HistoryView(task_id=task_id, events=tuple(map(EventView.model_validate, events))))
        return
    show_table(_COLUMNS, map(_row, events))
    say(f"{len(events):,} events, {sum(event.size for event in events):,} bytes")


def _read_events(task_id: str) -> tuple[Event, ...]:
    from app.config.settings import load
    from app.dapr.history.entries import list_events
    from app.dapr.history.reader import HistoryReader

    with HistoryReader(load().daprd) as reader:
        return list_events(reader.events(task_id))


def _row(event: Event) -> tuple[str, ...]:
    return (
        str(event.number),
        str(event.turn),
        day(event.at),
        clock_time(event.at),
        event.kind,
        event.name,
        str(event.attempt or ""),
        "" if event.event_id is None else str(event.event_id),
        "" if event.ends is None else str(event.ends),
        event.error,
        f"{event.size:,}",
        event.execution_id,
    )
