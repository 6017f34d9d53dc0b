"""The ports of dapr.yaml: each has a name, and each error names the key to change."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import paths
from runtime.errors import UserError
from runtime.loopback import free_ports
from runtime.ports import Port, check_free, control_plane_ports, read_ports, unserved_addresses

DAPR_YAML = paths.DAPR_YAML.read_text()


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def write_dapr_yaml(tmp_path: Path, old: str = "", new: str = "") -> Path:
    assert old in DAPR_YAML
    path = tmp_path / "dapr.yaml"
    path.write_text(DAPR_YAML.replace(old, new) if old else DAPR_YAML)
    return path


def test_every_port_has_a_name_and_a_key(tmp_path: Path) -> None:
    ports = read_ports(write_dapr_yaml(tmp_path))
    assert {name: port.number for name, port in ports.items()} == {
        "sentry": 50001,
        "placement": 3505,
        "scheduler": 3506,
        "agent daprd HTTP": 3510,
        "agent daprd gRPC": 3511,
        "agent daprd internal gRPC": 3512,
        "agent daprd metrics": 9190,
        "sandbox daprd HTTP": 3520,
        "sandbox daprd gRPC": 3521,
        "sandbox daprd internal gRPC": 3522,
        "sandbox daprd metrics": 9191,
        "agent web": 8088,
        "sandbox model": 8091,
        "sandbox systems": 8092,
    }
    assert ports["agent web"].key == "apps[agent].env.REFUND_AGENT_WEB_PORT"
    assert ports["sandbox model"].key == "--model-port of apps[sandbox].command"
    assert control_plane_ports(ports).placement == 3505


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("daprHTTPPort: 3510", "", "apps[agent].daprHTTPPort is missing"),
        ('"8091"', "eighty", "--model-port of apps[sandbox].command is 'eighty'"),
        ('REFUND_AGENT_WEB_PORT: "8088"', 'REFUND_AGENT_WEB_PORT: "70000"', "WEB_PORT is '70000'"),
        ("127.0.0.1:3505", "0.0.0.0:3505", "common.placementHostAddress is not 127.0.0.1"),
        ("appID: agent", "appID: agnet", "there is no app agent"),
        ("daprGRPCPort: 3511", "daprGRPCPort: 3521", "both have port 3521"),
        ("version: 1", "version: [", "cannot be read"),
    ],
)
def test_a_fault_names_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write_dapr_yaml(tmp_path, old, new)
    with pytest.raises(UserError) as caught:
        read_ports(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_port_in_use_is_named_with_its_process(used_port: int) -> None:
    (free,) = {used_port + 1, used_port - 1} - {used_port + 1}
    with pytest.raises(UserError) as caught:
        check_free([Port("agent web", used_port, "apps[agent].env.X"), Port("placement", used_port, "common.y")])
    text = str(caught.value)
    assert f"agent web: port {used_port} is in use by" in text
    assert "change apps[agent].env.X" in text
    assert "placement:" in text
    assert f"port {free} " not in text


def test_free_ports_pass() -> None:
    check_free([Port("agent web", free_ports(1)[0], "key")])


def test_addresses_without_a_listener_are_named_with_file_and_line(tmp_path: Path) -> None:
    (free,) = free_ports(1)
    (tmp_path / "llm.yaml").write_text(f"a: 1\n# http://127.0.0.1:9999 was once\nurl: http://127.0.0.1:{free}/v1\n")
    (tmp_path / "systems.yaml").write_text("url: http://127.0.0.1:8092/a\nurl2: http://localhost:8091/b\n")
    model, systems = unserved_addresses(read_ports(write_dapr_yaml(tmp_path)), tmp_path)
    assert (
        f"{tmp_path / 'llm.yaml'}:3 points at port {free}, where no program listens; start what should be there"
        in model
    )
    assert "or write 8091 (sandbox model, --model-port of apps[sandbox].command in dapr.yaml)" in model
    assert f"{tmp_path / 'systems.yaml'}:2 points at port 8091, which is another part of the sandbox" in systems


def test_another_model_server_is_accepted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        (tmp_path / "llm.yaml").write_text(f"endpoint: http://localhost:{own.getsockname()[1]}/v1\n")
        assert unserved_addresses(read_ports(write_dapr_yaml(tmp_path)), tmp_path) == []


def test_a_provider_on_the_internet_and_a_missing_file_are_fine(tmp_path: Path) -> None:
    (tmp_path / "llm.yaml").write_text("endpoint: https://models.example/v1\n")
    assert unserved_addresses(read_ports(write_dapr_yaml(tmp_path)), tmp_path) == []


def test_the_projects_own_components_point_at_its_sandbox() -> None:
    assert unserved_addresses(read_ports(paths.DAPR_YAML), paths.COMPONENTS) == []
