"""The cases that a benchmark measures, and their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from lab.tickets import UNATTENDED, Shape


class Side(StrEnum):
    """The workflow engine that is measured."""

    OURS = "refund-agent on Dapr"
    DBOS = "DBOS"


class Store(StrEnum):
    """The database that holds the workflow's state."""

    POSTGRES = "PostgreSQL"
    REDIS = "Redis"
    SQLITE = "SQLite"


class Submission(StrEnum):
    """How tickets reach the engine."""

    HTTP = "HTTP"  # a POST with a bearer token, from the load generator
    DIRECT = "direct"  # ours: the load generator's gRPC client to daprd; DBOS: a call inside its own process


@dataclass(frozen=True)
class Variant:
    """One configuration of the DBOS baseline."""

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

# By model latency, the fastest variant when all were last measured; the full run measures them again.
DEFAULT_VARIANTS = {0.0: VARIANTS[0], 1.0: VARIANTS[2]}


@dataclass(frozen=True)
class Case:
    """One combination of engine, store, submission, model latency and ticket shape."""

    side: Side
    store: Store
    submission: Submission
    latency: float  # seconds that a model call takes
    shape: Shape


@dataclass(frozen=True)
class Block:
    """Cases that are measured in order on one set of processes. `variant` is set for DBOS only."""

    side: Side
    store: Store
    cases: tuple[Case, ...]
    variant: Variant | None = None


@dataclass(frozen=True)
class Pace:
    """Rounds, durations, and tasks in flight by model latency in seconds."""

    rounds: int
    warm_up_seconds: float
    window_seconds: float
    alone: dict[float, int]  # by model latency: tasks in each round that run with nothing else; 0 skips them
    in_flight: dict[float, int] = field(default_factory=lambda: {0.0: 32, 1.0: 128})


FULL = Pace(rounds=3, warm_up_seconds=5, window_seconds=15, alone={0.0: 30, 1.0: 10})
QUICK = Pace(rounds=2, warm_up_seconds=4, window_seconds=8, alone={0.0: 15, 1.0: 0})
LATENCIES = (0.0, 1.0)


def cases(side: Side, store: Store, *, quick: bool) -> tuple[Case, ...]:
    """The cases of one side on one store. Direct submission is measured on PostgreSQL only, which both sides use."""
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
    """One round: ours, DBOS, then ours on the other stores. `variants` has the variant of DBOS for each latency."""
    ours = [Block(Side.OURS, store, cases(Side.OURS, store, quick=quick)) for store in stores]
    return (*ours[:1], *dbos_blocks(cases(Side.DBOS, Store.POSTGRES, quick=quick), variants), *ours[1:])


def dbos_blocks(dbos_cases: tuple[Case, ...], variants: dict[float, Variant]) -> list[Block]:
    """The cases of DBOS, grouped by the variant that runs them."""
    by_variant: dict[Variant, list[Case]] = {}
    for case in dbos_cases:
        by_variant.setdefault(variants[case.latency], []).append(case)
    return [Block(Side.DBOS, Store.POSTGRES, tuple(group), variant) for variant, group in by_variant.items()]
