"""The watch against a sidecar that serves what daprd serves: rows, allocations, restarts, silence."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from app.dapr.workarounds import needed, parse
from app.domain.errors import FailureCause
from app.domain.models import CallState
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS, SIDECAR_RETRIES, WORKERS
from app.ledger.store.writer import Writer
from app.worker import sidecar_watch
from app.worker.sidecar_retries import RetryPolicy
from app.worker.sidecar_watch import SidecarWatch

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
POLICY = RetryPolicy(1, timedelta(milliseconds=500), jitter=0.5)


class Daprd(ThreadingHTTPServer):
    """Serves a metrics page as daprd does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.started = NOON.timestamp() - 3600
        self.retried: dict[str, int] = {}
        self.silent = False
        self.lost = False
        self.url = f"http://127.0.0.1:{self.server_port}"

    def page(self) -> str:
        """Its metrics; what 1.18.2 answers in their place once it has read its configuration again."""
        if self.lost:
            return (
                "An error has occurred while serving metrics:\n\n1 error(s) occurred:\n"
                '* collected metric "dapr_resiliency_loaded" { label:{name:"app_id" value:"agent"} counter:{value:1}} '
                "was collected before with the same name and label values\n"
            )
        labels = 'app_id="agent",flow_direction="outbound",name="llm",namespace="default",policy="retry",status=""'
        lines = [
            f'dapr_resiliency_activations_total{{{labels},target="Conversation_{name}"}} {count}'
            for name, count in self.retried.items()
        ]
        return "\n".join([*lines, f"process_start_time_seconds {self.started!r}", ""])


