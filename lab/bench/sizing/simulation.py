"""Discrete-event simulation of a fleet: tasks arrive at random, agents work on them, the provider has an outage.

A task consists of steps, one after another. Each step uses sidecar, agent, both databases and the scheduler for an
equal share of what was measured for the whole task, then waits for a model or a tool. A model call that starts or ends
during the outage fails and is repeated after a pause that doubles, as `config/policy.yaml` says. A failed attempt costs
as much as a successful step. The same seed gives the same result.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field

from app.config.policy import Retries
from lab.bench.sizing.demand import DATABASES, Demand, Site
from lab.tickets import MODEL_CALLS, STEPS, Shape

# All parts of a fleet behave alike. Of a large fleet, only a part with this rate is simulated, with its share of
# databases and schedulers.
MAX_TASKS_PER_MINUTE = 1000.0
_SIGMA = 0.5  # of the logarithm of a wait; the 99th percentile is 3.2 times the median
_WARM_UP_SECONDS = 300.0


class Station:
    """Equal servers with one queue, first come, first served. Call `serve` in order of time. Times are seconds."""

    def __init__(self, servers: float) -> None:
        """A fractional number is rounded down (to at least 1); the servers are slowed or sped up to the same total."""
        self.count = max(1, math.floor(servers))
        self._stretch = self.count / servers
        self._free = [0.0] * self.count
        self.busy_seconds = 0.0  # the sum over all servers

    def serve(self, now: float, seconds: float) -> float:
        """The time at which work that arrives now and takes `seconds` of a whole server is done."""
        end = max(now, self._free[0]) + seconds * self._stretch
        heapq.heapreplace(self._free, end)
        self.busy_seconds += seconds * self._stretch
        return end

    def busy(self, seconds: float) -> float:
        """The share of `seconds` during which a server worked, on average."""
        return self.busy_seconds / (self.count * seconds)


@dataclass(frozen=True)
class Plan:
    """Until when tasks arrive, and start and end of the provider's outage, in seconds from the start."""

    arrivals: float = 3600.0
    outage: tuple[float, float] = (1200.0, 1800.0)


_HOUR = Plan()


@dataclass
class Task:
    """One task: its arrival, its end, and whether it was parked because no attempt was left."""

    arrived: float
    ended: float = math.inf
    parked: bool = False


@dataclass
class Simulation:
    """The results of a run. agents, tasks and stations belong to the simulated part, which is one of `parts`."""

    parts: int
    agents: int
    plan: Plan
    tasks: list[Task] = field(default_factory=list)
    failed_attempts: int = 0
    attempts: Counter[int] = field(default_factory=Counter)  # of steps, by minute
    stations: dict[str, list[Station]] = field(default_factory=dict)

    def seconds(self, share: float, *, in_outage: bool = False) -> float:
        """The percentile `share` (0..1) of the seconds that finished tasks took; NaN without tasks.

        Counts the tasks that arrived well before the outage or, with `in_outage`, during it.
        """
        start, end = self.plan.outage if in_outage else (_WARM_UP_SECONDS, self.plan.outage[0] - _WARM_UP_SECONDS)
        finished = [task for task in self.tasks if start <= task.arrived < end and not task.parked]
        durations = sorted(task.ended - task.arrived for task in finished)
        return durations[min(int(share * len(durations)), len(durations) - 1)] if durations else math.nan

    def open_tasks(self, at: float) -> int:
        """Tasks of the simulated part that have arrived and not ended at that second."""
        return sum(task.arrived <= at < task.ended for task in self.tasks)

    def backlog(self) -> int:
        """Tasks of the whole fleet that are open at the end of the outage beyond those that were open at its start."""
        start, end = self.plan.outage
        return (self.open_tasks(end) - self.open_tasks(start)) * self.parts

    def recovery_seconds(self) -> float:
        """Seconds from the end of the outage until no more tasks are open than the maximum before it."""
        changes = sorted([(task.arrived, 1) for task in self.tasks] + [(task.ended, -1) for task in self.tasks])
        start, end = self.plan.outage
        open_tasks, usual = 0, 0
        for at, change in changes:
            open_tasks += change
            if at < start:
                usual = max(usual, open_tasks)
            elif at >= end and open_tasks <= usual:
                return at - end
        return math.nan  # no task has arrived

    def peak(self) -> float:
        """The most attempts of steps in a minute, as a multiple of the mean before the outage; NaN without attempts."""
        minutes = range(int(_WARM_UP_SECONDS / 60), int(self.plan.outage[0] / 60))
        usual = sum(self.attempts[minute] for minute in minutes) / max(len(minutes), 1)
        return max(self.attempts.values(), default=0) / usual if usual else math.nan


