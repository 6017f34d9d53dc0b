"""The watch of a fake sidecar: rows, restarts, missing answers, lost metrics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import Engine, insert, select

from app.dapr.workarounds import is_needed, parse
from app.domain.errors import LedgerGone
from app.domain.models import CallState
from app.ledger.store import database
from app.ledger.store.tables import MODEL_CALLS, SIDECAR_RETRIES, WORKERS
from app.ledger.store.writer import Writer
from app.worker import sidecar_watch
from app.worker.sidecar_watch import SidecarWatch

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


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
        """The metrics page; if they are lost, the error of 1.18.2 after a reload of its configuration."""
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
        """Logs nothing."""


class Bench:
    """A ledger, a sidecar, and a clock that the test moves."""

    def __init__(self, engine: Engine, writer: Writer, daprd: Daprd) -> None:
        self.engine = engine
        self.writer = writer
        self.daprd = daprd
        self.now = NOON
        self.calls = 0

    def watch(self, worker: str = "w1", version: str = "1.18.2") -> SidecarWatch:
        """A watch for a living worker, at a daprd of this version."""
        beat = {"worker": worker, "started_at": self.now, "seen_at": self.now}
        self.writer.run(lambda connection: connection.execute(insert(WORKERS).values(beat)).rowcount)
        running = parse(version)
        return SidecarWatch(
            self.writer,
            worker,
            lambda: self.now,
            metrics=self.daprd.url,
            needs=lambda workaround: is_needed(workaround, running),
        )

    def call(self, start: float, seconds: float | None, worker: str = "w1") -> None:
        """Writes a call that started `start` seconds after now; without `seconds` it still runs."""
        self.calls += 1
        began = self.now - timedelta(seconds=start)
        row = {
            "call_id": f"c{self.calls}",
            "task_id": f"acme:T-{self.calls}",
            "execution_id": f"e{self.calls}",
            "started_at": began,
            "ended_at": None if seconds is None else began + timedelta(seconds=seconds),
            "state": CallState.STARTED if seconds is None else CallState.SETTLED,
            "worker": worker,
        }
        fixed = {"turn": 1, "number": 1, "reserve_input": 1, "reserve_output": 1}
        texts = ("tenant", "stage", "provider", "request_digest", "prompt_version", "usage_basis")
        values = row | fixed | dict.fromkeys(texts, "x") | {"component": "llm"}
        self.writer.run(lambda connection: connection.execute(insert(MODEL_CALLS).values(values)).rowcount)

    def later(self, seconds: float) -> None:
        """Moves the clock."""
        self.now += timedelta(seconds=seconds)

    def rows(self) -> list[tuple[float, float, int | None]]:
        """SIDECAR_RETRIES: from and to in seconds after noon, count."""
        with self.engine.connect() as connection:
            retries = connection.execute(select(SIDECAR_RETRIES).order_by(SIDECAR_RETRIES.c.sequence)).mappings().all()
        return [
            ((row["from_at"] - NOON).total_seconds(), (row["to_at"] - NOON).total_seconds(), row["count"])
            for row in retries
        ]


def unreachable(_operation: object) -> NoReturn:
    """Replaces the ledger's writer: always fails."""
    raise LedgerGone("ledger.sqlite")


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


def test_calls_that_were_repeated_are_a_row(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.daprd.retried["llm"] = 3
    watch.look()
    assert bench.rows() == [(0, 2, 3)]
    bench.later(2)
    watch.look()
    assert len(bench.rows()) == 1, "nothing happened since"
    watch.stop()


def test_counts_that_the_ledger_refuses_are_written_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.daprd.retried["llm"] = 1
    with monkeypatch.context() as patch:
        patch.setattr(bench.writer, "run", unreachable)
        watch.look()
        bench.later(2)
        bench.daprd.retried["llm"] = 3
        watch.look()
    assert bench.rows() == []
    bench.later(2)
    watch.look()
    assert bench.rows() == [(0, 2, 1), (2, 4, 2)]
    watch.stop()


def test_stopping_writes_what_was_found_last(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(2)
    bench.call(1.5, 1.0)
    bench.daprd.retried["llm"] = 1
    watch.stop()
    assert bench.rows() == [(0, 2, 1), (2, 2, 0)]


def test_a_restart_with_a_call_in_flight_is_a_gap(bench: Bench) -> None:
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
    assert bench.rows() == [(0, 10, None), (0, 10, 1)]
    watch.stop()


def test_a_restart_without_a_call_loses_nothing(bench: Bench) -> None:
    watch = bench.watch()
    watch.look()
    bench.later(10)
    bench.daprd.started = (bench.now - timedelta(seconds=4)).timestamp()
    watch.look()
    watch.stop()
    assert bench.rows() == []


def test_the_next_worker_at_the_same_sidecar_continues_the_count(bench: Bench) -> None:
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
    assert [count for _, _, count in bench.rows()] == [1, 0, 0]


def test_uncounted_calls_of_a_killed_worker_are_a_gap(bench: Bench) -> None:
    killed = bench.watch()
    killed.look()
    bench.call(0, None)
    bench.later(3)
    bench.daprd.retried["llm"] = 1
    successor = bench.watch("w2")
    successor.look()
    bench.later(2)
    successor.look()
    assert [(to_at, count) for _, to_at, count in bench.rows()] == [(3, None)]
    successor.stop()


def test_a_silent_sidecar_is_one_warning_and_its_counts_are_found_later(
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
    assert bench.rows()[0] == (0, 6, 1)


def test_a_sidecar_that_never_answers_leaves_a_gap(bench: Bench) -> None:
    bench.daprd.silent = True
    watch = bench.watch()
    watch.start()
    bench.later(2)
    bench.call(1, 0.5)
    watch.stop()
    assert bench.rows() == [(0, 2, None)]


def test_a_daprd_without_the_defect_has_another_problem(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
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
    assert bench.rows() == [(0, 6, None)], "unknown all the same"


def test_lost_metrics_are_a_gap_until_the_sidecar_is_restarted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    watch = bench.watch()
    watch.look()
    assert watch.counts()
    bench.daprd.lost = True
    bench.call(-1, None)
    for _ in range(4):
        bench.later(2)
        watch.look()
    assert not watch.counts()
    assert bench.rows() == [(0, 8, None)], "one row that grows, written while it lasts: a worker may be killed"
    (said,) = (record.message for record in caplog.records)
    assert "1.18.5" in said
    assert "restart the sidecar" in said
    bench.daprd.lost = False
    bench.daprd.started = bench.now.timestamp()
    bench.daprd.retried["llm"] = 1
    bench.later(2)
    watch.look()
    assert watch.counts()
    bench.later(2)
    watch.look()
    assert bench.rows() == [(0, 10, None), (8, 10, 1)], "the new one has counted from its start"
    watch.stop()


def test_metrics_lost_at_the_start_are_a_gap_for_earlier_workers_too(bench: Bench) -> None:
    bench.call(3, 2.5, worker="w0")
    bench.daprd.lost = True
    watch = bench.watch()
    watch.look()
    bench.call(0, None)
    bench.later(2)
    watch.look()
    watch.stop()
    assert bench.rows() == [(-6, 2, None)]
