"""Prepares a fresh checkout to run; takes a fraction of a second if it is prepared already."""

from __future__ import annotations

import shlex
from pathlib import Path

from runtime import go_build, paths, prerequisites, programs, virtualenv
from runtime.errors import UserError
from runtime.locks import Locked, exclusive
from runtime.programs import Program

_LOCK = paths.RUNTIME / "lock"
# `dapr run` has no option for these two addresses, and daprd's default is all interfaces.
_DAPRD = """\
#!/bin/sh
exec {daprd} "$@" --metrics-listen-address 127.0.0.1 --dapr-internal-grpc-listen-address 127.0.0.1
"""


def set_up(*, development: bool = False) -> None:
    """Makes what is missing: the virtual environment, the Dapr programs, and the folder with which `dapr run` works.

    `development` adds the packages for tests, types and style. Raises `UserError`.
    """
    try:
        with exclusive(_LOCK, what="Another set-up"):
            _set_up(development)
    except Locked as locked:
        print(f"{locked.message} Waiting for it.", flush=True)
        with exclusive(_LOCK, what="Another set-up", wait=True):
            _set_up(development)


def _set_up(development: bool) -> None:
    locks = virtualenv.DEV_LOCKS if development else virtualenv.LOCKS
    good, _ = programs.find()
    missing = [name for name in programs.NAMES if name not in good]
    if missing or not virtualenv.is_installed(paths.VENV, locks):
        prerequisites.require(prerequisites.checks())
        virtualenv.install(paths.VENV, locks)
    if missing:
        go_build.build(missing, paths.VENV)
        good = _find_all()
    link(good, paths.LAUNCH_BIN)
    write_command(paths.VENV)


# Finds its checkout from its own place, so that a moved checkout, or another one that links to the environment, needs
# no other text.
_COMMAND = """\
#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")")
exec "$here/python" -Pc 'import sys; sys.path.insert(0, sys.argv.pop(1)); from app.__main__ import main; main()' \\
  "$here/../.." "$@"
"""


def write_command(venv: Path) -> None:
    """Writes the command `refund-agent` into the environment. It runs the checkout's code from any folder."""
    script = venv / "bin" / "refund-agent"
    if not script.exists() or script.read_text() != _COMMAND:
        script.write_text(_COMMAND)
        script.chmod(0o755)


def _find_all() -> dict[str, Program]:
    good, bad = programs.find()
    missing = [name for name in programs.NAMES if name not in good]
    if missing:
        raise UserError(
            f"After the build, these programs still cannot be used: {', '.join(missing)}"
            f" ({'; '.join(map(str, bad)) or 'not found'}).",
            remedy=f"Remove {paths.BUILT_PROGRAMS} and run make setup again.",
        )
    return good


def link(good: dict[str, Program], folder: Path) -> None:
    """Fills a folder in the form of one Dapr installation with links to the programs, and a wrapper for daprd."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in good.items():
        target = folder / name
        new = folder / f".{name}.new"
        new.unlink(missing_ok=True)
        if name == "daprd":
            new.write_text(_DAPRD.format(daprd=shlex.quote(str(program.path))))
            new.chmod(0o755)
        else:
            new.symlink_to(program.path)
        new.replace(target)
