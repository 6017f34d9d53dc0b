"""Kills, freezes and starts the processes of a stack as planned, and does what a supervisor does: what has ended is
started."""

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
    """Works a plan on one stack that runs. `restarts`, `frozen` and `helped` tell what was done."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._say = say
        self._sidecars = {name: stack.pid(name) for name in stack.parts if name.startswith("daprd")}
        self._pause = threading.Event()  # never set: waiting on it is a pause
        self.restarts: list[Restart] = []
        self.frozen: Counter[str] = Counter()
        self.helped: Counter[str] = Counter()

    def work(self, plan: tuple[Outage, ...]) -> None:
        """All outages, each at its time, or as soon as the one before is over."""
        begun = time.monotonic()
        for outage in plan:
            self.watch(begun + outage.at - time.monotonic())
            self._strike(outage)

    def watch(self, seconds: float) -> None:
        """Supervises for so long; once, when that is nothing."""
        until = time.monotonic() + seconds
        while True:
            self._notice()
            for name in self._stack.parts:
                if name not in self._sidecars and not self._stack.alive(name):
                    self._say(f"{name} has ended by itself; it is started again")
                    self.helped[name] += 1
                    self._stack.start(name)
            left = until - time.monotonic()
            if left <= 0:
                return
            self._pause.wait(min(left, _WATCH_SECONDS))

    def _notice(self) -> None:
        """The stack itself starts a sidecar again that has ended by itself: that is counted here."""
        for name, before in self._sidecars.items():
            if self._stack.alive(name) and self._stack.pid(name) != before:
                self._sidecars[name] = self._stack.pid(name)
                self.helped[name] += 1
                self._say(f"{name} had ended by itself and was started again")

    def _strike(self, outage: Outage) -> None:
        self._notice()
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
        standing = [name for name in victims if self._stack.alive(name)]
        for name in standing:
            self._stack.freeze(name)
            self.frozen[name] += 1
        self._say(f"froze {' and '.join(standing) or 'nothing'} for {seconds:.1f} s")
        self._pause.wait(seconds)
        for name in standing:
            self._stack.thaw(name)
