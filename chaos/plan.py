"""What is killed, when, and for how long: made from a seed alone, as values. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

VICTIMS = ("worker", "daprd", "scheduler", "placement", "sandbox")
# Worker and sidecar hold the work that is under way: they die twice as often as the others.
_DECK = (*VICTIMS, "worker", "daprd")
_TOGETHER = 0.25  # how often two die in the same moment
_DURING_LEASE = 0.5


@dataclass(frozen=True)
class Pace:
    """Seconds: from one outage to the next, and how long the dead stay dead; each is drawn between the two.

    lease: how long nothing is handed out after the scheduler was killed: it holds a lease of 20 s in its own store.
    Half of the outages wait for that, since there is nothing new to interrupt; half strike meanwhile, when what has
    been worked cannot be reported.
    """

    between: tuple[float, float] = (5.0, 11.0)
    down: tuple[float, float] = (0.0, 3.0)
    lease: float = 23.0


@dataclass(frozen=True)
class Outage:
    """So many seconds after the load has begun these are killed together, and started again `down` seconds later."""

    at: float
    victims: tuple[str, ...]
    down: float


def outages(seed: int, seconds: float, pace: Pace = Pace()) -> tuple[Outage, ...]:
    """The outages of that long a load, in order. Each process dies at least once, however short the load is."""
    chance = random.Random(seed)
    deck = _decks(chance)
    found: list[Outage] = []
    missing = set(VICTIMS)
    at, lease = chance.uniform(*pace.between) / 2, 0.0
    while at < seconds or missing:
        victims = {next(deck)}
        if chance.random() < _TOGETHER:
            victims.add(next(deck))  # sometimes the same once more
        found.append(Outage(round(at, 3), tuple(sorted(victims)), round(chance.uniform(*pace.down), 3)))
        missing.difference_update(victims)
        at += chance.uniform(*pace.between)
        lease = pace.lease if "scheduler" in victims else lease
        if chance.random() >= _DURING_LEASE:
            at, lease = at + lease, 0.0
    return tuple(found)


def killed(plan: Iterable[Outage]) -> dict[str, int]:
    """How often each process is killed."""
    counted = Counter(victim for outage in plan for victim in outage.victims)
    return {victim: counted[victim] for victim in VICTIMS}


def _decks(chance: random.Random) -> Iterator[str]:
    """One shuffled deck after another, so that none waits long for its turn."""
    while True:
        deck = list(_DECK)
        chance.shuffle(deck)
        yield from deck
