"""The crew kills and starts as planned, in the order in which processes need each other, and supervises the rest."""

from __future__ import annotations

from typing import Any

from lab.chaos.fault_injector import FaultInjector
from lab.chaos.plan import Outage

PARTS = ("sentry", "placement", "scheduler", "sandbox", "daprd", "worker")


class FakeStack:
    """Processes that are names with a number; `told` is what was done to them."""

    parts = PARTS

    def __init__(self) -> None:
        self.pids = {name: number for number, name in enumerate(PARTS)}
        self.dead: set[str] = set()
        self.told: list[str] = []

    def kill(self, name: str) -> None:
        """It is gone."""
        self.told.append(f"kill {name}")
        self.dead.add(name)

    def start(self, name: str) -> None:
        """It is there again, as another process."""
        self.told.append(f"start {name}")
        self.dead.discard(name)
        self.pids[name] += 100

    def freeze(self, name: str) -> None:
        """It stands still."""
        self.told.append(f"freeze {name}")

    def thaw(self, name: str) -> None:
        """It goes on."""
        self.told.append(f"thaw {name}")

    def alive(self, name: str) -> bool:
        """Whether it is there."""
        return name not in self.dead

    def pid(self, name: str) -> int:
        """Its number."""
        return self.pids[name]


def injector(stack: Any, said: list[str] | None = None) -> FaultInjector:
    """A crew on that stack."""
    return FaultInjector(stack, (said if said is not None else []).append)


def test_those_who_die_together_are_started_in_the_order_in_which_they_need_each_other() -> None:
    stack = FakeStack()
    working = injector(stack)
    working.work((Outage(0, ("worker",), 0), Outage(0.01, ("daprd", "scheduler"), 0.01)))
    assert stack.told == [
        *("kill worker", "start worker"),
        *("kill scheduler", "kill daprd", "start scheduler", "start daprd"),
    ]
    assert [(restart.name, restart.alone) for restart in working.restarts] == [
        ("worker", True),
        ("scheduler", False),
        ("daprd", False),
    ]
    assert all(each.killed_at <= each.started_at <= each.ready_at for each in working.restarts)
    assert (working.restarts[1].started_at - working.restarts[1].killed_at).total_seconds() >= 0.01
    assert not working.helped


def test_outages_wait_for_their_time() -> None:
    working = injector(FakeStack())
    working.work((Outage(0, ("worker",), 0), Outage(0.2, ("worker",), 0)))
    first, second = working.restarts
    assert 0.15 < (second.killed_at - first.killed_at).total_seconds() < 10


def test_what_has_ended_by_itself_is_started_again_and_told() -> None:
    stack, said = FakeStack(), list[str]()
    working = injector(stack, said)
    stack.dead = {"placement", "worker"}
    working.watch(0)
    assert stack.told == ["start placement", "start worker"]
    assert dict(working.helped) == {"placement": 1, "worker": 1}
    assert len(said) == 2
    working.watch(0)
    assert working.helped.total() == 2


def test_a_sidecar_that_the_stack_has_started_again_is_counted_and_left_to_it() -> None:
    stack = FakeStack()
    working = injector(stack)
    stack.dead.add("daprd")
    working.watch(0)
    assert (stack.told, working.helped.total()) == ([], 0), "the stack looks after it"
    stack.dead.clear()
    stack.pids["daprd"] = 77
    working.watch(0)
    working.watch(0)
    assert dict(working.helped) == {"daprd": 1}
    working.work((Outage(0, ("daprd",), 0),))
    working.watch(0)
    assert dict(working.helped) == {"daprd": 1}, "what is killed is no help"


def test_what_is_frozen_goes_on_as_the_same_process() -> None:
    stack = FakeStack()
    working = injector(stack)
    before = dict(stack.pids)
    working.work((Outage(0, ("daprd",), 0.01, frozen=True), Outage(0.05, ("worker",), 0)))
    assert stack.told == ["freeze daprd", "thaw daprd", "kill worker", "start worker"]
    assert stack.pids["daprd"] == before["daprd"]
    assert dict(working.frozen) == {"daprd": 1}
    assert [restart.name for restart in working.restarts] == ["worker"]


def test_what_died_by_itself_is_not_frozen() -> None:
    stack = FakeStack()
    working = injector(stack)
    working.watch(0)
    stack.dead.add("daprd")
    working.work((Outage(0, ("daprd",), 0, frozen=True),))
    assert "freeze daprd" not in stack.told
    assert not working.frozen
