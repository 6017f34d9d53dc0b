"""The plan of a run: which processes are killed or frozen, when, and for how long. The seed determines it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

VICTIMS = ("worker", "daprd", "scheduler", "placement", "sandbox")
# With two workers: each is killed or frozen; the other worker cannot distinguish the two.
TWO_WORKER_VICTIMS = ("worker", "daprd", "worker-2", "daprd-2")
# Worker and sidecar hold the work in progress, so they are killed twice as often as the others.
_DECK = (*VICTIMS, "worker", "daprd")
Card = TypeVar("Card")
_TOGETHER = 0.25  # share of outages that kill two processes at once
_DURING_LEASE = 0.5  # share of outages that do not wait for the scheduler's lease


@dataclass(frozen=True)
class Pace:
    """Ranges, in seconds, of the time between outages and of the time until a process is restarted.

    lease: the time after a kill of the scheduler in which it hands out no work, since it holds a lease of 20 s in its
    store. Half of the outages wait until then, so that there is new work to interrupt. The others come before, while
    finished work cannot be reported.
    """

    between: tuple[float, float] = (5.0, 11.0)
    down: tuple[float, float] = (0.0, 3.0)
    lease: float = 23.0


@dataclass(frozen=True)
class Outage:
    """The victims are killed together, `at` seconds after the start of the load, and restarted `down` seconds later;
    if `frozen`, they are stopped and resumed instead."""

    at: float
    victims: tuple[str, ...]
    down: float
    frozen: bool = False


def outages(seed: int, seconds: float, pace: Pace = Pace()) -> tuple[Outage, ...]:
    """The outages during a load of `seconds`, in order. Each process is killed at least once."""
    chance = random.Random(seed)
    deck = _decks(chance, _DECK)
    planned: list[Outage] = []
    missing = set(VICTIMS)
    at, lease = chance.uniform(*pace.between) / 2, 0.0
    while at < seconds or missing:
        victims = {next(deck)}
        if chance.random() < _TOGETHER:
            victims.add(next(deck))  # may be the same process
        planned.append(Outage(round(at, 3), tuple(sorted(victims)), round(chance.uniform(*pace.down), 3)))
        missing.difference_update(victims)
        at += chance.uniform(*pace.between)
        lease = pace.lease if "scheduler" in victims else lease
        if chance.random() >= _DURING_LEASE:
            at, lease = at + lease, 0.0
    return tuple(planned)


def two_worker_outages(seed: int, seconds: float, pace: Pace = Pace(down=(0.5, 15.0))) -> tuple[Outage, ...]:
    """The outages for two workers with a sidecar each, one process at a time. Half of them are freezes. Each process is
    killed and frozen at least once, even if the load is short."""
    chance = random.Random(seed)
    cards = [(victim, frozen) for victim in TWO_WORKER_VICTIMS for frozen in (True, False)]
    planned: list[Outage] = []
    at = chance.uniform(*pace.between) / 2
    deck = _decks(chance, cards)
    while at < seconds or len(planned) < len(cards):
        victim, frozen = next(deck)
        down = chance.uniform(*pace.down)
        planned.append(Outage(round(at, 3), (victim,), round(down, 3), frozen))
        at += down + chance.uniform(*pace.between)
    return tuple(planned)


def count_kills(plan: Iterable[Outage]) -> dict[str, int]:
    """The number of kills of each process."""
    return _count_victims(outage for outage in plan if not outage.frozen)


def count_freezes(plan: Iterable[Outage]) -> dict[str, int]:
    """The number of freezes of each process; only of those that are frozen."""
    return {name: count for name, count in _count_victims(outage for outage in plan if outage.frozen).items() if count}


def _count_victims(outages: Iterable[Outage]) -> dict[str, int]:
    counts = Counter(victim for outage in outages for victim in outage.victims)
    return {victim: counts[victim] for victim in dict.fromkeys((*VICTIMS, *sorted(counts)))}


def _decks(chance: random.Random, cards: Sequence[Card]) -> Iterator[Card]:
    """Shuffled decks one after another, so that each card comes regularly."""
    while True:
        deck = list(cards)
        chance.shuffle(deck)
        yield from deck
