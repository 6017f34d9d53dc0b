"""`make run` and `make up` with the real Dapr: however they end, no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import processes
from runtime.loopback import is_free, listeners
from tests.runtime.checkout import Checkout, lines_until, until

pytestmark = [pytest.mark.runtime, pytest.mark.timeout(120)]
SENTRY = 50001


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    if not is_free(SENTRY):
        pytest.skip(f"port {SENTRY} (sentry, fixed by the dapr CLI) is in use: stop the running stack first")
    copy = Checkout(tmp_path)
    yield copy
    copy.close()
    until(lambda: not copy.running(), copy.running)


def launcher(checkout: Checkout) -> int:
    """The pid of the process that runs runtime.launch."""
    (line,) = [line for line in checkout.running() if "runtime.launch" in line]
    return int(line.split()[0])


def test_run_works_the_demo_prints_addresses_and_stops(checkout: Checkout) -> None:
    process = checkout.make("run")
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    web = checkout.ports["agent web"]
    assert f"demo at port {web}" in output
    model = checkout.ports["sandbox model"]
    assert f"cost reconcile --sandbox-url http://127.0.0.1:{model}" in output
    assert "cost report --by tenant,stage" in output
    assert "Agent ready after" in output
    assert "Everything has stopped." in output
    assert (
        f"http://127.0.0.1:{web}" not in output.partition("Everything has stopped.")[2]
    )  # nothing answers there any more
    assert str(checkout.folder / ".state" / "logs") in output
    assert checkout.ended_orderly()
    assert checkout.running() == []


def test_the_exit_code_of_the_demo_is_the_exit_code_of_the_run(checkout: Checkout) -> None:
    process = checkout.make("run", DEMO_CODE="3")
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 2, "make's own code for a failed recipe"
    assert "Error 3" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_up_ends_in_an_orderly_way_on_a_signal(checkout: Checkout, number: signal.Signals) -> None:
    process = checkout.make("up")
    lines_until(process, "Ctrl-C stops everything")
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert "Stopped." in output
    until(lambda: not checkout.running(), checkout.running)
    assert checkout.ended_orderly()


def test_ctrl_c_during_the_demo_stops_everything(checkout: Checkout) -> None:
    process = checkout.make("run", DEMO_SECONDS="60")
    lines_until(process, "demo at port")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    until(lambda: not checkout.running(), checkout.running)


def test_sigkill_of_the_launcher_leaves_no_orphan_and_no_lock(checkout: Checkout) -> None:
    process = checkout.make("up")
    lines_until(process, "Ctrl-C stops everything")
    assert len(checkout.running()) > 6
    os.kill(launcher(checkout), signal.SIGKILL)
    process.communicate(timeout=30)
    until(lambda: not checkout.running(), checkout.running)
    again = checkout.make("run")
    output, _ = again.communicate(timeout=90)
    assert again.returncode == 0, output


@pytest.mark.parametrize("victim", ["app serve", "-m sandbox", "--app-id agent", "placement --tls-enabled"])
def test_a_program_that_dies_is_named_and_everything_stops(checkout: Checkout, victim: str) -> None:
    process = checkout.make("up")
    lines_until(process, "Ctrl-C stops everything")
    (line,) = [line for line in checkout.running() if victim in line]
    os.kill(int(line.split()[0]), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    names = {"app serve": "agent", "-m sandbox": "sandbox", "--app-id agent": "agent daprd"}
    assert f"{names.get(victim, 'placement')} has ended" in output


def test_an_agent_that_cannot_start_is_reported_with_its_log(checkout: Checkout) -> None:
    process = checkout.make("run", AGENT_FAILS="1")
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 2
    assert "agent has ended" in output
    assert "the ledger is locked" in output


def test_a_second_stack_is_refused_and_so_is_cleaning_under_a_running_one(checkout: Checkout) -> None:
    process = checkout.make("up")
    lines_until(process, "Ctrl-C stops everything")
    second, _ = checkout.make("up").communicate(timeout=60)
    assert "A stack of this project runs already" in second
    cleaning, _ = checkout.make("clean-state").communicate(timeout=60)
    assert "A stack is running" in cleaning
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    refused, _ = checkout.make("clean-state").communicate(timeout=60)
    assert "make clean-state ARGS=--yes" in refused
    assert (checkout.folder / ".state").exists()
    cleaned, _ = checkout.make("clean-state", ARGS="--yes").communicate(timeout=60)
    assert f"Removing {checkout.folder / '.state'}" in cleaned
    assert not (checkout.folder / ".state").exists()


def test_only_the_health_ports_are_open_to_the_network(checkout: Checkout) -> None:
    process = checkout.make("up")
    lines_until(process, "Ctrl-C stops everything")
    names = {pid: (Path(f"/proc/{pid}/comm").read_text().strip()) for pid in processes.descendants(process.pid)}
    sockets = listeners(set(names))
    assert [socket for socket in sockets if socket.protocol.startswith("udp")] == []
    assert sorted(names[socket.pid] for socket in sockets if not socket.loopback) == [
        "placement",
        "scheduler",
        "sentry",
    ]
    expected = {number for name, number in checkout.ports.items()} - {
        checkout.ports["sandbox model"],
        checkout.ports["sandbox systems"],
    }
    assert expected <= {socket.port for socket in sockets if socket.loopback}
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)


def test_dapr_run_by_hand_beside_a_control_plane(checkout: Checkout) -> None:
    control = subprocess.Popen(
        ["python3", "-m", "runtime", "control-plane"],
        cwd=checkout.folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with control:
        lines_until(control, "In another shell")
        by_hand = subprocess.Popen(
            ["bash", "-c", 'eval "$(python3 -m runtime env)" && exec dapr run -f .'],
            cwd=checkout.folder,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with by_hand:
            lines_until(by_hand, 'Started Dapr with app id "agent"')
            by_hand.terminate()
            by_hand.communicate(timeout=30)
        control.terminate()
        output, _ = control.communicate(timeout=30)
    assert "Stopped." in output
    until(lambda: not checkout.running(), checkout.running)
