"""Every sample ticket on the real runtime: each ends as a good agent must end it, and the books hold just that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from runtime import paths
from sandbox.data import load_tickets
from tests.live import Live

pytestmark = [pytest.mark.runtime, pytest.mark.whole]


@pytest.mark.timeout(900)
def test_the_samples_end_as_they_must(own_stack: Live) -> None:
    stack = own_stack.stack
    token = (stack.state / "token").read_text().strip()
    place = ["--url", stack.web_url, "--systems-url", stack.systems_url]
    done = subprocess.run(
        [sys.executable, "-m", "app", "demo", "--json", "--timeout", "600", *place],
        cwd=paths.ROOT,
        env={"PATH": "/usr/bin:/bin", "REFUND_AGENT_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert sum(sum(tenants.values()) for tenants in result["outcomes"].values()) == len(load_tickets()) >= 300
    assert result["clear_tickets_right"] >= 0.95 * result["clear_tickets"]
    assert result["refunds_booked"] == result["refunds_due"] > 0
    assert set(result["outcomes"]) <= {"refunded", "declined", "answered", "waiting"}
