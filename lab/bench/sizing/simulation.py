"""Discrete events: tasks arrive at random, agents work at them, the provider is away for a while. Pure, repeatable.

A task is its steps, one after another. A step uses its sidecar, its agent, the two databases and the scheduler, each
for its share of what was measured for the whole task, and then waits for a model or a tool. A model call that ends
while the provider is away fails, and is tried again after a pause that doubles, as `config/policy.yaml` says. Each
attempt costs as much as a step that succeeds.
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

# A fleet is alike everywhere: of a large one only a part with so many tasks a minute is simulated, with its share of
# databases and schedulers.
MOST_TASKS_PER_MINUTE = 1000.0
_SIGMA = 0.5  # of the logarithm of a wait: the 99th percentile is 3.2 times the median
_WARM_UP_SECONDS = 300.0


class Station:
    """Equal servers with one queue, first come, first served. Ask in the order of time. Times are in seconds."""

    def __init__(self, servers: float) -> None:
        """Less than a whole server, or a part of one, is as many whole ones that work more slowly together."""
        self.count = max(1, math.floor(servers))
        self._stretch = self.count / servers
        self._free = [0.0] * self.count
        self.busy_seconds = 0.0  # of all servers

    def serve(self, now: float, seconds: float) -> float:
        """When work that arrives now, and takes a whole server so long, is done."""
        end = max(now, self._free[0]) + seconds * self._stretch
        heapq.heapreplace(self._free, end)
        self.busy_seconds += seconds * self._stretch
        return end

    def busy(self, seconds: float) -> float:
        """The share of its time, so many seconds, that a server worked."""
        return self.busy_seconds / (self.count * seconds)


@dataclass(frozen=True)
class Plan:
    """When tasks arrive and when the provider is away, in seconds from the start."""

    arrivals: float = 3600.0
    outage: tuple[float, float] = (1200.0, 1800.0)


_HOUR = Plan()


@dataclass
class Task:
    """One task: when it arrived, and when it finished or, its attempts over, was parked."""

    arrived: float
    ended: float = math.inf
    parked: bool = False


@dataclass
class Seen:
    """What came of a run. agents, tasks and stations are those of the part that was simulated, one of `parts` alike."""

    parts: int
    agents: int
    plan: Plan
    tasks: list[Task] = field(default_factory=list)
    failed_attempts: int = 0
    attempts: Counter[int] = field(default_factory=Counter)  # of steps, by minute
    stations: dict[str, list[Station]] = field(default_factory=dict)

    def seconds(self, share: float, *, in_outage: bool = False) -> float:
        """Within how long this share of the tasks finished, of those that arrived well before the outage, or of those
        that arrived in it. NaN when there are none."""
        start, end = self.plan.outage if in_outage else (_WARM_UP_SECONDS, self.plan.outage[0] - _WARM_UP_SECONDS)
        some = [task for task in self.tasks if start <= task.arrived < end and not task.parked]
        took = sorted(each.ended - each.arrived for each in some)
        return took[min(int(share * len(took)), len(took) - 1)] if took else math.nan

    def there(self, at: float) -> int:
        """Tasks of the part that have arrived and not ended at that second."""
        return sum(task.arrived <= at < task.ended for task in self.tasks)

    def backlog(self) -> int:
        """How many more tasks of the whole fleet wait when the provider comes back than when it went away."""
        start, end = self.plan.outage
        return (self.there(end) - self.there(start)) * self.parts

    def worked_off(self) -> float:
        """Seconds from the provider's return until no more tasks are there than at most before it went away."""
        changes = sorted([(task.arrived, 1) for task in self.tasks] + [(task.ended, -1) for task in self.tasks])
        start, end = self.plan.outage
        there, usual = 0, 0
        for at, change in changes:
            there += change
            if at < start:
                usual = max(usual, there)
            elif at >= end and there <= usual:
                return at - end
        return math.nan  # none arrived

    def peak(self) -> float:
        """The most attempts of steps in a minute, as a multiple of the mean before the outage. NaN without any."""
        minutes = range(int(_WARM_UP_SECONDS / 60), int(self.plan.outage[0] / 60))
        usual = sum(self.attempts[minute] for minute in minutes) / max(len(minutes), 1)
        return max(self.attempts.values(), default=0) / usual if usual else math.nan


