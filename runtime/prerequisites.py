"""Checks what this machine must have before set-up, with remedies."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from runtime import go_build, paths, programs, virtualenv
from runtime.errors import UserError
from runtime.programs import show_version

_LEAST_PYTHON = (3, 11)
_BELOW_PYTHON = (3, 14)
_GIGABYTE = 1024**3
_BUILD_GIGABYTES = 9
_VENV_GIGABYTES = 1.5


@dataclass(frozen=True)
class Check:
    """The result of a check. `found` describes the state; `remedy` is empty if `ok`."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def checks() -> list[Check]:
    """Checks everything that set-up needs. Takes about half a second and changes nothing."""
    good, bad = programs.find()
    missing = [name for name in programs.NAMES if name not in good]
    functions: list[Callable[[], Check]] = [
        _system,
        _python,
        _venv_module,
        _make,
        lambda: _dapr(good, bad, missing),
        lambda: _go(missing),
        lambda: _disk(missing),
    ]
    return [check() for check in functions]


def require(results: list[Check]) -> None:
    """Raises one `UserError` with all failed checks."""
    failed = [f"{check.name}: {check.found}. {check.remedy}" for check in results if not check.ok]
    if failed:
        raise UserError("\n".join(failed))


def show_checks(results: list[Check]) -> int:
    """Prints one line a check, and its remedy below; returns exit code 0 if all are ok."""
    for check in results:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
        if check.remedy:
            print(f"      {check.remedy}")
    return int(not all(check.ok for check in results))


def _system() -> Check:
    name = f"{platform.system()} {platform.machine()}"
    ok = sys.platform in ("linux", "darwin")
    return Check("system", ok, name, "" if ok else "Use Linux, macOS, or Windows with WSL 2.")


def _python() -> Check:
    ok = _LEAST_PYTHON <= sys.version_info[:2] < _BELOW_PYTHON
    remedy = "Install Python 3.11, 3.12 or 3.13 and call `make PYTHON=python3.11 ...`."
    return Check("python", ok, f"{platform.python_version()} ({sys.executable})", "" if ok else remedy)


def _venv_module() -> Check:
    ok = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))
    ready = virtualenv.is_installed(paths.VENV, virtualenv.LOCKS)
    remedy = f"On Debian and Ubuntu: apt install python{'.'.join(map(str, sys.version_info[:2]))}-venv."
    state = "installed" if ready else "to be made" if ok else "Python's venv or ensurepip is missing"
    return Check("virtual environment", ok or ready, state, "" if ok or ready else remedy)


def _make() -> Check:
    program = shutil.which("make")
    remedy = "On Debian and Ubuntu: apt install make; or call `python3 -m runtime` with the target's name."
    return Check("make", bool(program), program or "not found", "" if program else remedy)


def _dapr(good: dict[str, programs.Program], bad: list[programs.Program], missing: list[str]) -> Check:
    if not missing:
        return Check("Dapr", True, "; ".join(str(program) for program in good.values()))
    unusable = f" (unusable: {'; '.join(map(str, bad))})" if bad else ""
    return Check("Dapr", True, f"{', '.join(missing)} will be built from the pinned sources{unusable}")


def _go(missing: list[str]) -> Check:
    if not missing:
        return Check("Go", True, "not needed, since all Dapr programs are installed")
    go = go_build.find_go()
    if go:
        return Check("Go", True, f"{show_version(go[1])} ({go[0]})")
    return Check(
        "Go", True, f"none >= {show_version(go_build.needed_go())}; it will be fetched into {paths.RUNTIME}/go"
    )


def _disk(missing: list[str]) -> Check:
    free = shutil.disk_usage(paths.ROOT).free / _GIGABYTE
    build = _BUILD_GIGABYTES if missing else 0
    venv = 0 if virtualenv.is_installed(paths.VENV, virtualenv.LOCKS) else _VENV_GIGABYTES
    needed = build + venv
    ok = free >= needed
    remedy = f"Free {needed - free:.1f} GB more; the build's caches can be removed afterwards."
    return Check("disk", ok, f"{free:.1f} GB free, {needed:.1f} GB needed", "" if ok else remedy)
