"""Makes the virtual environment from the hash-checked locks. A stamp, written last, says which lock is installed.

An interrupted install is repeated: pip keeps the packages that are installed, and incomplete ones are recognised by
their file lists and reinstalled.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from runtime import paths
from runtime.errors import UserError
from runtime.progress import Step, follow

LOCKS = (paths.ROOT / "requirements.lock",)
DEV_LOCKS = (*LOCKS, paths.ROOT / "requirements-dev.lock")
_NAME = re.compile(r"^([A-Za-z0-9._-]+)==")
_NEVER_REMOVED = frozenset({"pip", "setuptools", "wheel"})
# Runs inside the environment: for each distribution, whether it has a list of files and all these files.
_INSPECT = """
import csv, importlib.metadata, json
def whole(distribution):
    # Reads RECORD itself, since `files` leaves out missing files from Python 3.12 on.
    listed = [row[0] for row in csv.reader((distribution.read_text("RECORD") or "").splitlines()) if row]
    return bool(listed) and all(distribution.locate_file(name).exists() for name in listed if not name.endswith(".pyc"))
distributions = list(importlib.metadata.distributions())
print(json.dumps({d.metadata["Name"]: whole(d) for d in distributions if d.metadata["Name"]}))
"""


def normalize(name: str) -> str:
    """A package name in the form in which pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_names(text: str) -> set[str]:
    """The normalised names of a lock's packages."""
    return {normalize(match[1]) for line in text.splitlines() if (match := _NAME.match(line))}


def digest(locks: tuple[Path, ...]) -> str:
    """The content of the stamp: a digest of the locks and the Python version."""
    content = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for lock in locks:
        content.update(lock.read_bytes())
    return content.hexdigest()


def stamp_path(venv: Path, locks: tuple[Path, ...]) -> Path:
    """The path of the stamp for these locks."""
    return venv / f"installed-{locks[-1].stem}.sha256"


def is_installed(venv: Path, locks: tuple[Path, ...]) -> bool:
    """Whether exactly these locks are installed and the environment has its Python."""
    stamp = stamp_path(venv, locks)
    python = venv / "bin" / "python"
    return stamp.exists() and python.exists() and stamp.read_text() == digest(locks)


def install(venv: Path, locks: tuple[Path, ...]) -> None:
    """Makes or completes the environment, unless it is up to date."""
    if is_installed(venv, locks):
        return
    _make(venv)
    for lock in locks:
        _install_lock(venv, lock)
    _repair(venv, locks)
    # The locks for development include those for running, so stamp all of them.
    for end in range(1, len(locks) + 1):
        stamp_path(venv, locks[:end]).write_text(digest(locks[:end]))


def _make(venv: Path) -> None:
    for stamp in venv.glob("installed-*.sha256"):
        stamp.unlink()
    if _python_of(venv) == sys.version_info[:2] and _runs(venv, "-m", "pip", "--version"):
        return
    with Step(f"virtual environment in {venv.name}"):
        done = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise UserError(
            f"{sys.executable} -m venv failed: {(done.stderr or done.stdout).strip()}",
            remedy="On Debian and Ubuntu: apt install python3-venv.",
        )


def _python_of(venv: Path) -> tuple[int, int] | None:
    configuration = venv / "pyvenv.cfg"
    if not configuration.exists():
        return None
    match = re.search(r"^version\s*=\s*(\d+)\.(\d+)", configuration.read_text(), re.MULTILINE)
    return (int(match[1]), int(match[2])) if match else None


def _runs(venv: Path, *arguments: str) -> bool:
    python = venv / "bin" / "python"
    if not python.exists():
        return False
    return subprocess.run([str(python), *arguments], capture_output=True, check=False).returncode == 0


def _install_lock(venv: Path, lock: Path) -> None:
    total = len(locked_names(lock.read_text()))

    def describe(lines: list[str]) -> str:
        if any(line.startswith("Installing collected packages") for line in lines):
            return f"{total} packages, writing files"
        collected = sum(line.startswith(("Collecting ", "Requirement already")) for line in lines)
        return f"{min(collected, total)} of {total} packages"

    with Step(f"packages of {lock.name}") as step:
        pip(venv, ["install", "--require-hashes", "--no-deps", "-r", str(lock)], step, describe, lock.stem)


def pip(venv: Path, arguments: list[str], step: Step, describe: Callable[[list[str]], str], name: str) -> None:
    """Runs the environment's pip and shows its progress. The log is .runtime/logs/pip-<name>.log."""
    options = ["--disable-pip-version-check", "--no-input"]
    options += ["--progress-bar", "off"] if arguments[0] == "install" else []
    follow(
        "pip",
        [str(venv / "bin" / "python"), "-m", "pip", arguments[0], *options, *arguments[1:]],
        log=paths.RUNTIME / "logs" / f"pip-{name}.log",
        step=step,
        describe=describe,
    )


def _repair(venv: Path, locks: tuple[Path, ...]) -> None:
    """Reinstalls damaged packages, and removes packages that no lock names."""
    state = _inspect(venv)
    damaged = sorted(name for name, whole in state.items() if not whole and name not in _NEVER_REMOVED)
    if damaged:
        for lock in locks:
            _reinstall(venv, lock, damaged)
    locked = locked_names("\n".join(lock.read_text() for lock in DEV_LOCKS if lock.exists()))
    extra = sorted(set(state) - locked - _NEVER_REMOVED)
    if extra:
        with Step(f"removing {', '.join(extra)}") as step:
            pip(venv, ["uninstall", "--yes", *extra], step, lambda _: "", "removal")


def _reinstall(venv: Path, lock: Path, damaged: list[str]) -> None:
    blocks = re.split(r"(?m)^(?=[A-Za-z0-9])", lock.read_text())
    chosen = [block for block in blocks if locked_names(block) & set(damaged)]
    if not chosen:
        return
    part = paths.RUNTIME / "logs" / f"{lock.stem}-again.txt"
    part.write_text("".join(chosen))
    with Step(f"reinstalling {', '.join(damaged)}") as step:
        pip(
            venv,
            ["install", "--force-reinstall", "--require-hashes", "--no-deps", "-r", str(part)],
            step,
            lambda _: "",
            "again",
        )


def _inspect(venv: Path) -> dict[str, bool]:
    done = subprocess.run([str(venv / "bin" / "python"), "-c", _INSPECT], capture_output=True, text=True, check=True)
    return {normalize(name): bool(whole) for name, whole in json.loads(done.stdout).items()}