class _Answers(BaseHTTPRequestHandler):
    server: Daprd

    def do_GET(self) -> None:
        body = self.server.page()
        self.send_response(503 if self.server.silent else 500 if self.server.lost else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing."""


class Bench:
    """A watch at a sidecar, with a clock that the test moves."""

    def __init__(self, engine: Engine, writer: Writer, daprd: Daprd) -> None:
        self.engine = engine
        self.writer = writer
        self.daprd = daprd
        self.now = NOON
        self.changed: list[str] = []
        self.calls = 0

    def watch(self, worker: str = "w1", version: str = "1.18.2") -> SidecarWatch:
        """A watch of a worker that lives now, beside a daprd of that version."""
        beat = {"worker": worker, "started_at": self.now, "seen_at": self.now}
        self.writer.run(lambda connection: connection.execute(insert(WORKERS).values(beat)).rowcount)
        return SidecarWatch(
            self.writer,
            worker,
            lambda: self.now,
            self.changed.append,
            metrics=self.daprd.url,
            policy=POLICY,
            needs=lambda workaround: needed(workaround, parse(version)),
        )

    def call(self, start: float, seconds: float | None, worker: str = "w1", cause: FailureCause | None = None) -> str:
        """Writes a call that began so long before now; still running without `seconds`."""
        self.calls += 1
        began = self.now - timedelta(seconds=start)
        row = {
            "call_id": f"c{self.calls}",
            "task_id": f"acme:T-{self.calls}",
            "execution_id": f"e{self.calls}",
            "started_at": began,
            "ended_at": None if seconds is None else began + timedelta(seconds=seconds),
            "state": CallState.FAILED if cause else CallState.STARTED if seconds is None else CallState.SETTLED,
            "error": cause.tell("it failed") if cause else None,
            "worker": worker,
        }
        fixed = {"turn": 1, "number": 1, "retries": 0, "reserve_input": 1, "reserve_output": 1}
        texts = ("tenant", "stage", "provider", "request_digest", "prompt_version", "known")
        values = row | fixed | dict.fromkeys(texts, "x") | {"component": "llm"}
        self.writer.run(lambda connection: connection.execute(insert(MODEL_CALLS).values(values)).rowcount)
        return f"c{self.calls}"

    def end(self, call: str) -> None:
        """Settles a call that runs."""
        done = update(MODEL_CALLS).where(MODEL_CALLS.c.call_id == call).values(state="settled", ended_at=self.now)
        self.writer.run(lambda connection: connection.execute(done).rowcount)

    def later(self, seconds: float) -> None:
        """Moves the clock."""
        self.now += timedelta(seconds=seconds)

    def rows(self) -> list[tuple[float, float, int | None, int]]:
        """SIDECAR_RETRIES: from and to in seconds after noon, count, allocated."""
        with self.engine.connect() as connection:
            found = connection.execute(select(SIDECAR_RETRIES).order_by(SIDECAR_RETRIES.c.sequence)).mappings().all()
        return [
            ((row["from_at"] - NOON).total_seconds(), (row["to_at"] - NOON).total_seconds(), *_counts(row))
            for row in found
        ]

    def retries(self) -> dict[str, int]:
        """What each call was allocated."""
        with self.engine.connect() as connection:
            found = connection.execute(select(MODEL_CALLS.c.call_id, MODEL_CALLS.c.retries))
            return {call_id: retries for call_id, retries in found if retries}


def _counts(row: Any) -> tuple[int | None, int]:
    return row["count"], row["allocated"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """An empty ledger and a sidecar that has asked nothing again yet. It is slow to answer if the machine is, and only
    looked at when the test says so."""
    monkeypatch.setattr(sidecar_watch, "_ANSWER_SECONDS", 60.0)
    monkeypatch.setattr(sidecar_watch, "LOOK_SECONDS", 3600.0)
    engine = database.connect(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    writer = Writer(engine)
    daprd = Daprd()
    threading.Thread(target=daprd.serve_forever, args=(0.01,), daemon=True).start()
    yield Bench(engine, writer, daprd)
    daprd.shutdown()
    daprd.server_close()
    writer.close()
    engine.dispose()


def test_a_retry_is_a_row_its_call_has_it_and_its_task_is_told(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.call(1.5, 0.9)
    bench.call(1.5, 0.1)
    bench.daprd.retried["llm"] = 1
    watch.look()
    assert bench.rows() == [], "the breaker may still refuse it"
    bench.later(2)
    watch.look()
    assert bench.rows() == [(0, 2, 1, 1)]
    assert bench.retries() == {"c1": 1}
    assert bench.changed == ["acme:T-1"]
    bench.later(2)
    watch.look()
    assert len(bench.rows()) == 1, "nothing happened since"
    watch.stop()


def test_a_refused_retry_is_no_row(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.daprd.retried["llm"] = 1
    watch.look()
    bench.later(2)
    bench.call(2.5, 0.6, cause=FailureCause.BREAKER_OPEN)
    watch.look()
    assert bench.rows() == []
    assert bench.retries() == {}
    watch.stop()


def test_a_refusal_is_taken_off_one_window_only(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.daprd.retried["llm"] = 1
    watch.look()
    bench.later(0.9)
    bench.call(1.5, 1.0, cause=FailureCause.BREAKER_OPEN)
    asked_again = bench.call(0.8, 0.7)
    bench.daprd.retried["llm"] = 2
    watch.look()
    assert bench.rows() == []
    watch.stop()
    assert bench.rows()[0] == (2, 2.9, 1, 1)
    assert bench.retries() == {asked_again: 1}


def test_only_this_workers_calls_are_candidates(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.call(1.5, 1.0, worker="another")
    bench.daprd.retried["llm"] = 1
    watch.look()
    watch.stop()
    assert bench.rows()[0] == (0, 2, 1, 0)
    assert bench.retries() == {}


def test_stopping_writes_what_was_found_last(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.call(1.5, 1.0)
    bench.daprd.retried["llm"] = 1
    watch.stop()
    assert bench.rows() == [(0, 2, 1, 1), (2, 2, 0, 0)]


def test_a_restart_with_a_call_in_flight_is_a_time_of_which_nobody_knows(bench: Bench) -> None:
    bench.daprd.retried["llm"] = 0
    watch = bench.watch()
    watch.look()
    bench.later(10)
    bench.call(9, None)
    bench.daprd.started = (bench.now - timedelta(seconds=4)).timestamp()
    bench.call(3, 1)
    bench.daprd.retried["llm"] = 1
    watch.look()
    bench.later(2)
    watch.look()
    assert bench.rows() == [(0, 10, None, 0), (0, 10, 1, 1)]
    watch.stop()


def test_a_restart_without_a_call_loses_nothing(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(10)
    bench.daprd.started = (bench.now - timedelta(seconds=4)).timestamp()
    watch.look()
    watch.stop()
    assert bench.rows() == []


def test_the_next_worker_at_the_same_sidecar_goes_on_where_the_last_one_stopped(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.call(1.5, 1.0)
    bench.daprd.retried["llm"] = 1
    watch.stop()
    bench.later(5)
    successor = bench.watch("w2")
    successor.look()
    bench.later(2)
    successor.look()
    successor.stop()
    assert [count for _, _, count, _ in bench.rows()] == [1, 0, 0]


def test_what_a_killed_worker_did_not_count_is_not_known(bench: Bench) -> None:
    killed = bench.watch()
    killed.look()
    bench.call(0, None)
    bench.later(3)
    bench.daprd.retried["llm"] = 1
    successor = bench.watch("w2")
    successor.look()
    bench.later(2)
    successor.look()
    assert [(to_at, count) for _, to_at, count, _ in bench.rows()] == [(3, None)]
    successor.stop()


def test_a_silent_sidecar_is_one_warning_and_what_it_counted_meanwhile_is_found(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    watch = bench.watch()
    watch.look()
    bench.daprd.silent = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bench.later(2)
            watch.look()
    assert len([record for record in caplog.records if "are not counted" in record.message]) == 1
    bench.daprd.silent = False
    bench.call(3, 1)
    bench.daprd.retried["llm"] = 1
    watch.look()
    watch.stop()
    assert bench.rows()[0] == (0, 6, 1, 1)


def test_a_sidecar_that_never_answers_leaves_a_time_of_which_nobody_knows(bench: Bench) -> None:
    bench.daprd.silent = True
    watch = bench.watch()
    watch.start()
    bench.later(2)
    bench.call(1, 0.5)
    watch.stop()
    assert bench.rows() == [(0, 2, None, 0)]


def test_a_daprd_that_does_not_lose_its_metrics_has_another_trouble(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    watch = bench.watch(version="1.18.5")
    watch.look()
    bench.daprd.lost = True
    for _ in range(3):
        bench.later(2)
        watch.look()
    bench.call(1, 0.5)
    assert not watch.counts()
    assert "does not answer" in caplog.text
    watch.stop()
    assert bench.rows() == [(0, 6, None, 0)], "unknown all the same"


def test_metrics_that_are_lost_are_a_time_of_which_nobody_knows_until_the_sidecar_is_another(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    watch = bench.watch()
    watch.look()
    assert watch.counts()
    bench.daprd.lost = True
    bench.call(-1, None)
    for _ in range(4):
        bench.later(2)
        watch.look()
    assert not watch.counts()
    assert bench.rows() == [(0, 6, None, 0)], "one row that grows, written while it lasts: a worker may be killed"
    (said,) = (record.message for record in caplog.records)
    assert "1.18.5" in said
    assert "start the sidecar again" in said
    bench.daprd.lost = False
    bench.daprd.started = bench.now.timestamp()
    bench.daprd.retried["llm"] = 1
    bench.later(2)
    watch.look()
    assert watch.counts()
    bench.later(2)
    watch.look()
    assert bench.rows() == [(0, 10, None, 0), (8, 10, 1, 1)], "the new one has counted from its start"
    watch.stop()


def test_a_worker_that_finds_the_metrics_lost_says_so_of_the_worker_before_it_too(bench: Bench) -> None:
    bench.call(3, 2.5, worker="w0")
    bench.daprd.lost = True
    watch = bench.watch()
    watch.look()
    bench.call(0, None)
    bench.later(2)
    watch.look()
    watch.stop()
    assert bench.rows() == [(-6, 2, None, 0)]


@pytest.mark.parametrize("seed", range(15))
def test_what_calls_have_sums_to_what_is_allocated(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    watch = bench.watch()
    watch.look()
    running: list[str] = []
    for _ in range(25):
        bench.later(dice.choice((0.3, 2, 2, 5)))
        for _ in range(dice.randrange(4)):
            seconds = dice.choice((None, 0.1, 0.6, 1.5))
            cause = dice.choice((None, None, *FailureCause)) if seconds else None
            name = bench.call(dice.uniform(0, 3), seconds, cause=cause)
            running += [name] if seconds is None else []
        if running and dice.random() < 0.5:
            bench.end(running.pop())
        bench.daprd.retried["llm"] = bench.daprd.retried.get("llm", 0) + dice.choice((0, 0, 1, 3))
        if dice.random() < 0.1:
            bench.daprd.started = bench.now.timestamp()
            bench.daprd.retried["llm"] = dice.randrange(2)
        bench.daprd.silent = dice.random() < 0.1
        bench.daprd.lost = dice.random() < 0.05
        watch.look()
    watch.stop()
    assert sum(bench.retries().values()) == sum(allocated for *_, allocated in bench.rows())
    assert set(bench.retries().values()) == {POLICY.max_retries}
    assert all(allocated <= (count or 0) for *_, count, allocated in bench.rows())
