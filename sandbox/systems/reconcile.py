"""The books laid open, for tests and for reconciling: every row with all its columns. Reads only."""

from __future__ import annotations

from sandbox.systems.answers import Answer
from sandbox.systems.entries import BOOKKEEPING, CASES, NOTIFICATIONS, REFUNDS, Book
from sandbox.systems.money import to_text
from sandbox.systems.order_books import Books

BOOKS: dict[str, Book] = {book.table: book for book in (REFUNDS, NOTIFICATIONS, CASES, BOOKKEEPING)}
EVENTS = {
    "outbox": "SELECT event_id, type, tenant, at, data, delivered_at FROM outbox ORDER BY id",
    "inbox": "SELECT source, event_id, received_at, deliveries FROM inbox ORDER BY received_at, event_id",
}
HOLDS = "holds"
NAMES = (*BOOKS, *EVENTS, HOLDS)


def rows(books: Books, name: str) -> list[Answer]:
    """All entries of one book, oldest first, with the ids and amounts as they are known outside."""
    if name in EVENTS:
        return [dict(row) for row in books.all(EVENTS[name])]
    if name == HOLDS:
        return [_in_words(dict(row)) for row in books.all("SELECT * FROM holds ORDER BY tenant, ticket_id")]
    book = BOOKS[name]
    found = books.all(f"SELECT * FROM {book.table} ORDER BY id")  # noqa: S608 - a table name of ours
    return [_row(book, dict(row)) for row in found]


def _row(book: Book, row: Answer) -> Answer:
    number = row.pop("id")
    if not isinstance(number, int):
        raise TypeError(f"{book.table}: row id {number!r} is not a number; the books are damaged")
    return {book.id_field: book.public_id(number), **_in_words(row)}


def _in_words(row: Answer) -> Answer:
    """The row with its amount as a decimal string."""
    if isinstance(row.get("amount"), int):
        row["amount"] = to_text(int(str(row["amount"])), str(row["currency"]))
    return row
