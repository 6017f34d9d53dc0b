"""Makes the virtual environment from the hash-checked locks; a stamp, written last, says which lock is installed.

An install that was interrupted is simply repeated: pip keeps what is there, and packages that were cut
short are found by their own file lists and put in again.
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
_KEPT = frozenset({"pip", "setuptools", "wheel"})
# Runs inside the environment: names distributions whose own list of files is missing or names a lost file.
_INSPECT = """
import csv, importlib.metadata, json
def whole(found):
    # Python 3.12 and later leave files that are missing out of `files`: the list itself is read.
    listed = [row[0] for row in csv.reader((found.read_text("RECORD") or "").splitlines()) if row]
    return bool(listed) and all(found.locate_file(name).exists() for name in listed if not name.endswith(".pyc"))
found = list(importlib.metadata.distributions())
print(json.dumps({d.metadata["Name"]: whole(d) for d in found if d.metadata["Name"]}))
"""


def normal(name: str) -> str:
    """A package name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_names(text: str) -> set[str]:
    """The packages of a lock, normalised."""
    return {normal(found[1]) for line in text.splitlines() if (found := _NAME.match(line))}


def digest(locks: tuple[Path, ...]) -> str:
    """What the stamp holds: the locks' bytes and the Python they are installed for."""
    content = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for lock in locks:
        content.update(lock.read_bytes())
    return content.hexdigest()


def stamp_of(venv: Path, locks: tuple[Path, ...]) -> Path:
    """The stamp of a set of locks."""
    return venv / f"installed-{locks[-1].stem}.sha256"


def installed(venv: Path, locks: tuple[Path, ...]) -> bool:
    """Whether exactly these locks are installed and the environment's Python is there."""
    stamp = stamp_of(venv, locks)
    python = venv / "bin" / "python"
    return stamp.exists() and python.exists() and stamp.read_text() == digest(locks)


def install(venv: Path, locks: tuple[Path, ...]) -> None:
    """Makes or completes the environment. Does nothing when it is up to date."""
    if installed(venv, locks):
        return
    _make(venv)
    for lock in locks:
        _install_lock(venv, lock)
    _repair(venv, locks)
    # The runtime's lock is part of the development's: both are installed now.
    for end in range(1, len(locks) + 1):
        stamp_of(venv, locks[:end]).write_text(digest(locks[:end]))


def _make(venv: Path) -> None:
    for stamp in venv.glob("installed-*.sha256"):
        stamp.unlink()
    if _python_of(venv) == sys.version_info[:2] and _runs(venv, "-m", "pip", "--version"):
        return
    with Step(f"virtual environment in {venv.name}"):
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False
        )
    if made.returncode:
        raise UserError(
            f"{sys.executable} -m venv failed: {(made.stderr or made.stdout).strip()}",
            remedy="On Debian and Ubuntu: apt install python3-venv.",
        )


def _python_of(venv: Path) -> tuple[int, int] | None:
    configuration = venv / "pyvenv.cfg"
    if not configuration.exists():
        return None
    found = re.search(r"^version\s*=\s*(\d+)\.(\d+)", configuration.read_text(), re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None


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
        seen = sum(line.startswith(("Collecting ", "Requirement already")) for line in lines)
        return f"{min(seen, total)} of {total} packages"

    with Step(f"packages of {lock.name}") as step:
        pip(venv, ["install", "--require-hashes", "--no-deps", "-r", str(lock)], step, describe, lock.stem)


def pip(venv: Path, arguments: list[str], step: Step, describe: Callable[[list[str]], str], name: str) -> None:
    """Runs the environment's pip, showing progress; its log is kept in .runtime/logs."""
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
    """Puts in again what is damaged, and removes what no lock names: the environment is exactly the locks."""
    state = _inspect(venv)
    damaged = sorted(name for name, whole in state.items() if not whole and name not in _KEPT)
    if damaged:
        for lock in locks:
            _reinstall(venv, lock, damaged)
    wanted = locked_names("\n".join(lock.read_text() for lock in DEV_LOCKS if lock.exists()))
    extra = sorted(set(state) - wanted - _KEPT)
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
    with Step(f"again: {', '.join(damaged)}") as step:
        pip(
            venv,
            ["install", "--force-reinstall", "--require-hashes", "--no-deps", "-r", str(part)],
            step,
            lambda _: "",
            "again",
        )


def _inspect(venv: Path) -> dict[str, bool]:
    done = subprocess.run([str(venv / "bin" / "python"), "-c", _INSPECT], capture_output=True, text=True, check=True)
    return {normal(name): bool(whole) for name, whole in json.loads(done.stdout).items()}
