"""Idempotent entries: each key has one entry in a book, and a repeated request changes nothing.

Callers run `find_entry` and `add_entry` in one transaction; a unique constraint enforces the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sandbox.systems.books import Books, to_text
from sandbox.systems.requests import Answer, ok, refusal

Value = str | int | None


@dataclass(frozen=True)
class Book:
    """A book of entries: its table, the columns that identify an entry's content, and the form of its ids. The columns
    of `unlike` may differ in a repeated request, such as the wording of a letter."""

    table: Literal["refunds", "notifications", "cases", "bookkeeping"]
    columns: tuple[str, ...]
    id_field: str
    id_prefix: str
    unlike: tuple[str, ...] = ()

    def public_id(self, number: int) -> str:
        """The public id of an entry: the prefix and the row number."""
        return f"{self.id_prefix}-{number:06d}"

    def number(self, public_id: str) -> int:
        """The row number of a public id; 0, which no row has, if it is not an id of this book."""
        digits = public_id.removeprefix(f"{self.id_prefix}-")
        number = int(digits) if digits.isdecimal() else 0
        return number if self.public_id(number) == public_id else 0


REFUNDS = Book("refunds", ("ticket_id", "customer_id", "order_id", "amount", "currency"), "refund_id", "RF")
NOTIFICATIONS = Book(
    "notifications",
    ("ticket_id", "customer_id", "outcome", "order_id", "amount", "currency"),
    "notification_id",
    "NT",
    unlike=("text",),
)
CASES = Book("cases", ("ticket_id", "outcome", "refund_id"), "case_id", "CS")
BOOKKEEPING = Book("bookkeeping", ("refund_id", "ticket_id", "order_id", "amount", "currency"), "entry_id", "BK")


def find_entry(books: Books, book: Book, tenant: str, key: str, body: tuple[Value, ...]) -> Answer | None:
    """The answer for a known key: its entry's id, or a conflict if the content differs. None for a new key."""
    row = books.one(f"SELECT * FROM {book.table} WHERE tenant = ? AND idempotency_key = ?", tenant, key)  # noqa: S608 - a table name of ours
    if row is None:
        return None
    public_id = book.public_id(row["id"])
    if tuple(row[column] for column in book.columns) == body[: len(book.columns)]:
        return ok(**{book.id_field: public_id, "created": False})
    return refusal(
        "idempotency_conflict",
        f"key '{key}' already belongs to {public_id} with other content; use another key for another entry",
    )


def add_entry(books: Books, book: Book, tenant: str, key: str, body: tuple[Value, ...], now: datetime) -> Answer:
    """Writes a new entry; the answer has its id."""
    names = ("tenant", "idempotency_key", *book.columns, *book.unlike, "at")
    columns, marks = ", ".join(names), ", ".join("?" for _ in names)
    cursor = books.change(
        f"INSERT INTO {book.table} ({columns}) VALUES ({marks})",  # noqa: S608 - names of ours
        tenant,
        key,
        *body,
        now.isoformat(),
    )
    return ok(**{book.id_field: book.public_id(cursor.lastrowid or 0), "created": True})


# All rows of all books, for tests and reconciliation.

BOOKS: dict[str, Book] = {book.table: book for book in (REFUNDS, NOTIFICATIONS, CASES, BOOKKEEPING)}
EVENTS = {
    "outbox": "SELECT event_id, type, tenant, at, data, delivered_at FROM outbox ORDER BY id",
    "inbox": "SELECT source, event_id, received_at, deliveries FROM inbox ORDER BY received_at, event_id",
}
HOLDS = "holds"
BOOK_NAMES = (*BOOKS, *EVENTS, HOLDS)


def book_rows(books: Books, name: str) -> list[Answer]:
    """All entries of one book, oldest first, with public ids and decimal amounts."""
    if name in EVENTS:
        return [dict(row) for row in books.all(EVENTS[name])]
    if name == HOLDS:
        return [_with_decimal_amount(dict(row)) for row in books.all("SELECT * FROM holds ORDER BY tenant, ticket_id")]
    book = BOOKS[name]
    rows = books.all(f"SELECT * FROM {book.table} ORDER BY id")  # noqa: S608 - a table name of ours
    return [_entry_row(book, dict(row)) for row in rows]


def _entry_row(book: Book, row: Answer) -> Answer:
    number = row.pop("id")
    if not isinstance(number, int):
        raise TypeError(f"{book.table}: row id {number!r} is not a number; the books are damaged")
    return {book.id_field: book.public_id(number), **_with_decimal_amount(row)}


def _with_decimal_amount(row: Answer) -> Answer:
    """The row with its amount as a decimal string."""
    if isinstance(row.get("amount"), int):
        row["amount"] = to_text(int(str(row["amount"])), str(row["currency"]))
    return row
