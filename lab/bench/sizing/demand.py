"""From what a task costs to what so many tasks a minute need: agents, cores, writes, bytes. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.bootstrap import ACTIVITIES_AT_ONCE
from lab.tickets import MODEL_CALLS, STEPS, Shape

_DAY_SECONDS, _GB = 86_400, 1e9
DATABASES = ("state", "ledger")
# Those of a cluster; the sandbox and the load generator are the measurement's.
PROCESSES = ("agent", "daprd", "scheduler", "placement", "postgresql_state", "postgresql_ledger")


@dataclass(frozen=True)
class Round:
    """One shape of ticket, worked once. per_task: quantities by name, `cpu_ms_...` in milliseconds, `..._bytes` in
    bytes, the others counts. idle_ms_per_second: CPU of each process while no task runs."""

    shape: Shape
    tasks: int
    seconds: float
    task_seconds_p50: float
    others_cores: float  # cores that somebody else kept busy meanwhile
    per_task: Mapping[str, float]
    idle_ms_per_second: Mapping[str, float]

    @property
    def quantities(self) -> dict[str, float]:
        """All that is measured of a task, its seconds included."""
        return {**self.per_task, "seconds_p50": self.task_seconds_p50}


@dataclass(frozen=True)
class Site:
    """What is assumed about a cluster; nothing of it was measured. A shard is a namespace with its own scheduler, its
    own PostgreSQL servers for state and ledger, and as many agents as it needs."""

    refund_share: float = 0.5  # of the tickets; the others are questions
    model_seconds: float = 5.0  # a model call's median
    tool_seconds: float = 0.2  # a request's median
    busy: float = 0.6  # how busy a part may be on average
    agent_cores: float = 1.0  # one Python process works at one thing at a time, whatever its limit is
    sidecar_cores: float = 1.0  # k8s/base/agent.yaml
    steps_per_agent: int = 200  # k8s/overlays/production/scaling.yaml
    steps_at_most: int = ACTIVITIES_AT_ONCE
    least_agents: int = 2  # k8s/overlays/production/scaling.yaml
    scheduler_cores: float = 4.0
    database_writes: float = 10_000.0  # write transactions a second of one PostgreSQL server
    commit_seconds: float = 0.005  # how long one of them takes
    connections: float = 500.0  # of one PostgreSQL server
    connections_per_agent: float = 20.0  # maxConns, k8s/overlays/production/statestore.yaml


@dataclass(frozen=True)
class Demand:
    """What a rate needs. loads: how busy each part would be if one shard had all of the work, as a share of what
    it can do."""

    tasks_per_minute: float
    agents: int
    shards: int
    needs: Mapping[str, float]  # by a name that ends with its unit
    loads: Mapping[str, float]

    @property
    def first(self) -> str:
        """The part that is nearest to its limit, or furthest above it."""
        return max(self.loads, key=lambda part: self.loads[part])

    def carries(self, part: str, busy: float) -> float:
        """Tasks a minute at which that part of one shard is so busy."""
        return self.tasks_per_minute * busy / self.loads[part]


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float, float]]:
    """Median, least and most of each quantity over the rounds."""
    columns = {name: [each[name] for each in rounds] for name in rounds[0]}
    return {name: (statistics.median(each), min(each), max(each)) for name, each in columns.items()}


def mixed(rounds: Sequence[Round], refund_share: float) -> dict[str, float]:
    """The median of each quantity, for the average task of such a mix; `steps` and `model_calls` among them."""
    found: dict[str, float] = {}
    for shape, share in ((Shape.QUESTION, 1 - refund_share), (Shape.REFUND, refund_share)):
        some = medians([each.quantities for each in rounds if each.shape is shape])
        middle = {name: value for name, (value, _, _) in some.items()}
        for name, value in (middle | {"steps": len(STEPS[shape]), "model_calls": MODEL_CALLS[shape]}).items():
            found[name] = found.get(name, 0.0) + share * value
    return found


def demand(need: Mapping[str, float], site: Site, tasks_per_minute: float) -> Demand:
    """What so many tasks a minute need, each of which needs `need`."""
    rate = tasks_per_minute / 60
    cores = {name: rate * need[f"cpu_ms_{name}"] / 1000 for name in PROCESSES}
    tools = need["steps"] - need["model_calls"]
    in_flight = rate * (need["model_calls"] * site.model_seconds + tools * site.tool_seconds)
    by_cpu = max(cores["agent"] / site.agent_cores, cores["daprd"] / site.sidecar_cores) / site.busy
    agents = max(site.least_agents, math.ceil(by_cpu), math.ceil(in_flight / site.steps_per_agent))
    loads = {f"{name} database": rate * need[f"{name}_transactions"] / site.database_writes for name in DATABASES}
    loads["scheduler"] = cores["scheduler"] / site.scheduler_cores
    shards = max(1, math.ceil(max(loads.values()) / site.busy))
    needs = {"steps in flight": in_flight} | {f"{name.replace('_', ' ')} cores": each for name, each in cores.items()}
    needs |= {f"{name} writes a second": rate * need[f"{name}_transactions"] for name in DATABASES}
    needs |= {f"{name} GB a day": rate * need[f"{name}_bytes"] * _DAY_SECONDS / _GB for name in DATABASES}
    needs |= {f"{name} log GB a day": rate * need[f"{name}_wal_bytes"] * _DAY_SECONDS / _GB for name in DATABASES}
    needs["scheduler jobs a second"] = rate * need["scheduler_jobs"]
    needs["scheduler disk GB a day"] = rate * need["scheduler_written_bytes"] * _DAY_SECONDS / _GB
    needs["tokens a minute"] = tasks_per_minute * (need["input_tokens"] + need["output_tokens"])
    loads["state connections"] = agents * site.connections_per_agent / site.connections
    return Demand(tasks_per_minute, max(agents, shards * site.least_agents), shards, needs, loads)
