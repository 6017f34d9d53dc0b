"""Kills, freezes and restarts the processes of a stack as planned, and restarts those that end by themselves."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from lab.chaos.evidence import Restart
from lab.chaos.plan import Outage
from runtime.stack import Stack

_WATCH_SECONDS = 0.25


class FaultInjector:
    """Carries out a plan on a running stack. `restarts`, `frozen` and `unplanned_restarts` record what was done."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._say = say
        self._sidecars = {name: stack.pid(name) for name in stack.parts if name.startswith("daprd")}
        self._pause = threading.Event()  # never set: waiting on it is a pause
        self.restarts: list[Restart] = []
        self.frozen: Counter[str] = Counter()
        self.unplanned_restarts: Counter[str] = Counter()

    def carry_out(self, plan: tuple[Outage, ...]) -> None:
        """Carries out all outages, each at its time or, if later, after the previous one."""
        started = time.monotonic()
        for outage in plan:
            self.watch(started + outage.at - time.monotonic())
            self._cause(outage)

    def watch(self, seconds: float) -> None:
        """Supervises the processes for `seconds`, at least once."""
        until = time.monotonic() + seconds
        while True:
            self._count_sidecar_restarts()
            for name in self._stack.parts:
                if name not in self._sidecars and not self._stack.alive(name):
                    self._say(f"{name} has ended by itself; restarting it")
                    self.unplanned_restarts[name] += 1
                    self._stack.start(name)
            left = until - time.monotonic()
            if left <= 0:
                return
            self._pause.wait(min(left, _WATCH_SECONDS))

    def _count_sidecar_restarts(self) -> None:
        """Counts the sidecars that had ended by themselves and were restarted by the stack."""
        for name, before in self._sidecars.items():
            if self._stack.alive(name) and self._stack.pid(name) != before:
                self._sidecars[name] = self._stack.pid(name)
                self.unplanned_restarts[name] += 1
                self._say(f"{name} had ended by itself and was restarted by the stack")

    def _cause(self, outage: Outage) -> None:
        self._count_sidecar_restarts()
        victims = [name for name in self._stack.parts if name in outage.victims]
        if outage.frozen:
            self._freeze(victims, outage.down)
            return
        killed_at = datetime.now(UTC)
        for name in victims:
            self._stack.kill(name)
        self._say(f"killed {' and '.join(victims)} for {outage.down:.1f} s")
        self._pause.wait(outage.down)
        for name in victims:
            started_at = datetime.now(UTC)
            self._stack.start(name)
            if name in self._sidecars:
                self._sidecars[name] = self._stack.pid(name)
            alone = len(victims) == 1
            self.restarts.append(Restart(name, killed_at, started_at, datetime.now(UTC), alone))

    def _freeze(self, victims: list[str], seconds: float) -> None:
        running = [name for name in victims if self._stack.alive(name)]
        for name in running:
            self._stack.freeze(name)
            self.frozen[name] += 1
        self._say(f"froze {' and '.join(running) or 'nothing'} for {seconds:.1f} s")
        self._pause.wait(seconds)
        for name in running:
            self._stack.thaw(name)
