"""What is killed or stands still, when, and for how long: made from a seed alone, as values. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

VICTIMS = ("worker", "daprd", "scheduler", "placement", "sandbox")
# Where there are two of an app, each of them: killed, or frozen and thawed again, which its twin cannot tell apart.
TWINS = ("worker", "daprd", "worker-2", "daprd-2")
# Worker and sidecar hold the work that is under way: they die twice as often as the others.
_DECK = (*VICTIMS, "worker", "daprd")
Card = TypeVar("Card")
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
    """So many seconds after the load has begun these are killed together, and started again `down` seconds later;
    `frozen` ones stand still for so long instead."""

    at: float
    victims: tuple[str, ...]
    down: float
    frozen: bool = False


def outages(seed: int, seconds: float, pace: Pace = Pace()) -> tuple[Outage, ...]:
    """The outages of that long a load, in order. Each process dies at least once, however short the load is."""
    chance = random.Random(seed)
    deck = _decks(chance, _DECK)
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


def twin_outages(seed: int, seconds: float, pace: Pace = Pace(down=(0.5, 15.0))) -> tuple[Outage, ...]:
    """The outages of two workers with a sidecar each, one at a time, half of them frozen. Each dies and stands still at
    least once, however short the load is."""
    chance = random.Random(seed)
    cards = [(victim, frozen) for victim in TWINS for frozen in (True, False)]
    found: list[Outage] = []
    at = chance.uniform(*pace.between) / 2
    deck = _decks(chance, cards)
    while at < seconds or len(found) < len(cards):
        victim, frozen = next(deck)
        down = chance.uniform(*pace.down)
        found.append(Outage(round(at, 3), (victim,), round(down, 3), frozen))
        at += down + chance.uniform(*pace.between)
    return tuple(found)


def killed(plan: Iterable[Outage]) -> dict[str, int]:
    """How often each process is killed."""
    return _counted(outage for outage in plan if not outage.frozen)


def frozen(plan: Iterable[Outage]) -> dict[str, int]:
    """How often each process stands still."""
    return {name: count for name, count in _counted(outage for outage in plan if outage.frozen).items() if count}


def _counted(outages: Iterable[Outage]) -> dict[str, int]:
    counted = Counter(victim for outage in outages for victim in outage.victims)
    return {victim: counted[victim] for victim in dict.fromkeys((*VICTIMS, *sorted(counted)))}


def _decks(chance: random.Random, cards: Sequence[Card]) -> Iterator[Card]:
    """One shuffled deck after another, so that none waits long for its turn."""
    while True:
        deck = list(cards)
        chance.shuffle(deck)
        yield from deck
