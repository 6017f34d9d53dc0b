"""The process that closes cases and sends events is killed at any moment: no event is lost, none is booked twice."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from runtime.loopback import free_ports
from tests.sandbox.systems.makers import case_body, refund_body

# The consumer fails as well, and loses answers: another seed in each life.
SERVER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from aiohttp import web
from sandbox.faults import Fault, FaultBook, FaultKind
from sandbox.systems import BOOKKEEPING_PATH, create_app
folder, port, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
faults = FaultBook()
for kind in (FaultKind.STATUS, FaultKind.CUT, FaultKind.MALFORMED):
    faults.add(Fault(target="bookkeeping", kind=kind, share=0.2, count=5, seed=seed))
app = create_app(folder, faults, lambda: datetime.now(UTC), f"http://127.0.0.1:{port}{BOOKKEEPING_PATH}")
web.run_app(app, host="127.0.0.1", port=port, print=None)
"""
KILLS, TICKETS = 4, 40
LONGEST_FUSE_SECONDS = 0.01  # about what a refund and its case take
LIMIT_SECONDS = 30.0


class Victim:
    """The internal systems as a process of their own."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self._lives = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)

    def start(self) -> None:
        """Begins a life, and waits until it answers."""
        self._lives += 1
        command = [sys.executable, "-c", SERVER, str(self._folder), str(self.port), str(self._lives)]
        self._process = subprocess.Popen(command)
        until(lambda: self.ask("GET", "/healthz") is not None, "the server starts")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        """Ends all."""
        self.kill()
        self._http.close()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """One request; None when no answer came."""
        try:
            return dict(self._http.request(method, path, json=body).raise_for_status().json())
        except httpx.TransportError:
            return None

    def issue(self, number: int) -> bool:
        """Posts and closes as the agent does; false when an answer was lost: it has to be asked again."""
        posted = self.ask("POST", "/refunds/post", refund_body(number))
        return posted is not None and self._closed(number, str(posted["refund_id"]))

    def _closed(self, number: int, refund_id: str) -> bool:
        return self.ask("POST", "/cases/close", case_body(number, refund_id)) is not None

    def rows(self, book: str) -> list[dict[str, Any]]:
        """A book."""
        answer = self.ask("GET", f"/books/{book}")
        assert answer is not None
        return list(answer["rows"])


def until(condition: Any, what: str) -> None:
    """Polls until it holds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


def work(victim: Victim, chance: random.Random) -> None:
    """Issues all refunds, and kills while some of them are under way."""
    to_issue = list(range(1, TICKETS + 1))
    doomed = set(chance.sample(to_issue, KILLS))
    while to_issue:
        number = to_issue.pop(0)
        fuse = threading.Timer(chance.uniform(0, LONGEST_FUSE_SECONDS), victim.kill) if number in doomed else None
        if fuse is not None:
            fuse.start()
        if not victim.issue(number):
            to_issue.append(number)
        if fuse is not None:
            doomed.discard(number)
            fuse.join()
            victim.start()


def test_no_event_is_lost_and_none_is_booked_twice(tmp_path: Path) -> None:
    victim = Victim(tmp_path)
    victim.start()
    try:
        work(victim, random.Random(7))
        until(lambda: all(row["delivered_at"] for row in victim.rows("outbox")), "everything is delivered")
        tickets = {f"T-{number}": 1 for number in range(1, TICKETS + 1)}
        for book in ("refunds", "cases", "bookkeeping"):
            assert Counter(row["ticket_id"] for row in victim.rows(book)) == tickets, book
        booked = {row["refund_id"] for row in victim.rows("bookkeeping")}
        assert booked == {row["refund_id"] for row in victim.rows("refunds")}
        deliveries = sum(row["deliveries"] for row in victim.rows("inbox"))
        print(f"{KILLS} kills: {deliveries} deliveries of {TICKETS} events")
        assert deliveries > TICKETS, "some came twice, and were dropped"
    finally:
        victim.end()
