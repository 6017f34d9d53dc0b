"""Several writers on one file, and a writer that is killed: the books stay right."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from sandbox.systems import entries, orders, refunds
from sandbox.systems.books import Books
from sandbox.systems.requests import Answer, GetOrder, PostRefund

POST_FOR_EVER = """
import itertools, sys
from datetime import UTC, datetime
from pathlib import Path
from sandbox.systems import refunds
from sandbox.systems.requests import PostRefund
from sandbox.systems.books import Books
books = Books(Path(sys.argv[1]))
for number in itertools.count():
    body = {"idempotency_key": f"k-{number}", "tenant": "bench", "ticket_id": f"T-{number}",
            "customer_id": f"load-{number:05d}", "order_id": f"LD-{number:05d}", "amount": "7.00",
            "currency": "EUR"}
    answer = refunds.post(books, PostRefund.model_validate(body), datetime.now(UTC))
    print(answer["refund_id"], flush=True)
"""
POSTS_BEFORE_THE_KILL = 100


def _post(path: Path, key: str, ticket_id: str, now: datetime, answers: list[Answer]) -> None:
    books = Books(path)
    body = {
        "idempotency_key": key,
        "tenant": "shop",
        "ticket_id": ticket_id,
        "customer_id": "ada",
        "order_id": "S-1",
        "amount": "10.00",
        "currency": "EUR",
    }
    answers.append(refunds.post(books, PostRefund.model_validate(body), now))
    books.close()


def _post_all(path: Path, posts: list[tuple[str, str]], now: datetime) -> list[Answer]:
    """Posts under these keys, for these tickets, all at once."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=_post, args=(path, *post, now, answers)) for post in posts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_many_connections_with_one_key_are_one_refund(books_path: Path, now: datetime) -> None:
    answers = _post_all(books_path, [("same", "T-1")] * 20, now)
    assert [answer["ok"] for answer in answers] == [True] * 20
    assert sum(answer["created"] is True for answer in answers) == 1


def test_many_connections_with_a_key_each_are_one_refund_of_one_ticket(books_path: Path, now: datetime) -> None:
    answers = _post_all(books_path, [(f"k-{n}", "T-1") for n in range(20)], now)
    assert sum(answer["ok"] is True for answer in answers) == 1
    assert {answer["code"] for answer in answers if not answer["ok"]} == {"ticket_already_refunded"}


def test_many_connections_never_give_back_more_than_was_charged(books_path: Path, now: datetime) -> None:
    answers = _post_all(books_path, [(f"k-{n}", f"T-{n}") for n in range(20)], now)
    assert sum(answer["ok"] is True for answer in answers) == 4  # 40.50 were charged


def test_a_killed_writer_leaves_every_answered_refund_and_no_half_one(tmp_path: Path, now: datetime) -> None:
    path = tmp_path / "systems.sqlite"
    command = [sys.executable, "-c", POST_FOR_EVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        answered = [writer.stdout.readline().strip() for _ in range(POSTS_BEFORE_THE_KILL)]
        writer.kill()
        answered += writer.stdout.read().split()
    books = Books(path)
    rows = entries.book_rows(books, "refunds")
    assert {row["refund_id"] for row in rows} >= {name for name in answered if len(name) == len("RF-000001")}
    for row in rows:
        body = GetOrder(tenant="bench", customer_id=str(row["customer_id"]), order_id=str(row["order_id"]))
        order = orders.get_order(books, body, now)["order"]
        assert isinstance(order, dict)
        assert Decimal(order["refunded"]) == Decimal("7.00")
    raised = books.one("SELECT count(*) AS orders FROM orders WHERE refunded > 0")
    assert raised is not None
    assert raised["orders"] == len(rows)
    books.close()
