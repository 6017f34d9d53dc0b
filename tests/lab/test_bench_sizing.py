"""The sizing's arithmetic and its simulation, on cases that can be worked out by hand."""

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
from lab.bench.sizing.demand import Round, Site, demand, medians, mixed
from lab.bench.sizing.simulation import Plan, Seen, Station, simulate
from lab.tickets import UNATTENDED, Shape
from runtime.errors import UserError
from tests.paths import ROOT

SITE = Site()
RETRIES = policy.load(ROOT / "config" / "policy.yaml").retries
QUIET = Plan(arrivals=3600, outage=(3600, 3600))
# Of a task of 5 steps, 2 of which ask a model.
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


def run(rate: float, seed: int = 1, plan: Plan = QUIET, site: Site = QUESTIONS, **need: float) -> Seen:
    """One simulated run of question tickets."""
    whole = NEED | need
    return simulate(whole, site, RETRIES, demand(whole, site, rate), seed, plan)


def one_round(shape: Shape, **changes: Any) -> Round:
    """A round with one quantity."""
    values: dict[str, Any] = {"tasks": 10, "seconds": 5.0, "task_seconds_p50": 2.5, "others_cores": 0.0}
    return Round(shape, **(values | {"per_task": {"state_rows": 40.0}, "idle_ms_per_second": {}} | changes))


def test_one_server_works_one_thing_after_another_and_two_side_by_side() -> None:
    one, two = Station(1), Station(2)
    assert [one.serve(at, 2.0) for at in (0, 1, 10)] == [2, 4, 12]
    assert [two.serve(at, 2.0) for at in (0, 1, 1.5, 10)] == [2, 3, 4, 12]
    assert one.busy(12) == 0.5
    assert two.busy(16) == 0.25


def test_a_part_of_a_server_is_one_that_works_more_slowly() -> None:
    assert Station(0.25).serve(0, 1.0) == 4.0
    assert Station(2.5).serve(0, 1.0) == pytest.approx(0.8)  # two that do together what two and a half would


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.7), (2, 1.6)])
def test_the_mean_wait_is_that_of_erlangs_formula(servers: int, rate: float) -> None:
    chance, station, now, waited, count = random.Random(3), Station(servers), 0.0, 0.0, 400_000
    for _ in range(count):
        now += chance.expovariate(rate)
        works = chance.expovariate(1.0)
        waited += station.serve(now, works) - works - now
    load = rate / servers
    some = rate**servers / math.factorial(servers) / (1 - load)
    must_wait = some / (sum(rate**each / math.factorial(each) for each in range(servers)) + some)
    assert waited / count == pytest.approx(must_wait / (servers - rate), rel=0.05)


def test_every_task_arrives_and_ends_also_when_the_provider_was_away() -> None:
    seen = run(200, plan=Plan())
    assert len(seen.tasks) == pytest.approx(200 * 60, rel=0.03)
    assert all(each.arrived < each.ended < math.inf and not each.parked for each in seen.tasks)
    assert seen.failed_attempts > 0


def test_without_an_outage_every_step_is_tried_once() -> None:
    seen = run(100)
    assert seen.failed_attempts == 0
    assert seen.attempts.total() == 5 * len(seen.tasks)
    assert math.isnan(seen.seconds(0.5, in_outage=True))


def test_a_task_that_never_waits_in_a_queue_takes_its_model_calls_and_tools() -> None:
    seen = run(1)
    median = 2 * SITE.model_seconds + 3 * SITE.tool_seconds
    assert seen.seconds(0.5) == pytest.approx(median, rel=0.25)


def test_a_station_is_as_busy_as_the_rate_times_its_work() -> None:
    seen = run(600)  # 10 a second, of 30 and 20 ms
    assert sum(each.busy(3600) for each in seen.stations["agent"]) == pytest.approx(0.3, rel=0.03)
    assert sum(each.busy(3600) for each in seen.stations["sidecar"]) == pytest.approx(0.2, rel=0.03)
    assert seen.stations["scheduler"][0].busy(3600) == pytest.approx(10 * 0.012 / SITE.scheduler_cores, rel=0.03)
    assert seen.stations["state"][0].busy(3600) == pytest.approx(250 / SITE.database_writes, rel=0.03)


def test_what_is_there_is_the_rate_times_the_time_that_each_takes() -> None:
    seen = run(300)  # Little's law
    took = sum(each.ended - each.arrived for each in seen.tasks) / len(seen.tasks)
    there = [seen.there(at) for at in range(600, 3600, 20)]
    assert sum(there) / len(there) == pytest.approx(300 / 60 * took, rel=0.05)


def test_a_seed_repeats_a_run_and_another_one_does_not() -> None:
    ends = [[each.ended for each in run(60, seed, Plan()).tasks] for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]


