"""A stack's copy of the project's files differs only in ports and overlay."""

from __future__ import annotations

from pathlib import Path

from runtime import paths
from runtime.stack_commands import render, repoint


def test_only_the_named_loopback_ports_change() -> None:
    text = "a: http://127.0.0.1:8091/v1\nb: localhost:8092\nc: 127.0.0.1:80910\nd: example.org:8091\n"
    assert repoint(text, {8091: 20001, 8092: 20002}) == (
        "a: http://127.0.0.1:20001/v1\nb: localhost:20002\nc: 127.0.0.1:80910\nd: example.org:8091\n"
    )


def test_render_copies_all_files_and_applies_the_overlay(tmp_path: Path) -> None:
    render(tmp_path, {8091: 20001}, {"statestore.yaml": "mine: 1\n", "extra.yaml": "more: 2\n"})
    components = tmp_path / "components"
    expected = {file.name for file in paths.COMPONENTS.glob("*.yaml")} | {"extra.yaml"}
    assert {file.name for file in components.iterdir()} == expected
    assert (components / "statestore.yaml").read_text() == "mine: 1\n"
    assert "127.0.0.1:20001" in (components / "llm.yaml").read_text()
    assert (tmp_path / "config" / "dapr.yaml").read_text() == paths.CONFIGURATION.read_text()
    assert list((tmp_path / "resiliency").glob("*.yaml"))


def test_rendering_again_removes_the_last_overlay(tmp_path: Path) -> None:
    render(tmp_path, {}, {"extra.yaml": "more: 2\n"})
    render(tmp_path, {}, {})
    assert not (tmp_path / "components" / "extra.yaml").exists()
