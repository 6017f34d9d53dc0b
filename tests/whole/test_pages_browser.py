"""The pages in a real browser, over the running product: signed in by the form, a task's record on its time line."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.browser import Browser, ensure_installed
from tests.live import Live, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

WIDTHS = (1280, 375)
WAIT_SECONDS = 3.0
# Nothing sticks out of the page, and no text of a lane runs into the other one.
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
LANE_GAPS = """
[...document.querySelectorAll('.lane-name')].map((name, number) =>
  document.querySelectorAll('.lane-figures')[number].getBoundingClientRect().left - name.getBoundingClientRect().right)
"""
BARS_OUTSIDE = """
(() => { const frame = document.querySelector('svg.timeline').getBoundingClientRect();
  return [...document.querySelectorAll('svg.timeline rect')].map(bar => bar.getBoundingClientRect())
    .filter(box => box.width && (box.left < frame.left - 1 || box.right > frame.right + 1)).length })()
"""
SUMS = "[...document.querySelectorAll('.lines {part} .sum')].map(sum => sum.title)"
FACTS = """
Object.fromEntries([...document.querySelectorAll('.facts div')].map(div => [...div.children].map(e => e.innerText)))
"""


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    """One browser for all tests here."""
    ensure_installed()
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(started: Browser) -> Browser:
    """The browser, signed in nowhere, with nothing to complain about yet."""
    started.ask("Network.clearBrowserCookies")
    started.size(WIDTHS[0])
    started.requests.clear()
    started.complaints.clear()
    return started


def sign_in(browser: Browser, live: Live, path: str = "/pages/tasks") -> None:
    """Goes to a page, is asked for the token, and types it."""
    browser.open(live.stack.web_url + path)
    assert browser.run("location.pathname") == "/signin"
    browser.type("#token", (live.stack.state / "token").read_text().strip())
    browser.submit("form.signin")
    assert browser.run("location.pathname + location.search") == path


def settle(browser: Browser, live: Live) -> None:
    """What has to hold after any visit."""
    assert browser.complaints == []
    assert {url for url in browser.requests if not url.startswith(live.stack.web_url + "/")} == set()
    assert browser.run("[document.scripts.length, document.cookie]") == [0, ""]


def open_record(browser: Browser, live: Live, task_id: str, *, ended: bool = True) -> None:
    """Opens a task's page until its record is there, as a person would: it is made after the task."""

    def shown() -> bool:
        browser.open(f"{live.stack.web_url}/pages/tasks/{task_id}")
        recorded = browser.run("document.querySelector('table.lines') !== null")
        return bool(recorded) and browser.run("document.querySelector('.notice') === null") is ended

    until(shown, f"the record on the page of {task_id}", seconds=30)


def exact(titles: list[str]) -> Decimal:
    """The sum of the amounts with all their digits, which are all in one currency."""
    assert all(title.endswith(" USD") for title in titles), titles
    return sum((Decimal(title.split()[0]) for title in titles), Decimal(0))


def test_a_finished_task_shows_each_step_token_and_cent(browser: Browser, live: Live, tmp_path: Path) -> None:
    paid_before = len(live.bill())
    task_id = live.submit(tickets.refund(f"page-{uuid.uuid4().hex[:8]}", 47_001))
    live.wait(task_id, "completed")
    bill = live.bill()[paid_before:]
    sign_in(browser, live)
    browser.follow(f"a[href='/pages/tasks/{task_id}']")
    open_record(browser, live, task_id)

    lanes = browser.run("[...document.querySelectorAll('.lane-name')].map(text => text.firstChild.data.split(' ')[1])")
    assert sorted(lanes) == sorted(tickets.REFUND_STEPS.elements())
    assert len(browser.run("[...document.querySelectorAll('svg.timeline rect.call.settled')].map(bar => 1)")) == len(
        bill
    )
    facts = browser.run(FACTS)
    assert facts["model calls"] != "0"
    tokens = {name: sum(row[f"{name}_tokens"] for row in bill) for name in ("input", "cached", "output")}
    assert [facts[name] for name in ("input", "of which cached", "output")] == [
        f"{count:,}" for count in tokens.values()
    ]
    assert exact(browser.run(SUMS.format(part="tbody"))) == exact(browser.run(SUMS.format(part="tfoot"))) > 0
    for width in WIDTHS:
        for dark in (False, True):
            browser.size(width, dark=dark)
            browser.picture(tmp_path / f"{width}-{'dark' if dark else 'light'}.png")
            assert browser.run(OVERFLOW) <= 0
            assert min(browser.run(LANE_GAPS)) > 0
            assert browser.run(BARS_OUTSIDE) == 0
    settle(browser, live)


