"""A workflow that never comes back from a turn is set aside by the running product, and nothing else is."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.live import Live, make_stack, until
from tests.whole import tickets
from tests.whole.endless_worker import MENDED, REST_SECONDS

pytestmark = pytest.mark.runtime


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_workflow_that_never_comes_back_is_parked_can_go_on_once_mended_and_can_be_ended(tmp_path: Path) -> None:
    with make_stack(tmp_path, worker=[sys.executable, "-m", "tests.whole.endless_worker"]) as stack:
        live = Live(stack)
        first, second = (live.submit(tickets.refund(f"endless-{number}", number)) for number in (34_000, 34_010))
        others = [live.submit(tickets.refund(f"beside-{number}", 35_000 + number)) for number in range(4)]
        views = live.wait_all([first, second], "parked")
        assert all("a turn did not return" in view["waiting_for"] for view in views)
        live.wait_all(others, "completed")

        used = cpu_seconds(stack.pid("worker"))
        time.sleep(2)  # what is measured is two seconds
        assert cpu_seconds(stack.pid("worker")) - used < 1, "nobody hands the turns out again and again"
        assert "refund_agent_turns_set_aside_total 2.0" in live.web.get("/metrics").text

        assert live.web.post(f"/tasks/{second}/terminate", json={"reason": "it hangs"}).status_code == 200
        live.wait(second, "terminated")
        (stack.state / MENDED).touch()
        time.sleep(REST_SECONDS)  # it rests that long
        assert live.web.post(f"/tasks/{first}/resume").status_code == 200
        assert live.wait(first, "completed")["result"]["outcome"] == "refunded"
        assert live.completed_steps(first) == tickets.REFUND_STEPS
        until(lambda: live.web.get(f"/tasks/{second}/record").status_code == 200, "what was set aside has a record")
        live.close()