def test_all_that_arrives_in_an_outage_waits_for_its_end() -> None:
    seen = run(120, plan=Plan())
    start, end = seen.plan.outage
    caught = [each for each in seen.tasks if start <= each.arrived < end]
    assert min(each.ended for each in caught) > end
    assert seen.backlog() == pytest.approx(120 * 10, rel=0.1)
    assert 30 < seen.worked_off() < 2 * RETRIES.max_seconds
    usual = max(seen.there(at) for at in range(int(start))) + 3  # it is looked at once a second here
    assert seen.there(end + seen.worked_off()) <= usual < seen.there(end + seen.worked_off() / 2)
    assert seen.peak() > 2


def test_calls_that_begin_or_end_while_the_provider_is_away_fail_and_no_others() -> None:
    away_a_second = Plan(arrivals=300, outage=(200, 201))
    seen = run(6_000, plan=away_a_second, site=replace(QUESTIONS, model_seconds=30, agent_cores=50, sidecar_cores=50))
    # 100 tasks a second, of two calls: 200 begin and 200 end. The first pause is longer than the second.
    assert seen.failed_attempts * seen.parts == pytest.approx(400, rel=0.2)


def test_no_pause_is_longer_than_the_policy_says() -> None:
    seen = run(60, plan=Plan())
    longest = RETRIES.max_seconds + 120  # and what the task itself takes
    assert max(each.ended for each in seen.tasks if each.arrived < seen.plan.outage[1]) < seen.plan.outage[1] + longest


def test_a_task_whose_attempts_are_over_is_parked() -> None:
    few = Retries(first_seconds=1, max_seconds=60, attempts=3)
    seen = simulate(NEED, QUESTIONS, few, demand(NEED, QUESTIONS, 60), 1, Plan())
    start, end = seen.plan.outage
    parked = [each for each in seen.tasks if each.parked]
    assert parked
    assert all(start < each.ended < end for each in parked)
    assert len(parked) == pytest.approx(60 * 10, rel=0.1)


def test_a_database_that_is_too_slow_is_the_limit_and_everything_still_ends() -> None:
    slow = replace(QUESTIONS, database_writes=50)
    wanted = replace(demand(NEED, slow, 180), shards=1)  # 75 write transactions a second
    seen = simulate(NEED, slow, RETRIES, wanted, 1, QUIET)
    assert max(each.ended for each in seen.tasks) == pytest.approx(3600 * 75 / 50, rel=0.03)


def test_a_part_of_a_fleet_is_as_busy_as_the_whole() -> None:
    wanted = demand(NEED, QUESTIONS, 20_000)
    seen = simulate(NEED, QUESTIONS, RETRIES, wanted, 1, Plan(arrivals=900, outage=(900, 900)))
    assert seen.parts * seen.agents <= wanted.agents
    assert seen.parts * len(seen.tasks) == pytest.approx(20_000 * 15, rel=0.03)
    load = 20_000 / 60 * 0.030 / wanted.agents
    assert seen.stations["agent"][0].busy(900) == pytest.approx(load, rel=0.1)
    assert seen.stations["scheduler"][0].busy(900) == pytest.approx(
        20_000 / 60 * 0.012 / SITE.scheduler_cores / wanted.shards, rel=0.05
    )
    writes = 20_000 / 60 * 25 / wanted.shards
    assert seen.stations["state"][0].busy(900) == pytest.approx(writes / SITE.database_writes, rel=0.1)


def test_the_demand_is_the_rate_times_what_a_task_needs() -> None:
    wanted = demand(NEED, SITE, 6_000)  # 100 a second
    assert wanted.needs["agent cores"] == pytest.approx(3.0)
    assert "sandbox cores" not in wanted.needs
    assert wanted.needs["state writes a second"] == pytest.approx(2_500)
    assert wanted.needs["scheduler jobs a second"] == pytest.approx(1_100)
    assert wanted.needs["state GB a day"] == pytest.approx(432)
    assert wanted.needs["tokens a minute"] == pytest.approx(6_600_000)
    assert wanted.needs["steps in flight"] == pytest.approx(1_060)
    assert wanted.agents == 6  # 1,060 steps in flight, 200 each; its CPU alone would need 5
    assert wanted.loads == pytest.approx(
        {"state database": 0.25, "ledger database": 0.1, "scheduler": 0.3, "state connections": 0.24}
    )
    assert (wanted.shards, wanted.first) == (1, "scheduler")
    assert wanted.carries("scheduler", 0.6) == pytest.approx(12_000)


def test_agents_are_counted_by_cpu_where_that_is_the_limit() -> None:
    assert demand(NEED, replace(SITE, model_seconds=0.1), 6_000).agents == 5  # 3 cores, 60 % of one each
    assert demand(NEED, SITE, 1).agents == SITE.least_agents