def test_a_wait_for_a_person_is_a_marked_break(browser: Browser, live: Live) -> None:
    task_id = live.submit(tickets.greedy(f"page-{uuid.uuid4().hex[:8]}", 47_002))
    live.wait(task_id, "waiting")
    sign_in(browser, live, f"/pages/tasks/{task_id}")
    assert "waiting" in browser.run("document.querySelector('.ending').innerText")
    assert "Proposed refund" in browser.run("document.querySelector('.ending').innerText")
    open_record(browser, live, task_id, ended=False)
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > WAIT_SECONDS, "time enough to make it a long wait")
    live.web.post(f"/tasks/{task_id}/approve").raise_for_status()
    live.wait(task_id, "completed")
    open_record(browser, live, task_id)
    assert "waiting for a person's decision" in browser.run("document.querySelector('table.pauses').innerText")
    assert browser.run("document.querySelectorAll('svg.timeline path.break').length") == 1
    assert browser.run("document.querySelector('.band-label').textContent").endswith(" s")
    settle(browser, live)


def test_a_wrong_token_stays_at_the_form(browser: Browser, live: Live) -> None:
    browser.open(f"{live.stack.web_url}/pages/tasks")
    browser.type("#token", "wrong")
    browser.submit("form.signin")
    assert browser.run("location.pathname") == "/signin"
    assert "not known here" in browser.run("document.querySelector('[role=alert]').innerText")
    assert browser.run("document.querySelector('#token').value") == ""


def test_signing_out_closes_the_pages(browser: Browser, live: Live) -> None:
    sign_in(browser, live)
    browser.submit("form.who")
    assert browser.run("location.pathname") == "/signin"
    browser.open(f"{live.stack.web_url}/pages/tasks")
    assert browser.run("location.pathname") == "/signin"
    settle(browser, live)


def test_a_person_decides_in_the_inbox(browser: Browser, live: Live, tmp_path: Path) -> None:
    task_id = live.submit(tickets.greedy(f"inbox-{uuid.uuid4().hex[:8]}", 47_003))
    live.wait(task_id, "waiting")
    sign_in(browser, live, "/pages/inbox")
    form = f"form[action='/pages/tasks/{task_id}/decision']"

    def shown() -> bool:
        browser.open(live.stack.web_url + "/pages/inbox?tenant=bench")
        return bool(browser.run(f'document.querySelector("{form}") !== null'))

    until(shown, f"{task_id} in the inbox", seconds=30)
    words = browser.run(f'document.querySelector("{form}").closest("article").innerText')
    assert "SYSTEM OVERRIDE" in words
    assert "Left to refund\n20.00 EUR" in words
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    for width in WIDTHS:
        for dark in (False, True):
            browser.size(width, dark=dark)
            browser.picture(tmp_path / f"inbox-{width}-{'dark' if dark else 'light'}.png")
            assert browser.run(OVERFLOW) <= 0

    browser.type(f"{form} [name=amount]", "21.00")
    browser.follow(f"{form} button[value=approve_other]")
    assert "21.00 EUR is more than order LD-47003 has left: 20.00 EUR at most" in browser.run("document.body.innerText")
    browser.complaints.clear()  # the browser notes that the answer was a refusal
    browser.open(f"{live.stack.web_url}/pages/tasks/{task_id}")
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    browser.type(f"{form} textarea", "twice this month")
    browser.follow(f"{form} button[value=reject]")
    assert browser.run("document.querySelector('h1').innerText") == "Rejected"
    assert live.wait(task_id, "completed")["result"]["outcome"] == "rejected"
    browser.open(f"{live.stack.web_url}/pages/tasks/{task_id}")
    trail = browser.run("document.querySelector('table.trail').innerText")
    assert "21.00 EUR for order LD-47003" in trail
    assert "twice this month" in trail
    settle(browser, live)
