"""The real control plane and a real daprd are started, killed one by one, restarted and stopped."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import processes
from runtime.control_plane import NAMES, ControlPlane, ControlPlanePorts
from runtime.errors import ChildDied, UserError
from runtime.loopback import answers, is_free, listeners
from runtime.paths import LAUNCH_BIN
from runtime.stack import Stack

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(120)]
DAPR_PARTS = (*NAMES, "daprd")


def living(pids: list[int]) -> list[int]:
    table = processes.process_table()
    return [pid for pid in pids if pid in table and not table[pid].zombie]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlPlane]:
    with ControlPlane(LAUNCH_BIN, tmp_path, ControlPlanePorts.free()) as started:
        yield started


def test_the_control_plane_starts_on_loopback_and_leaves_nothing(tmp_path: Path) -> None:
    ports = ControlPlanePorts.free()
    with ControlPlane(LAUNCH_BIN, tmp_path, ports) as control:
        pids = [child.pid for child in control.children.values()]
        sockets = listeners(set(pids))
        served = {item.port for item in sockets if item.loopback}
        assert {ports.sentry, ports.placement, ports.scheduler} <= served
        # Dapr's health servers ignore their address option; each has one port, which answers 200 or 503 only.
        assert len([item for item in sockets if not item.loopback]) == len(NAMES)
        assert [item for item in sockets if item.protocol.startswith("udp")] == []
    assert living(pids) == []
    assert all(is_free(port) for port in (ports.sentry, ports.placement, ports.scheduler))


def test_keys_are_the_owner_s_alone_and_survive_a_restart(control: ControlPlane) -> None:
    keys = control.state_dir / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {0o600}
    assert stat.S_IMODE((control.state_dir / "identity").stat().st_mode) == 0o700
    environment = control.environment()
    assert "BEGIN CERTIFICATE" in environment["DAPR_TRUST_ANCHORS"]
    assert environment["NAMESPACE"] == "default"
    control.stop()
    control.start()
    assert control.environment() == environment


@pytest.mark.parametrize("name", NAMES)
def test_each_program_can_be_killed_and_restarted(control: ControlPlane, name: str) -> None:
    pid = control.children[name].pid
    control.kill_one(name)
    assert living([pid]) == []
    control.start_one(name)
    control.check()
    with pytest.raises(UserError, match=f"{name} runs already"):
        control.spawn_one(name)


def test_a_port_in_use_is_reported_with_the_log(control: ControlPlane, tmp_path: Path) -> None:
    second = ControlPlane(LAUNCH_BIN, tmp_path / "second", control.ports)
    with pytest.raises(ChildDied, match="sentry has ended") as caught:
        second.start()
    assert "address already in use" in str(caught.value)
    assert second.children == {}


def test_two_stacks_run_side_by_side_and_every_part_can_be_killed(tmp_path: Path) -> None:
    with Stack(tmp_path / "a", parts=DAPR_PARTS) as one, Stack(tmp_path / "b", parts=DAPR_PARTS) as two:
        assert answers(one.ports.dapr_http, "/v1.0/healthz/outbound")
        assert answers(two.ports.dapr_http, "/v1.0/healthz/outbound")
        for name in DAPR_PARTS:
            before = one.pid(name)
            one.kill(name)
            assert not one.alive(name)
            one.start(name)
            assert one.pid(name) != before
        assert answers(one.ports.dapr_http, "/v1.0/healthz/outbound")
        pids = [stack.pid(name) for stack in (one, two) for name in DAPR_PARTS]
        sockets = listeners({one.pid("daprd"), two.pid("daprd")})
        assert [item for item in sockets if not item.loopback or item.protocol.startswith("udp")] == []
    assert living(pids) == []


def test_signing_and_mtls_are_on(tmp_path: Path) -> None:
    with Stack(tmp_path, parts=DAPR_PARTS) as stack:
        log = stack.log("daprd").read_text()
    assert "WorkflowHistorySigning" in log
    assert "Fetching initial identity" in log  # from sentry
    assert "Initialized name resolution to sqlite" in log


def test_a_daprd_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    spec = "spec: {type: state.nothing, version: v1}"
    broken = f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: bad}}\n{spec}\n"
    stack = Stack(tmp_path, parts=DAPR_PARTS, overlay={"bad.yaml": broken})
    with pytest.raises(ChildDied, match=r"daprd has ended"):
        stack.start_all()
    assert not any(stack.alive(name) for name in DAPR_PARTS)


def test_misuse_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such process: dapr"):
        Stack(tmp_path, parts=("dapr",))
    stack = Stack(tmp_path, parts=DAPR_PARTS)
    with pytest.raises(UserError, match="worker was not started"):
        stack.kill("worker")
    assert not stack.alive("worker")
    assert os.listdir(stack.components)
