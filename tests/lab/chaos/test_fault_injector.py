"""The fault injector kills and restarts as planned, in the order of dependence, and restarts what ends by itself."""

from __future__ import annotations

from typing import Any

from lab.chaos.fault_injector import FaultInjector
from lab.chaos.plan import Outage

PARTS = ("sentry", "placement", "scheduler", "sandbox", "daprd", "worker")


class FakeStack:
    """A stack of fake processes; `actions` records what was done to them."""

    parts = PARTS

    def __init__(self) -> None:
        self.pids = {name: number for number, name in enumerate(PARTS)}
        self.dead: set[str] = set()
        self.actions: list[str] = []

    def kill(self, name: str) -> None:
        """Marks the process as dead."""
        self.actions.append(f"kill {name}")
        self.dead.add(name)

    def start(self, name: str) -> None:
        """Revives the process with another pid."""
        self.actions.append(f"start {name}")
        self.dead.discard(name)
        self.pids[name] += 100

    def freeze(self, name: str) -> None:
        """Records the freeze."""
        self.actions.append(f"freeze {name}")

    def thaw(self, name: str) -> None:
        """Records the thaw."""
        self.actions.append(f"thaw {name}")

    def alive(self, name: str) -> bool:
        """Whether the process is not dead."""
        return name not in self.dead

    def pid(self, name: str) -> int:
        """The process id."""
        return self.pids[name]


def make_injector(stack: Any, messages: list[str] | None = None) -> FaultInjector:
    """A fault injector for that stack."""
    return FaultInjector(stack, (messages if messages is not None else []).append)


def test_processes_that_are_killed_together_are_restarted_in_the_order_of_dependence() -> None:
    stack = FakeStack()
    injector = make_injector(stack)
    injector.carry_out((Outage(0, ("worker",), 0), Outage(0.01, ("daprd", "scheduler"), 0.01)))
    assert stack.actions == [
        *("kill worker", "start worker"),
        *("kill scheduler", "kill daprd", "start scheduler", "start daprd"),
    ]
    assert [(restart.name, restart.alone) for restart in injector.restarts] == [
        ("worker", True),
        ("scheduler", False),
        ("daprd", False),
    ]
    assert all(restart.killed_at <= restart.started_at <= restart.ready_at for restart in injector.restarts)
    assert (injector.restarts[1].started_at - injector.restarts[1].killed_at).total_seconds() >= 0.01
    assert not injector.unplanned_restarts


def test_outages_wait_for_their_time() -> None:
    injector = make_injector(FakeStack())
    injector.carry_out((Outage(0, ("worker",), 0), Outage(0.2, ("worker",), 0)))
    first, second = injector.restarts
    assert 0.15 < (second.killed_at - first.killed_at).total_seconds() < 10


def test_a_process_that_ends_by_itself_is_restarted_and_reported() -> None:
    stack, messages = FakeStack(), list[str]()
    injector = make_injector(stack, messages)
    stack.dead = {"placement", "worker"}
    injector.watch(0)
    assert stack.actions == ["start placement", "start worker"]
    assert dict(injector.unplanned_restarts) == {"placement": 1, "worker": 1}
    assert len(messages) == 2
    injector.watch(0)
    assert injector.unplanned_restarts.total() == 2


def test_a_sidecar_that_the_stack_restarts_is_only_counted() -> None:
    stack = FakeStack()
    injector = make_injector(stack)
    stack.dead.add("daprd")
    injector.watch(0)
    assert (stack.actions, injector.unplanned_restarts.total()) == ([], 0), "the stack restarts it"
    stack.dead.clear()
    stack.pids["daprd"] = 77
    injector.watch(0)
    injector.watch(0)
    assert dict(injector.unplanned_restarts) == {"daprd": 1}
    injector.carry_out((Outage(0, ("daprd",), 0),))
    injector.watch(0)
    assert dict(injector.unplanned_restarts) == {"daprd": 1}, "a planned kill is not counted"


def test_a_frozen_process_continues_as_the_same_process() -> None:
    stack = FakeStack()
    injector = make_injector(stack)
    before = dict(stack.pids)
    injector.carry_out((Outage(0, ("daprd",), 0.01, frozen=True), Outage(0.05, ("worker",), 0)))
    assert stack.actions == ["freeze daprd", "thaw daprd", "kill worker", "start worker"]
    assert stack.pids["daprd"] == before["daprd"]
    assert dict(injector.frozen) == {"daprd": 1}
    assert [restart.name for restart in injector.restarts] == ["worker"]


def test_a_dead_process_is_not_frozen() -> None:
    stack = FakeStack()
    injector = make_injector(stack)
    injector.watch(0)
    stack.dead.add("daprd")
    injector.carry_out((Outage(0, ("daprd",), 0, frozen=True),))
    assert "freeze daprd" not in stack.actions
    assert not injector.frozen
