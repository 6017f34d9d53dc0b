"""Following tasks: each is passed on once, the time-out is kept, and polling is limited."""

from __future__ import annotations

from collections import Counter

from app.cli.tasks import PAUSE_SECONDS, ROUND, Watch, follow
from app.domain.models import TaskStatus, TaskView
from tests.cli.test_intake import Time
from tests.web.fakes import FakeTaskService, make_ticket


class FakeAgent:
    """A service whose tasks rest after a given number of reads."""

    def __init__(self, readings: dict[str, int], ends: TaskStatus = TaskStatus.COMPLETED) -> None:
        self.left = readings
        self.ends = ends
        self.asked: Counter[str] = Counter()
        self._service = FakeTaskService()

    def get(self, task_id: str) -> TaskView:
        self.asked[task_id] += 1
        self.left[task_id] -= 1
        view, _ = self._service.submit(make_ticket(task_id.partition(":")[2]))
        return view if self.left[task_id] > 0 else self._service.put(task_id, status=self.ends)


def watch(agent: FakeAgent, ids: list[str], timeout: float = 60) -> tuple[list[str], tuple[str, ...], Time]:
    time, rested = Time(), list[str]()
    running = follow(ids, agent.get, Watch(timeout, time.clock, time.sleep), lambda view: rested.append(view.task_id))
    return rested, running, time


def test_each_task_is_handed_over_once_when_it_rests() -> None:
    agent = FakeAgent({"acme:a": 3, "acme:b": 1, "acme:c": 2})
    rested, running, time = watch(agent, ["acme:a", "acme:b", "acme:c", "acme:a"])
    assert (sorted(rested), running) == (["acme:a", "acme:b", "acme:c"], ())
    assert agent.asked == {"acme:a": 3, "acme:b": 1, "acme:c": 2}
    assert set(time.sleeps) <= {PAUSE_SECONDS}


def test_every_state_but_running_is_rest() -> None:
    for status in set(TaskStatus) - {TaskStatus.RUNNING}:
        assert watch(FakeAgent({"acme:a": 1}, status), ["acme:a"])[0] == ["acme:a"]


def test_the_time_ends_it() -> None:
    agent = FakeAgent({"acme:a": 10**6} | {f"acme:{number}": 1 for number in range(100)})
    rested, running, time = watch(agent, list(agent.left), timeout=5)
    assert (len(rested), running) == (100, ("acme:a",))
    assert 5 <= sum(time.sleeps) < 5 + 2 * PAUSE_SECONDS


def test_a_thousand_slow_tasks_are_not_asked_all_at_once() -> None:
    ids = [f"acme:{number}" for number in range(1000)]
    agent = FakeAgent(dict.fromkeys(ids, 10**6))
    _, running, time = watch(agent, ids, timeout=PAUSE_SECONDS * 10)
    assert len(running) == 1000
    assert agent.asked.total() <= ROUND * (len(time.sleeps) + 1)


def test_what_is_done_is_collected_without_pauses() -> None:
    ids = [f"acme:{number}" for number in range(1000)]
    rested, _, time = watch(FakeAgent(dict.fromkeys(ids, 1)), ids)
    assert (len(rested), time.sleeps) == (1000, [])
