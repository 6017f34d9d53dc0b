"""Letters of the greatest length that no customer would write, all at once: each is worked, and health answers."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.domain.models import MAX_TICKET_CHARACTERS, TaskStatus
from tests.live import Live
from tests.test_hostile_texts import TEXTS
from tests.whole import tickets

pytestmark = pytest.mark.runtime

# `REFUND_AGENT_TEST_HOSTILE=1000` makes it a measurement.
_TICKETS = int(os.environ.get("REFUND_AGENT_TEST_HOSTILE", "40"))
_HANGS_SECONDS = 20.0


@pytest.mark.timeout(1800)
def test_hostile_letters_hold_up_nobody(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = list(TEXTS)
    sent = []
    for number in range(_TICKETS):
        letter = tickets.question(f"hostile-{number}", 70_000 + number)
        head = "When do you open? "
        text = head + TEXTS[kinds[number % len(kinds)]](MAX_TICKET_CHARACTERS)
        sent.append(letter | {"text": text[:MAX_TICKET_CHARACTERS]})
    answered: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            begun = time.monotonic()
            assert live.outside.get(f"{live.stack.web_url}/healthz", timeout=_HANGS_SECONDS).status_code == 200
            answered.append(time.monotonic() - begun)
            over.wait(0.02)

    with ThreadPoolExecutor(9) as pool:
        looking = pool.submit(look)
        begun = time.monotonic()
        try:
            task_ids = list(pool.map(live.submit, sent))
            taken = time.monotonic() - begun
            views = live.wait_all(task_ids, "completed", "waiting", seconds=1500)
        finally:
            over.set()
        looking.result()
    times = sorted(answered)
    with capsys.disabled():
        print(
            f"\n{_TICKETS} hostile tickets taken in {taken:.1f} s, at rest in {time.monotonic() - begun:.1f} s; "
            f"/healthz ({len(times)}): median {times[len(times) // 2] * 1e3:.0f} ms, "
            f"99 % {times[len(times) * 99 // 100] * 1e3:.0f} ms, longest {times[-1] * 1e3:.0f} ms"
        )
    assert {view["status"] for view in views} <= {TaskStatus.COMPLETED, TaskStatus.WAITING}
