"""The commands behind the Makefile: `python3 -m runtime COMMAND`. Uses the standard library only."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from app.config.private_files import UMASK
from runtime import paths, prerequisites, processes, state
from runtime.control_plane import NAMESPACE
from runtime.errors import UserError, exit_code
from runtime.locks import exclusive, is_held
from runtime.loopback import HOST, bypass_proxies
from runtime.set_up import set_up

_STACK_LOCK = paths.STATE / "lock"
_APP_LOGS = paths.ROOT / ".dapr" / "logs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Errors are printed as sentences, with exit code 1."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "setup": _setup,
        "run": lambda _: _launch("run"),
        "up": lambda _: _launch("up"),
        "control-plane": lambda _: _launch("control-plane"),
        "test": _test,
        "test-cluster": lambda rest: _tool("pytest", "--cluster", "tests/cluster", *rest),
        "bench": lambda rest: _tool("lab.bench", *rest),
        "bench-ledger": lambda rest: _tool("lab.bench.ledger", *rest),
        "chaos": lambda rest: _tool("lab.chaos", *rest),
        "experiment": lambda rest: _tool("lab.crash_cost", *rest),
        "sbom": lambda _: _sbom(),
        "lint": lambda _: _lint(),
        "format": lambda _: _tool("ruff", "format", "."),
        "env": lambda _: _environment(),
        "doctor": lambda _: _doctor(),
        "reload": lambda _: _in_environment("-m", "runtime.reload"),
        "clean-state": _clean_state,
    }
    parser = argparse.ArgumentParser(prog="python3 -m runtime", description="See `make help`.")
    parser.add_argument("command", choices=commands)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="arguments of the tests, benchmarks and experiments")
    chosen = parser.parse_args(arguments)
    os.chdir(paths.ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.adopt_orphans()
    return exit_code(
        lambda: commands[chosen.command](chosen.rest),
        interrupted="Interrupted; the same command continues where it stopped.",
    )


def _setup(_rest: list[str]) -> int:
    set_up(development=True)
    print(f"Ready: {paths.VENV} and {paths.LAUNCH_BIN}.")
    return 0


def _launch(command: str) -> int:
    set_up()
    return _become("-m", "runtime.launch", command)


def _tool(module: str, *arguments: str) -> int:
    set_up(development=True)
    return _become("-m", module, *arguments)


def _test(rest: list[str]) -> int:
    """Runs all tests: first those that do not start the product, then those that do, two at a time.

    The tests of a file share a process, and with it the product that they run.
    """
    if rest:
        return _tool("pytest", *rest)
    set_up(development=True)
    cores = os.cpu_count() or 1
    parts = [(min(cores, 4), "not runtime"), (min(cores, 2), "runtime")]
    results = [
        _in_environment("-m", "pytest", "-n", str(workers), "--dist", "loadfile", "-m", marker)
        for workers, marker in parts
    ]
    return int(any(results))


def _sbom() -> int:
    set_up(development=True)
    file = paths.STATE / "sbom.cdx.json"
    paths.STATE.mkdir(parents=True, exist_ok=True)
    tool = ("-W", "ignore", "-m", "cyclonedx_py", "requirements", "requirements.lock", "--pyproject", "pyproject.toml")
    code = _in_environment(*tool, "--output-reproducible", "-o", str(file))
    if code == 0:
        print(f"{file}: the packages of the image with their versions and hashes, as CycloneDX.")
    return code


def _lint() -> int:
    set_up(development=True)
    results = [
        _in_environment("-m", *tool) for tool in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
    ]
    return int(any(results))


def _become(*arguments: str) -> int:
    """Replaces this process by the program, which then receives the signals and gives the exit code."""
    sys.stdout.flush()
    python = str(paths.VENV_PYTHON)
    os.execv(python, [python, *arguments])  # noqa: S606 - no shell is needed


def _in_environment(*arguments: str) -> int:
    sys.stdout.flush()
    return subprocess.run([str(paths.VENV_PYTHON), *arguments], check=False).returncode


def _environment() -> int:
    anchors = paths.STATE / "keys" / "ca.crt"
    if not anchors.exists():
        raise UserError(
            f"There is no certificate authority yet ({anchors}).",
            remedy="Start `python3 -m runtime control-plane` in another shell first.",
        )
    state.prepare(paths.STATE)
    values = {
        "DAPR_RUNTIME_PATH": str(paths.LAUNCH),
        "DAPR_TRUST_ANCHORS": anchors.read_text(),
        "NAMESPACE": NAMESPACE,
        "DAPR_HOST_IP": HOST,
        **bypass_proxies(),
    }
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"umask {UMASK:03o}")  # only the owner can read the files of daprd and the apps
    # The token itself is not printed, since printed text may end up in a log.
    print(f'export DAPR_API_TOKEN="$(cat {shlex.quote(str(paths.STATE / state.API_TOKEN_FILE))})"')
    print(f'export PATH={shlex.quote(str(paths.LAUNCH_BIN))}:"$PATH"')
    return 0


def _doctor() -> int:
    code = prerequisites.show_checks(prerequisites.checks())
    if paths.VENV_PYTHON.exists():
        code = _in_environment("-m", "runtime.ports") or code
        print("`.venv/bin/refund-agent doctor` also checks the configuration and the running programs.")
    return code


def _clean_state(rest: list[str]) -> int:
    """Removes the state of all runs, after a confirmation here or with --yes."""
    parser = argparse.ArgumentParser(prog="make clean-state", description="ARGS=--yes removes without asking.")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    confirmed = parser.parse_args(rest).yes
    folders = [folder for folder in (paths.STATE, _APP_LOGS) if folder.exists()]
    if is_held(_STACK_LOCK):
        raise UserError(f"A stack is running ({_STACK_LOCK} is held).", remedy="Stop it with Ctrl-C first.")
    if not folders:
        print("There is no state to remove.")
        return 0
    with exclusive(_STACK_LOCK, what="A stack of this project"):
        for folder in folders:
            print(f"{folder}: {_describe_contents(folder)}")
        if not (confirmed or _confirm()):
            print("Nothing was removed.")
            return 1
        for folder in folders:
            print(f"Removing {folder}")
            shutil.rmtree(folder)
    return 0


def _confirm() -> bool:
    if not sys.stdin.isatty():
        raise UserError(
            "This would remove tasks, ledger and keys for good.", remedy="To confirm: make clean-state ARGS=--yes"
        )
    try:
        return input("Remove all of it, tasks, ledger and keys, for good? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _describe_contents(folder: os.PathLike[str]) -> str:
    files = [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]
    size = sum(os.lstat(file).st_size for file in files)
    return f"{len(files)} files, {size / 1e6:.1f} MB ({', '.join(sorted(os.listdir(folder)))})"


if __name__ == "__main__":
    sys.exit(main())
