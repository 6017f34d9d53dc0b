"""Finds the Dapr programs and checks their versions by running them.

All five are needed: daprd, placement, scheduler and sentry (the runtime), and the dapr CLI.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime import paths

Version = tuple[int, int, int]
_NUMBER = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?([-.]?(?:rc|alpha|beta)[.\d]*)?")


@dataclass(frozen=True)
class Range:
    """Versions from `least` (included) to `below` (excluded)."""

    least: Version
    below: Version

    def holds(self, version: Version | None) -> bool:
        """Whether the version is in the range; False for None."""
        return version is not None and self.least <= version < self.below

    def __str__(self) -> str:
        """Such as `>= 1.18.2 < 1.19.0`."""
        return f">= {show_version(self.least)} < {show_version(self.below)}"


def parse_version(text: str) -> Version | None:
    """The first version number in a text, such as `go version go1.26.8 linux/amd64`; None for a pre-release."""
    match = _NUMBER.search(text)
    if not match or match[4]:
        return None
    return int(match[1]), int(match[2]), int(match[3] or 0)


def show_version(version: Version | None) -> str:
    """The version with dots, or "unknown"."""
    return ".".join(map(str, version)) if version else "unknown"


RUNTIME_PROGRAMS = ("daprd", "placement", "scheduler", "sentry")
NAMES = (*RUNTIME_PROGRAMS, "dapr")
_RUNTIME_RANGE = Range((1, 18, 2), (1, 19, 0))
_CLI_RANGE = Range((1, 16, 0), (1, 19, 0))
# The package path of a conversation component is in the binary; the small flavour of daprd has no such component.
_CONVERSATION = b"components-contrib/conversation/openai"
_PROBE_SECONDS = 10.0
_NOWHERE = "/nonexistent/refund-agent"
_QUIET_PORTS = ("--healthz-port", "0", "--metrics-port", "0", "--metrics-listen-address", "127.0.0.1")
# The control plane has no --version. It prints its version first, then waits for the file that does not exist.
_PROBES: Mapping[str, tuple[str, ...]] = {
    "daprd": ("--version",),
    "dapr": ("--version",),
    "sentry": ("--config", _NOWHERE, *_QUIET_PORTS),
    "placement": ("--tls-enabled", "--trust-anchors-file", _NOWHERE, *_QUIET_PORTS),
    "scheduler": ("--tls-enabled", "--trust-anchors-file", _NOWHERE, *_QUIET_PORTS),
}


@dataclass(frozen=True)
class Program:
    """A program that was inspected. `fault` is empty if it can be used."""

    name: str
    path: Path
    version: Version | None
    fault: str = ""

    def __str__(self) -> str:
        """Name, version, path and fault, for a report."""
        return f"{self.name} {show_version(self.version)} ({self.path})" + (f": {self.fault}" if self.fault else "")


def search_folders() -> list[Path]:
    """The folders to search, in order: DAPR_RUNTIME_PATH, our own builds, the home folder, the PATH."""
    chosen = os.environ.get("DAPR_RUNTIME_PATH", "").strip()
    chosen_folder = [Path(chosen) / ".dapr" / "bin"] if chosen else []
    home = Path.home() / ".dapr" / "bin"
    on_path = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    return [folder for folder in (*chosen_folder, paths.BUILT_PROGRAMS, home, *on_path) if folder != paths.LAUNCH_BIN]


def find(search: Iterable[Path] | None = None) -> tuple[dict[str, Program], list[Program]]:
    """The programs that can be used, by name, and those that were found but cannot be used."""
    good: dict[str, Program] = {}
    bad: list[Program] = []
    folders = list(search) if search is not None else search_folders()
    for name in NAMES:
        for program in _candidates(name, folders):
            if not program.fault:
                good[name] = program
                break
            bad.append(program)
    return good, bad


def inspect(name: str, path: Path) -> Program:
    """Runs a program to get its version, and describes its fault if any."""
    version = _version(name, path)
    needed = _CLI_RANGE if name == "dapr" else _RUNTIME_RANGE
    if not needed.holds(version):
        return Program(name, path, version, f"it is version {show_version(version)}, and {needed} is needed")
    if name == "daprd" and not _has_conversation(path):
        return Program(name, path, version, "it was built without the conversation components")
    return Program(name, path, version)


def _candidates(name: str, folders: list[Path]) -> Iterator[Program]:
    inspected: set[Path] = set()
    for folder in folders:
        program = shutil.which(name, path=str(folder))
        if program and (path := Path(program).resolve()) not in inspected:
            inspected.add(path)
            yield inspect(name, path)


def _version(name: str, path: Path) -> Version | None:
    first_line = _first_line([str(path), *_PROBES[name]])
    return parse_version(first_line if name == "daprd" else first_line.partition("version")[2])


def _first_line(command: list[str]) -> str:
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError:
        return ""
    limit = threading.Timer(_PROBE_SECONDS, process.kill)
    limit.start()
    with process:
        line = process.stdout.readline() if process.stdout else ""
        process.kill()
    limit.cancel()
    return line


def _has_conversation(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_CONVERSATION) >= 0