def simulate(
    need: Mapping[str, float], site: Site, retries: Retries, wanted: Demand, seed: int, plan: Plan = _HOUR
) -> Seen:
    """One run until every task has ended. need: what an average task needs (`demand.mixed`); wanted: the rate, and the
    agents and shards that work it."""
    agents = max(1, math.floor(wanted.agents * MOST_TASKS_PER_MINUTE / wanted.tasks_per_minute))
    parts = max(1, wanted.agents // agents)
    seen = Seen(parts, wanted.agents // parts, plan)
    run = _Run(need, site, retries, seen, random.Random(seed))
    run.until_all_have_ended(wanted.tasks_per_minute / 60 / parts, wanted.shards / parts)
    return seen


@dataclass
class _Run:
    need: Mapping[str, float]
    site: Site
    retries: Retries
    seen: Seen
    chance: random.Random

    def until_all_have_ended(self, rate: float, share: float) -> None:
        """`rate` is tasks a second, `share` the part's of a shard's databases and scheduler."""
        agents = self._agents(share)
        arrivals = self._arrivals(rate)
        queue: list[tuple[float, int, Generator[float]]] = []  # the number keeps what is due at one moment in order
        arriving, number = next(arrivals), 0
        while queue or arriving < math.inf:
            number += 1
            if not queue or arriving <= queue[0][0]:
                task = Task(arriving)
                self.seen.tasks.append(task)
                work = self._work(task, *agents[self.chance.randrange(len(agents))])
                arriving = next(arrivals)
            else:
                _, _, work = heapq.heappop(queue)
            due = next(work, None)
            if due is not None:
                heapq.heappush(queue, (due, number, work))

    def _work(self, task: Task, visits: list[tuple[Station, float]], slots: Station) -> Generator[float]:
        """A task's life: yields when it goes on next."""
        spread = 1 + self.chance.random()  # of its first pause, as `steps.patience` has it
        now = task.arrived
        for asks_model in self._steps():
            for attempt in range(self.retries.attempts):
                if attempt:
                    self.seen.failed_attempts += 1
                    now += min(self.retries.first_seconds * spread * 2 ** (attempt - 1), self.retries.max_seconds)
                    yield now
                self.seen.attempts[int(now // 60)] += 1
                for station, seconds in visits:
                    now = station.serve(now, seconds)
                    yield now
                if asks_model and self._away(now):
                    continue
                now = slots.serve(now, self._wait(asks_model))
                yield now
                if not (asks_model and self._away(now)):
                    break
            else:
                task.parked = True
                break
        task.ended = now

    def _steps(self) -> list[bool]:
        """Which steps ask a model: calls and lookups in turns, then the letter and the case's end."""
        shape = Shape.REFUND if self.chance.random() < self.site.refund_share else Shape.QUESTION
        calls = MODEL_CALLS[shape]
        return [True, False] * calls + [False] * (len(STEPS[shape]) - 2 * calls)

    def _wait(self, asks_model: bool) -> float:
        median = self.site.model_seconds if asks_model else self.site.tool_seconds
        return self.chance.lognormvariate(math.log(median), _SIGMA)

    def _away(self, now: float) -> bool:
        start, end = self.seen.plan.outage
        return start <= now < end

    def _arrivals(self, rate: float) -> Iterator[float]:
        now = self.chance.expovariate(rate)
        while now < self.seen.plan.arrivals:
            yield now
            now += self.chance.expovariate(rate)
        yield math.inf

    def _agents(self, share: float) -> list[tuple[list[tuple[Station, float]], Station]]:
        """For each agent what a step visits, in order and for how long, and where it waits."""
        site, step = self.site, {name: value / self.need["steps"] for name, value in self.need.items()}
        writers = site.database_writes * site.commit_seconds * share  # transactions that run side by side
        common = [(name, Station(writers), step[f"{name}_transactions"] * site.commit_seconds) for name in DATABASES]
        common.append(("scheduler", Station(site.scheduler_cores * share), step["cpu_ms_scheduler"] / 1000))
        stations = self.seen.stations = {name: [station] for name, station, _ in common}
        agents = []
        for _ in range(self.seen.agents):
            own = [
                ("sidecar", Station(site.sidecar_cores), step["cpu_ms_daprd"] / 1000),
                ("agent", Station(site.agent_cores), step["cpu_ms_agent"] / 1000),
            ]
            slots = Station(site.steps_at_most)
            for name, station, _ in (*own, ("steps in flight", slots, 0.0)):
                stations.setdefault(name, []).append(station)
            agents.append(([(station, seconds) for _, station, seconds in (*own, *common)], slots))
        return agents
