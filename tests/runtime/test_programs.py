"""Only programs of the right version are used; all others are reported with their fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import paths, programs
from runtime.set_up import link

CONVERSATION = "# components-contrib/conversation/openai\n"
PRINTS = {
    "daprd": "1.18.2",
    "placement": 'level=info msg="Starting Dapr Placement Service -- version 1.18.2 -- commit "',
    "scheduler": 'level=info msg="Starting Dapr Scheduler Service -- version 1.18.2 -- commit "',
    "sentry": 'level=info msg="Starting Dapr Sentry certificate authority -- version 1.18.2 -- commit "',
    "dapr": "CLI version: 1.16.5 ",
}


def install(folder: Path, name: str, output: str, *, conversation: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{CONVERSATION if conversation else ''}echo '{output}'\nexec sleep 30\n")
    path.chmod(0o755)
    return path


def install_all(folder: Path) -> None:
    for name, output in PRINTS.items():
        install(folder, name, output)


def test_all_five_programs_are_found_although_the_control_plane_does_not_end(tmp_path: Path) -> None:
    install_all(tmp_path / "bin")
    good, bad = programs.find([tmp_path / "bin"])
    assert set(good) == set(programs.NAMES)
    assert bad == []
    assert good["sentry"].version == (1, 18, 2)
    assert good["dapr"].version == (1, 16, 5)


@pytest.mark.parametrize(
    ("name", "output", "fault"),
    [
        ("daprd", "1.18.1", "it is version 1.18.1, and >= 1.18.2 < 1.19.0 is needed"),
        ("daprd", "1.19.0", "it is version 1.19.0, and"),
        ("sentry", "msg=Starting -- version 1.17.0 --", "it is version 1.17.0, and"),
        ("scheduler", "Segmentation fault", "it is version unknown, and"),
        ("dapr", "CLI version: 1.14.0", "it is version 1.14.0, and >= 1.16.0 < 1.19.0 is needed"),
    ],
)
def test_a_wrong_version_is_named(tmp_path: Path, name: str, output: str, fault: str) -> None:
    install_all(tmp_path / "bin")
    path = install(tmp_path / "bin", name, output)
    good, (unusable,) = programs.find([tmp_path / "bin"])
    assert name not in good
    assert fault in str(unusable)
    assert str(path) in str(unusable)


def test_a_daprd_without_conversation_components_cannot_be_used(tmp_path: Path) -> None:
    install(tmp_path / "bin", "daprd", PRINTS["daprd"], conversation=False)
    good, (unusable,) = programs.find([tmp_path / "bin"])
    assert "daprd" not in good
    assert "without the conversation components" in unusable.fault


def test_the_next_folder_is_searched_if_the_first_has_an_old_version(tmp_path: Path) -> None:
    install(tmp_path / "old", "daprd", "1.17.0")
    newer = install(tmp_path / "new", "daprd", "1.18.4")
    good, bad = programs.find([tmp_path / "old", tmp_path / "new"])
    assert good["daprd"].path == newer
    assert [program.version for program in bad] == [(1, 17, 0)]


def test_dapr_runtime_path_comes_first_and_our_own_links_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPR_RUNTIME_PATH", "/opt/chosen")
    monkeypatch.setenv("PATH", f"{paths.LAUNCH_BIN}:/usr/bin")
    assert programs.search_folders()[0] == Path("/opt/chosen/.dapr/bin")
    assert Path("/usr/bin") in programs.search_folders()
    assert paths.LAUNCH_BIN not in programs.search_folders()


def test_links_form_one_installation_and_keep_daprd_on_loopback(tmp_path: Path) -> None:
    install_all(tmp_path / "a folder")
    good, _ = programs.find([tmp_path / "a folder"])
    target = tmp_path / "launch"
    link(good, target)
    link(good, target)
    assert {path.name for path in target.iterdir()} == set(programs.NAMES)
    assert (target / "sentry").resolve() == tmp_path / "a folder" / "sentry"
    wrapper = (target / "daprd").read_text()
    assert f"exec '{tmp_path}/a folder/daprd'" in wrapper
    assert wrapper.count("127.0.0.1") == 2
    assert programs.inspect("daprd", target / "daprd").version == (1, 18, 2)
