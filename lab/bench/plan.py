"""What is measured: cases, and the order in which they are; values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from lab.tickets import UNATTENDED, Shape


class Side(StrEnum):
    """Whose workflow engine works."""

    OURS = "refund-agent on Dapr"
    PEER = "DBOS"


class Store(StrEnum):
    """Where the workflow's state lies."""

    POSTGRES = "PostgreSQL"
    REDIS = "Redis"
    SQLITE = "SQLite"


class Submission(StrEnum):
    """How tickets come in."""

    HTTP = "HTTP"  # a POST with a bearer token, from the load generator
    DIRECT = "direct"  # ours: the load generator's gRPC client to daprd; DBOS: a call inside its own process


@dataclass(frozen=True)
class Variant:
    """One way to run the peer."""

    style: str  # coroutines | threads
    start: str  # direct | queue
    threads: int
    connections: int

    def __str__(self) -> str:
        return f"{self.style}, started {'by its queue' if self.start == 'queue' else 'directly'}"


VARIANTS = (
    Variant("coroutines", "direct", threads=20, connections=20),
    Variant("coroutines", "queue", threads=20, connections=20),
    Variant("threads", "direct", threads=256, connections=20),
    Variant("threads", "queue", threads=256, connections=20),
)

# What was quickest when all were last measured; the full run measures them again.
DEFAULT_VARIANTS = {0.0: VARIANTS[0], 1.0: VARIANTS[2]}


@dataclass(frozen=True)
class Case:
    """One thing that is measured."""

    side: Side
    store: Store
    submission: Submission
    latency: float  # seconds that a model call takes
    shape: Shape


@dataclass(frozen=True)
class Block:
    """Cases that one set of processes works, in order. `variant` is the peer's."""

    side: Side
    store: Store
    cases: tuple[Case, ...]
    variant: Variant | None = None


@dataclass(frozen=True)
class Pace:
    """How long, and how many at once."""

    rounds: int
    warm_up_seconds: float
    window_seconds: float
    alone: dict[float, int]  # model latency -> tasks one after another, each round; 0 leaves it out
    in_flight: dict[float, int] = field(default_factory=lambda: {0.0: 32, 1.0: 128})


FULL = Pace(rounds=3, warm_up_seconds=5, window_seconds=15, alone={0.0: 30, 1.0: 10})
QUICK = Pace(rounds=2, warm_up_seconds=4, window_seconds=8, alone={0.0: 15, 1.0: 0})
LATENCIES = (0.0, 1.0)


def cases(side: Side, store: Store, *, quick: bool) -> tuple[Case, ...]:
    """The cases of one side on one store. Direct submission is compared on the stores that both sides have."""
    submissions = [Submission.HTTP]
    if not quick and store is Store.POSTGRES:
        submissions.append(Submission.DIRECT)
    shapes = (Shape.QUESTION,) if quick else UNATTENDED
    return tuple(
        Case(side, store, submission, latency, shape)
        for submission in submissions
        for latency in LATENCIES
        for shape in shapes
    )


def blocks(stores: tuple[Store, ...], variants: dict[float, Variant], *, quick: bool) -> tuple[Block, ...]:
    """One round: ours, the peer, and ours on the other stores. The peer runs as what is best for each latency."""
    ours = [Block(Side.OURS, store, cases(Side.OURS, store, quick=quick)) for store in stores]
    return (*ours[:1], *peer_blocks(cases(Side.PEER, Store.POSTGRES, quick=quick), variants), *ours[1:])


def peer_blocks(wanted: tuple[Case, ...], variants: dict[float, Variant]) -> list[Block]:
    """The peer's cases, by the variant that works them."""
    by_variant: dict[Variant, list[Case]] = {}
    for case in wanted:
        by_variant.setdefault(variants[case.latency], []).append(case)
    return [Block(Side.PEER, Store.POSTGRES, tuple(each), variant) for variant, each in by_variant.items()]
