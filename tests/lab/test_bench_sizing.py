"""The arithmetic of the sizing and its simulation, on cases that can be calculated by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import policy
from app.config.policy import Retries
from lab.bench.sizing import __main__ as command
from lab.bench.sizing import measurement
from lab.bench.sizing.demand import Round, Site, average_task, demand, medians
from lab.bench.sizing.simulation import Plan, Simulation, Station, simulate
from lab.tickets import UNATTENDED, Shape
from runtime.errors import UserError
from tests.paths import ROOT

SITE = Site()
RETRIES = policy.load(ROOT / "config" / "policy.yaml").retries
QUIET = Plan(arrivals=3600, outage=(3600, 3600))
# A task of 5 steps, 2 of which call a model.
NEED = {
    "steps": 5,
    "model_calls": 2,
    "cpu_ms_agent": 30,
    "cpu_ms_daprd": 20,
    "cpu_ms_scheduler": 12,
    "cpu_ms_placement": 1,
    "cpu_ms_postgresql_state": 8,
    "cpu_ms_postgresql_ledger": 4,
    "cpu_ms_sandbox": 20,
    "state_transactions": 25,
    "ledger_transactions": 10,
    "state_bytes": 50_000,
    "ledger_bytes": 10_000,
    "state_wal_bytes": 100_000,
    "ledger_wal_bytes": 20_000,
    "scheduler_jobs": 11,
    "scheduler_written_bytes": 200_000,
    "input_tokens": 1_000,
    "output_tokens": 100,
}
QUESTIONS = replace(SITE, refund_share=0)


def run(rate: float, seed: int = 1, plan: Plan = QUIET, site: Site = QUESTIONS, **need: float) -> Simulation:
    """One simulated run of question tickets."""
    whole = NEED | need
    return simulate(whole, site, RETRIES, demand(whole, site, rate), seed, plan)


def one_round(shape: Shape, **changes: Any) -> Round:
    """A round with one quantity."""
    values: dict[str, Any] = {"tasks": 10, "seconds": 5.0, "task_seconds_p50": 2.5, "others_cores": 0.0}
    return Round(shape, **(values | {"per_task": {"state_rows": 40.0}, "idle_ms_per_second": {}} | changes))


def test_one_server_works_in_sequence_and_two_in_parallel() -> None:
    single, double = Station(1), Station(2)
    assert [single.serve(at, 2.0) for at in (0, 1, 10)] == [2, 4, 12]
    assert [double.serve(at, 2.0) for at in (0, 1, 1.5, 10)] == [2, 3, 4, 12]
    assert single.busy(12) == 0.5
    assert double.busy(16) == 0.25


def test_a_fraction_of_a_server_is_a_slower_server() -> None:
    assert Station(0.25).serve(0, 1.0) == 4.0
    assert Station(2.5).serve(0, 1.0) == pytest.approx(0.8)  # two servers with the capacity of two and a half


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.7), (2, 1.6)])
def test_the_mean_wait_is_that_of_erlangs_formula(servers: int, rate: float) -> None:
    chance, station, now, waited, count = random.Random(3), Station(servers), 0.0, 0.0, 400_000
    for _ in range(count):
        now += chance.expovariate(rate)
        works = chance.expovariate(1.0)
        waited += station.serve(now, works) - works - now
    load = rate / servers
    queued = rate**servers / math.factorial(servers) / (1 - load)
    must_wait = queued / (sum(rate**busy / math.factorial(busy) for busy in range(servers)) + queued)
    assert waited / count == pytest.approx(must_wait / (servers - rate), rel=0.05)


def test_every_task_arrives_and_ends_also_with_an_outage() -> None:
    simulation = run(200, plan=Plan())
    assert len(simulation.tasks) == pytest.approx(200 * 60, rel=0.03)
    assert all(task.arrived < task.ended < math.inf and not task.parked for task in simulation.tasks)
    assert simulation.failed_attempts > 0


def test_without_an_outage_every_step_is_tried_once() -> None:
    simulation = run(100)
    assert simulation.failed_attempts == 0
    assert simulation.attempts.total() == 5 * len(simulation.tasks)
    assert math.isnan(simulation.seconds(0.5, in_outage=True))


def test_a_task_that_never_waits_in_a_queue_takes_its_model_calls_and_tools() -> None:
    simulation = run(1)
    median = 2 * SITE.model_seconds + 3 * SITE.tool_seconds
    assert simulation.seconds(0.5) == pytest.approx(median, rel=0.25)


def test_a_station_is_busy_for_the_rate_times_its_work() -> None:
    simulation = run(600)  # 10 a second, of 30 and 20 ms
    assert sum(station.busy(3600) for station in simulation.stations["agent"]) == pytest.approx(0.3, rel=0.03)
    assert sum(station.busy(3600) for station in simulation.stations["sidecar"]) == pytest.approx(0.2, rel=0.03)
    assert simulation.stations["scheduler"][0].busy(3600) == pytest.approx(10 * 0.012 / SITE.scheduler_cores, rel=0.03)
    assert simulation.stations["state"][0].busy(3600) == pytest.approx(250 / SITE.database_writes, rel=0.03)


def test_open_tasks_are_the_rate_times_the_time_that_each_takes() -> None:
    simulation = run(300)  # Little's law
    mean_seconds = sum(task.ended - task.arrived for task in simulation.tasks) / len(simulation.tasks)
    open_counts = [simulation.open_tasks(at) for at in range(600, 3600, 20)]
    assert sum(open_counts) / len(open_counts) == pytest.approx(300 / 60 * mean_seconds, rel=0.05)


def test_a_seed_repeats_a_run_and_another_one_does_not() -> None:
    ends = [[task.ended for task in run(60, seed, Plan()).tasks] for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]


def test_tasks_that_arrive_in_an_outage_wait_for_its_end() -> None:
    simulation = run(120, plan=Plan())
    start, end = simulation.plan.outage
    caught = [task for task in simulation.tasks if start <= task.arrived < end]
    assert min(task.ended for task in caught) > end
    assert simulation.backlog() == pytest.approx(120 * 10, rel=0.1)
    assert 30 < simulation.recovery_seconds() < 2 * RETRIES.max_seconds
    usual = max(simulation.open_tasks(at) for at in range(int(start))) + 3  # sampled once a second here
    assert (
        simulation.open_tasks(end + simulation.recovery_seconds())
        <= usual
        < simulation.open_tasks(end + simulation.recovery_seconds() / 2)
    )
    assert simulation.peak() > 2


def test_only_calls_that_start_or_end_in_an_outage_fail() -> None:
    away_a_second = Plan(arrivals=300, outage=(200, 201))
    simulation = run(
        6_000, plan=away_a_second, site=replace(QUESTIONS, model_seconds=30, agent_cores=50, sidecar_cores=50)
    )
    # 100 tasks a second, of two calls: 200 begin and 200 end. The first pause is longer than the second.
    assert simulation.failed_attempts * simulation.parts == pytest.approx(400, rel=0.2)


def test_no_pause_is_longer_than_the_policy_says() -> None:
    simulation = run(60, plan=Plan())
    longest = RETRIES.max_seconds + 120  # and what the task itself takes
    assert (
        max(task.ended for task in simulation.tasks if task.arrived < simulation.plan.outage[1])
        < simulation.plan.outage[1] + longest
    )


def test_a_task_without_attempts_left_is_parked() -> None:
    few = Retries(first_seconds=1, max_seconds=60, attempts=3)
    simulation = simulate(NEED, QUESTIONS, few, demand(NEED, QUESTIONS, 60), 1, Plan())
    start, end = simulation.plan.outage
    parked = [task for task in simulation.tasks if task.parked]
    assert parked
    assert all(start < task.ended < end for task in parked)
    assert len(parked) == pytest.approx(60 * 10, rel=0.1)


def test_a_database_that_is_too_slow_is_the_limit_and_everything_still_ends() -> None:
    slow = replace(QUESTIONS, database_writes=50)
    size = replace(demand(NEED, slow, 180), shards=1)  # 75 write transactions a second
    simulation = simulate(NEED, slow, RETRIES, size, 1, QUIET)
    assert max(task.ended for task in simulation.tasks) == pytest.approx(3600 * 75 / 50, rel=0.03)


def test_a_part_of_a_fleet_is_as_busy_as_the_whole() -> None:
    size = demand(NEED, QUESTIONS, 20_000)
    simulation = simulate(NEED, QUESTIONS, RETRIES, size, 1, Plan(arrivals=900, outage=(900, 900)))
    assert simulation.parts * simulation.agents <= size.agents
    assert simulation.parts * len(simulation.tasks) == pytest.approx(20_000 * 15, rel=0.03)
    load = 20_000 / 60 * 0.030 / size.agents
    assert simulation.stations["agent"][0].busy(900) == pytest.approx(load, rel=0.1)
    assert simulation.stations["scheduler"][0].busy(900) == pytest.approx(
        20_000 / 60 * 0.012 / SITE.scheduler_cores / size.shards, rel=0.05
    )
    writes = 20_000 / 60 * 25 / size.shards
    assert simulation.stations["state"][0].busy(900) == pytest.approx(writes / SITE.database_writes, rel=0.1)


def test_the_demand_is_the_rate_times_what_a_task_needs() -> None:
    size = demand(NEED, SITE, 6_000)  # 100 a second
    assert size.needs["agent cores"] == pytest.approx(3.0)
    assert "sandbox cores" not in size.needs
    assert size.needs["state writes a second"] == pytest.approx(2_500)
    assert size.needs["scheduler jobs a second"] == pytest.approx(1_100)
    assert size.needs["state GB a day"] == pytest.approx(432)
    assert size.needs["tokens a minute"] == pytest.approx(6_600_000)
    assert size.needs["steps in flight"] == pytest.approx(1_060)
    assert size.agents == 6  # 1,060 steps in flight, 200 each; its CPU alone would need 5
    assert size.loads == pytest.approx(
        {"state database": 0.25, "ledger database": 0.1, "scheduler": 0.3, "state connections": 0.24}
    )
    assert (size.shards, size.first) == (1, "scheduler")
    assert size.carries("scheduler", 0.6) == pytest.approx(12_000)


def test_agents_are_counted_by_cpu_where_that_is_the_limit() -> None:
    assert demand(NEED, replace(SITE, model_seconds=0.1), 6_000).agents == 5  # 3 cores, 60 % of one each
    assert demand(NEED, SITE, 1).agents == SITE.least_agents


def test_a_rate_above_one_shards_limit_is_shared_by_several_with_their_own_agents() -> None:
    size = demand(NEED, replace(SITE, model_seconds=0.1, agent_cores=100, sidecar_cores=100), 30_000)
    assert size.loads["scheduler"] == pytest.approx(1.5)
    assert (size.shards, size.agents) == (3, 6)


def test_the_average_task_is_the_mix_of_both_shapes_medians() -> None:
    rounds = [one_round(Shape.QUESTION, per_task={"state_rows": rows}) for rows in (40.0, 90.0, 50.0)]
    rounds.append(one_round(Shape.REFUND, per_task={"state_rows": 100.0}))
    assert medians([entry.quantities for entry in rounds[:3]])["state_rows"] == (50, 40, 90)
    assert average_task(rounds, 0.2)["state_rows"] == pytest.approx(60)
    assert average_task(rounds, 0.2)["model_calls"] == pytest.approx(2.2)
    assert average_task(rounds, 0.2)["steps"] == pytest.approx(5.8)


def test_counters_grow_by_what_the_tasks_used() -> None:
    assert measurement.growth_per_task({"state_rows": 100, "jobs": 7}, {"state_rows": 400, "jobs": 7}, 10) == {
        "state_rows": 30,
        "jobs": 0,
    }


def test_a_metric_is_the_sum_over_its_labels() -> None:
    page = '# HELP a b\na_total{type="job"} 3\na_total{type="actor"} 4.5e+01\na_total_more 9\n'
    assert measurement.total(page, "a_total") == 48
    with pytest.raises(UserError, match="no b_total"):
        measurement.total(page, "b_total")


def test_measurements_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "sizing.json"
    rounds = [one_round(shape) for shape in UNATTENDED]
    measurement.write(file, {"machine": "two cores"}, rounds)
    assert measurement.read(file) == ({"machine": "two cores"}, rounds)
    file.write_text("[]")
    with pytest.raises(UserError, match="holds no measurement"):
        measurement.read(file)


def test_assumptions_about_a_cluster_agree_with_the_manifests() -> None:
    def documents(name: str) -> list[dict[str, Any]]:
        return [document for document in yaml.safe_load_all((ROOT / "k8s" / name).read_text()) if document]

    template = documents("base/agent.yaml")[0]["spec"]["template"]
    assert float(template["metadata"]["annotations"]["dapr.io/sidecar-cpu-limit"]) == SITE.sidecar_cores
    assert float(template["spec"]["containers"][0]["resources"]["limits"]["cpu"]) >= SITE.agent_cores
    (scaling,) = documents("overlays/production/scaling.yaml")
    assert scaling["spec"]["minReplicas"] == SITE.least_agents
    assert int(scaling["spec"]["metrics"][0]["pods"]["target"]["averageValue"]) == SITE.steps_per_agent
    (store,) = documents("overlays/production/statestore.yaml")
    values = {item["name"]: item.get("value") for item in store["spec"]["metadata"]}
    assert float(values["maxConns"]) == SITE.connections_per_agent


@pytest.mark.runtime
def test_the_measurement_counts_what_a_real_stack_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "MODEL_SECONDS", 0.05)
    monkeypatch.setattr(measurement, "_SETTLE_SECONDS", 1.0)  # counts of rows come later and are not checked
    file = tmp_path / "sizing.json"
    assert command.main(["--tasks", "12", "--rounds", "1", "--output", str(file)]) == 0
    machine, rounds = measurement.read(file)
    assert {"machine", "date", "daprd", "PostgreSQL"} <= machine.keys()
    assert [entry.shape for entry in rounds] == list(UNATTENDED)
    for entry in rounds:
        need = entry.per_task
        assert need["state_transactions"] > 5
        assert need["ledger_wal_bytes"] > 1_000
        assert 8 < need["scheduler_jobs"] < 40
        assert need["scheduler_written_bytes"] > 0
        assert need["cpu_ms_agent"] > 0
        assert need["cpu_ms_postgresql_state"] > 0


def test_the_documentation_has_the_results_of_the_measured_figures() -> None:
    document = (ROOT / "docs" / "scale.md").read_text()
    _, rounds = measurement.read(ROOT / "docs" / "scale.json")
    need = average_task(rounds, SITE.refund_share)
    demands = [demand(need, SITE, rate) for rate in (10, 1_000, 100_000)]
    tables = [command.costs(rounds), command.limits(demands[-1], SITE)]
    tables += [command.transpose([command.demand_rows(size) for size in demands])]
    # The first column is simulated in a moment, the others take ten seconds.
    tables += [command.transpose([command.simulation_rows(simulate(need, SITE, RETRIES, demands[0], 1))])]
    for name, cells in ((name, cells) for table in tables for name, cells in table.items()):
        row = f"| {' | '.join([name, *cells])} |"
        assert row in document, row