def test_more_than_one_shard_carries_is_shared_by_several_with_agents_of_their_own() -> None:
    wanted = demand(NEED, replace(SITE, model_seconds=0.1, agent_cores=100, sidecar_cores=100), 30_000)
    assert wanted.loads["scheduler"] == pytest.approx(1.5)
    assert (wanted.shards, wanted.agents) == (3, 6)


def test_the_average_task_is_the_mix_of_both_shapes_medians() -> None:
    rounds = [one_round(Shape.QUESTION, per_task={"state_rows": rows}) for rows in (40.0, 90.0, 50.0)]
    rounds.append(one_round(Shape.REFUND, per_task={"state_rows": 100.0}))
    assert medians([each.quantities for each in rounds[:3]])["state_rows"] == (50, 40, 90)
    assert mixed(rounds, 0.2)["state_rows"] == pytest.approx(60)
    assert mixed(rounds, 0.2)["model_calls"] == pytest.approx(2.2)
    assert mixed(rounds, 0.2)["steps"] == pytest.approx(5.8)


def test_what_a_task_used_is_the_growth_of_the_counters_over_the_tasks() -> None:
    assert measurement.since({"state_rows": 100, "jobs": 7}, {"state_rows": 400, "jobs": 7}, 10) == {
        "state_rows": 30,
        "jobs": 0,
    }


def test_a_metric_is_the_sum_over_its_labels() -> None:
    page = '# HELP a b\na_total{type="job"} 3\na_total{type="actor"} 4.5e+01\na_total_more 9\n'
    assert measurement.total(page, "a_total") == 48
    with pytest.raises(UserError, match="no b_total"):
        measurement.total(page, "b_total")


def test_what_was_measured_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "sizing.json"
    rounds = [one_round(shape) for shape in UNATTENDED]
    measurement.write(file, {"machine": "two cores"}, rounds)
    assert measurement.read(file) == ({"machine": "two cores"}, rounds)
    file.write_text("[]")
    with pytest.raises(UserError, match="holds no measurement"):
        measurement.read(file)


def test_what_is_assumed_about_a_cluster_is_what_the_manifests_say() -> None:
    def documents(name: str) -> list[dict[str, Any]]:
        return [each for each in yaml.safe_load_all((ROOT / "k8s" / name).read_text()) if each]

    template = documents("base/agent.yaml")[0]["spec"]["template"]
    assert float(template["metadata"]["annotations"]["dapr.io/sidecar-cpu-limit"]) == SITE.sidecar_cores
    assert float(template["spec"]["containers"][0]["resources"]["limits"]["cpu"]) >= SITE.agent_cores
    (scaling,) = documents("overlays/production/scaling.yaml")
    assert scaling["spec"]["minReplicas"] == SITE.least_agents
    assert int(scaling["spec"]["metrics"][0]["pods"]["target"]["averageValue"]) == SITE.steps_per_agent
    (store,) = documents("overlays/production/statestore.yaml")
    values = {each["name"]: each.get("value") for each in store["spec"]["metadata"]}
    assert float(values["maxConns"]) == SITE.connections_per_agent


@pytest.mark.runtime
def test_the_measurement_counts_what_a_real_stack_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "MODEL_SECONDS", 0.05)
    monkeypatch.setattr(measurement, "_SETTLE_SECONDS", 1.0)  # counts of rows come later, and are not looked at
    file = tmp_path / "sizing.json"
    assert command.main(["--tasks", "12", "--rounds", "1", "--output", str(file)]) == 0
    machine, rounds = measurement.read(file)
    assert {"machine", "date", "daprd", "PostgreSQL"} <= machine.keys()
    assert [each.shape for each in rounds] == list(UNATTENDED)
    for each in rounds:
        need = each.per_task
        assert need["state_transactions"] > 5
        assert need["ledger_wal_bytes"] > 1_000
        assert 8 < need["scheduler_jobs"] < 40
        assert need["scheduler_written_bytes"] > 0
        assert need["cpu_ms_agent"] > 0
        assert need["cpu_ms_postgresql_state"] > 0


def test_the_documentation_gives_what_comes_of_the_measured_figures() -> None:
    said = (ROOT / "docs" / "scale.md").read_text()
    _, rounds = measurement.read(ROOT / "docs" / "scale.json")
    need = mixed(rounds, SITE.refund_share)
    wanted = [demand(need, SITE, rate) for rate in (10, 1_000, 100_000)]
    tables = [command.costs(rounds), command.limits(wanted[-1], SITE)]
    tables += [command.turned([command.demanded(each) for each in wanted])]
    # The first column is simulated in a moment, the others take ten seconds.
    tables += [command.turned([command.simulated(simulate(need, SITE, RETRIES, wanted[0], 1))])]
    for name, cells in ((name, cells) for table in tables for name, cells in table.items()):
        row = f"| {' | '.join([name, *cells])} |"
        assert row in said, row
