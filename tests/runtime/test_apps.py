"""An app of `dapr run` that ends is noticed, even if it was never seen running."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import processes
from runtime.apps import Apps, link_logs, newest_log
from runtime.errors import ChildDied

# A fake dapr CLI with one app and one sidecar.
CLI = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
app = subprocess.Popen(sleeper, env={**os.environ, "APP_ID": "agent"})
sidecar = subprocess.Popen([*sleeper, "--app-id", "agent"])
print(app.pid, sidecar.pid, flush=True)
app.wait()
time.sleep(600)
"""


@pytest.fixture
def apps(tmp_path: Path) -> Iterator[Apps]:
    logs = tmp_path / "logs"
    logs.mkdir()
    write(logs / "agent_app_1.log", "The App process exited with error code: an older run", age=1000)
    since = time.time()
    child = processes.start("dapr run", [sys.executable, "-c", CLI], log=tmp_path / "dapr.log")
    processes.wait_until(lambda: child.last_lines().count(" ") == 1, what="cli", deadline_seconds=60, children=[child])
    yield Apps(child, logs, ("agent",), since=since)
    processes.kill(child)


def write(log: Path, text: str, *, age: float = 0) -> None:
    log.write_text(text + "\n")
    if age:
        os.utime(log, (log.stat().st_mtime - age,) * 2)


def check_for_a_while(apps: Apps) -> None:
    def healthy() -> bool:
        apps.check()
        return False

    processes.wait_until(healthy, what="the report", deadline_seconds=60)


def pids(apps: Apps) -> list[int]:
    return [int(word) for word in apps.dapr.last_lines().split()]


def test_check_passes_while_everything_runs(apps: Apps) -> None:
    apps.check()
    apps.check()


def test_an_app_that_has_ended_is_named_with_its_log(apps: Apps, tmp_path: Path) -> None:
    apps.check()
    write(tmp_path / "logs" / "agent_app_2.log", "out of paper")
    os.kill(pids(apps)[0], 9)
    with pytest.raises(ChildDied, match=r"agent has ended.*\n.*out of paper"):
        check_for_a_while(apps)


def test_only_the_fatal_error_of_a_sidecar_is_quoted(apps: Apps, tmp_path: Path) -> None:
    apps.check()
    why = 'level=fatal msg="Fatal error from runtime: duplicate definition of \\"llm\\"" app_id=agent'
    write(tmp_path / "logs" / "agent_daprd_2.log", f"level=info msg=stopping\n{why}\nlevel=info msg=gone")
    os.kill(pids(apps)[1], 9)
    with pytest.raises(ChildDied) as error:
        check_for_a_while(apps)
    assert str(error.value).strip().endswith('says: Fatal error from runtime: duplicate definition of \\"llm\\"')


def test_a_program_during_exec_has_not_ended(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    apps.check()
    monkeypatch.setattr("runtime.apps._name", lambda _: "")  # as during `exec`
    apps.check()


def test_a_sidecar_that_has_ended_is_named(apps: Apps, tmp_path: Path) -> None:
    apps.check()
    os.kill(pids(apps)[1], 9)
    with pytest.raises(ChildDied, match="agent daprd has ended"):
        check_for_a_while(apps)


@pytest.mark.parametrize("end", ["The App process exited with error code: 1", "Exited App successfully"])
def test_an_app_that_died_before_the_first_check_is_known_from_its_log(apps: Apps, tmp_path: Path, end: str) -> None:
    # A second ahead, since the clock of file times may lag behind.
    write(tmp_path / "logs" / "agent_app_2.log", f"no licence\n{end}", age=-1)
    with pytest.raises(ChildDied, match=r"agent has ended.*\n.*no licence"):
        apps.check()


def test_stop_ends_all_programs(apps: Apps) -> None:
    apps.stop()
    assert not apps.dapr.alive()
    table = processes.process_table()
    assert [pid for pid in pids(apps) if pid in table and not table[pid].zombie] == []


def test_logs_are_linked_under_plain_names_to_the_latest_run(tmp_path: Path) -> None:
    write(tmp_path / "agent_app_1.log", "old", age=10)
    write(tmp_path / "agent_app_2.log", "new")
    write(tmp_path / "agent_daprd_2.log", "sidecar")
    target = tmp_path / "links"
    target.mkdir()
    link_logs(tmp_path, target, ("agent", "sandbox"))
    link_logs(tmp_path, target, ("agent", "sandbox"))
    assert {link.name: link.read_text() for link in target.iterdir()} == {
        "agent.log": "new\n",
        "agent-daprd.log": "sidecar\n",
    }
    assert newest_log(tmp_path, "sandbox") is None