def simulate(
    need: Mapping[str, float], site: Site, retries: Retries, size: Demand, seed: int, plan: Plan = _HOUR
) -> Simulation:
    """Simulates until every task has ended.

    need has the quantities of the average task (`demand.average_task`), size the rate, agents and shards.
    """
    agents = max(1, math.floor(size.agents * MAX_TASKS_PER_MINUTE / size.tasks_per_minute))
    parts = max(1, size.agents // agents)
    simulation = Simulation(parts, size.agents // parts, plan)
    run = _Run(need, site, retries, simulation, random.Random(seed))
    run.run(size.tasks_per_minute / 60 / parts, size.shards / parts)
    return simulation


@dataclass
class _Run:
    need: Mapping[str, float]
    site: Site
    retries: Retries
    simulation: Simulation
    chance: random.Random

    def run(self, rate: float, share: float) -> None:
        """Runs until all tasks have ended. rate: tasks a second; share: the part's share of one shard."""
        agents = self._make_agents(share)
        arrivals = self._arrivals(rate)
        queue: list[tuple[float, int, Generator[float]]] = []  # the number orders what is due at the same time
        arriving, number = next(arrivals), 0
        while queue or arriving < math.inf:
            number += 1
            if not queue or arriving <= queue[0][0]:
                task = Task(arriving)
                self.simulation.tasks.append(task)
                work = self._work(task, *agents[self.chance.randrange(len(agents))])
                arriving = next(arrivals)
            else:
                _, _, work = heapq.heappop(queue)
            due = next(work, None)
            if due is not None:
                heapq.heappush(queue, (due, number, work))

    def _work(self, task: Task, visits: list[tuple[Station, float]], slots: Station) -> Generator[float]:
        """The steps of a task; yields the time at which it continues."""
        spread = 1 + self.chance.random()  # of its first pause, as in `steps.patience`
        now = task.arrived
        for asks_model in self._steps():
            for attempt in range(self.retries.attempts):
                if attempt:
                    self.simulation.failed_attempts += 1
                    now += min(self.retries.first_seconds * spread * 2 ** (attempt - 1), self.retries.max_seconds)
                    yield now
                self.simulation.attempts[int(now // 60)] += 1
                for station, seconds in visits:
                    now = station.serve(now, seconds)
                    yield now
                if asks_model and self._in_outage(now):
                    continue
                now = slots.serve(now, self._wait_seconds(asks_model))
                yield now
                if not (asks_model and self._in_outage(now)):
                    break
            else:
                task.parked = True
                break
        task.ended = now

    def _steps(self) -> list[bool]:
        """For each step whether it calls a model: model calls and lookups alternately, then the other tools."""
        shape = Shape.REFUND if self.chance.random() < self.site.refund_share else Shape.QUESTION
        calls = MODEL_CALLS[shape]
        return [True, False] * calls + [False] * (len(STEPS[shape]) - 2 * calls)

    def _wait_seconds(self, asks_model: bool) -> float:
        median = self.site.model_seconds if asks_model else self.site.tool_seconds
        return self.chance.lognormvariate(math.log(median), _SIGMA)

    def _in_outage(self, now: float) -> bool:
        start, end = self.simulation.plan.outage
        return start <= now < end

    def _arrivals(self, rate: float) -> Iterator[float]:
        now = self.chance.expovariate(rate)
        while now < self.simulation.plan.arrivals:
            yield now
            now += self.chance.expovariate(rate)
        yield math.inf

    def _make_agents(self, share: float) -> list[tuple[list[tuple[Station, float]], Station]]:
        """For each agent, the stations that a step visits, each with seconds, and the slots in which it waits."""
        site, step = self.site, {name: value / self.need["steps"] for name, value in self.need.items()}
        writers = site.database_writes * site.commit_seconds * share  # transactions that run in parallel
        common = [(name, Station(writers), step[f"{name}_transactions"] * site.commit_seconds) for name in DATABASES]
        common.append(("scheduler", Station(site.scheduler_cores * share), step["cpu_ms_scheduler"] / 1000))
        stations = self.simulation.stations = {name: [station] for name, station, _ in common}
        agents = []
        for _ in range(self.simulation.agents):
            own = [
                ("sidecar", Station(site.sidecar_cores), step["cpu_ms_daprd"] / 1000),
                ("agent", Station(site.agent_cores), step["cpu_ms_agent"] / 1000),
            ]
            slots = Station(site.steps_at_most)
            for name, station, _ in (*own, ("steps in flight", slots, 0.0)):
                stations.setdefault(name, []).append(station)
            agents.append(([(station, seconds) for _, station, seconds in (*own, *common)], slots))
        return agents
