"""Computes the agents, cores, writes and bytes that a number of tasks a minute needs, from what one task needs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.bootstrap import ACTIVITIES_AT_ONCE
from lab.tickets import MODEL_CALLS, STEPS, Shape

_DAY_SECONDS, _GB = 86_400, 1e9
DATABASES = ("state", "ledger")
# The processes of a cluster; sandbox and load generator belong to the measurement only.
PROCESSES = ("agent", "daprd", "scheduler", "placement", "postgresql_state", "postgresql_ledger")


@dataclass(frozen=True)
class Round:
    """The measurement of one shape of ticket in one round.

    per_task has quantities by name: `cpu_ms_...` in milliseconds, `..._bytes` in bytes, the others are counts.
    idle_ms_per_second has the CPU time of each process while no task runs.
    """

    shape: Shape
    tasks: int
    seconds: float
    task_seconds_p50: float
    others_cores: float  # cores that other programs kept busy meanwhile
    per_task: Mapping[str, float]
    idle_ms_per_second: Mapping[str, float]

    @property
    def quantities(self) -> dict[str, float]:
        """`per_task` and the median seconds of a task."""
        return {**self.per_task, "seconds_p50": self.task_seconds_p50}


@dataclass(frozen=True)
class Site:
    """Assumptions about a cluster, none of them measured. A shard is a namespace with its own scheduler, its own
    PostgreSQL servers for state and ledger, and as many agents as it needs."""

    refund_share: float = 0.5  # of the tickets; the others are questions
    model_seconds: float = 5.0  # a model call's median
    tool_seconds: float = 0.2  # a request's median
    busy: float = 0.6  # the share of its capacity that a part may use on average
    agent_cores: float = 1.0  # a Python process uses one core, whatever its limit is
    sidecar_cores: float = 1.0  # k8s/base/agent.yaml
    steps_per_agent: int = 200  # k8s/overlays/production/scaling.yaml
    steps_at_most: int = ACTIVITIES_AT_ONCE
    least_agents: int = 2  # k8s/overlays/production/scaling.yaml
    scheduler_cores: float = 4.0
    database_writes: float = 10_000.0  # write transactions a second of one PostgreSQL server
    commit_seconds: float = 0.005  # the duration of one write transaction
    connections: float = 500.0  # of one PostgreSQL server
    connections_per_agent: float = 20.0  # maxConns, k8s/overlays/production/statestore.yaml


@dataclass(frozen=True)
class Demand:
    """What a rate of tasks needs. loads: how busy each part would be if one shard did all of the work, as a share
    of its capacity."""

    tasks_per_minute: float
    agents: int
    shards: int
    needs: Mapping[str, float]  # by name; the name ends with the unit
    loads: Mapping[str, float]

    @property
    def first(self) -> str:
        """The part with the highest load."""
        return max(self.loads, key=lambda part: self.loads[part])

    def carries(self, part: str, busy: float) -> float:
        """Tasks a minute at which the part of one shard is `busy` (a share of its capacity)."""
        return self.tasks_per_minute * busy / self.loads[part]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float, float]]:
    """Median, minimum and maximum of each quantity over the rounds."""
    columns = {name: [quantities[name] for quantities in rounds] for name in rounds[0]}
    return {name: (statistics.median(values), min(values), max(values)) for name, values in columns.items()}


def average_task(rounds: Sequence[Round], refund_share: float) -> dict[str, float]:
    """The quantities of the average task if `refund_share` of the tickets are refunds and the others questions.

    Each shape counts with its medians. `steps` and `model_calls` are added.
    """
    average: dict[str, float] = {}
    for shape, share in ((Shape.QUESTION, 1 - refund_share), (Shape.REFUND, refund_share)):
        spreads = medians([entry.quantities for entry in rounds if entry.shape is shape])
        middle = {name: value for name, (value, _, _) in spreads.items()}
        for name, value in (middle | {"steps": len(STEPS[shape]), "model_calls": MODEL_CALLS[shape]}).items():
            average[name] = average.get(name, 0.0) + share * value
    return average


def demand(need: Mapping[str, float], site: Site, tasks_per_minute: float) -> Demand:
    """What a rate of tasks needs on this site. need: the quantities of the average task (`average_task`)."""
    rate = tasks_per_minute / 60
    cores = {name: rate * need[f"cpu_ms_{name}"] / 1000 for name in PROCESSES}
    tools = need["steps"] - need["model_calls"]
    in_flight = rate * (need["model_calls"] * site.model_seconds + tools * site.tool_seconds)
    by_cpu = max(cores["agent"] / site.agent_cores, cores["daprd"] / site.sidecar_cores) / site.busy
    agents = max(site.least_agents, math.ceil(by_cpu), math.ceil(in_flight / site.steps_per_agent))
    loads = {f"{name} database": rate * need[f"{name}_transactions"] / site.database_writes for name in DATABASES}
    loads["scheduler"] = cores["scheduler"] / site.scheduler_cores
    shards = max(1, math.ceil(max(loads.values()) / site.busy))
    needs = {"steps in flight": in_flight} | {f"{name.replace('_', ' ')} cores": value for name, value in cores.items()}
    needs |= {f"{name} writes a second": rate * need[f"{name}_transactions"] for name in DATABASES}
    needs |= {f"{name} GB a day": rate * need[f"{name}_bytes"] * _DAY_SECONDS / _GB for name in DATABASES}
    needs |= {f"{name} log GB a day": rate * need[f"{name}_wal_bytes"] * _DAY_SECONDS / _GB for name in DATABASES}
    needs["scheduler jobs a second"] = rate * need["scheduler_jobs"]
    needs["scheduler disk GB a day"] = rate * need["scheduler_written_bytes"] * _DAY_SECONDS / _GB
    needs["tokens a minute"] = tasks_per_minute * (need["input_tokens"] + need["output_tokens"])
    loads["state connections"] = agents * site.connections_per_agent / site.connections
    return Demand(tasks_per_minute, max(agents, shards * site.least_agents), shards, needs, loads)
