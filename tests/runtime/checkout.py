"""A copy of the checkout with a fake app, to test the launcher without the product."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from runtime import paths, processes, programs
from runtime.loopback import free_ports
from runtime.ports import read_ports

_COPIED = ("Makefile", "dapr.yaml", "config", "components", "resiliency", "runtime")
_LOCKS = ("requirements.lock", "requirements-dev.lock")
_FIXED = "sentry"  # its port is fixed by the dapr CLI

_SANDBOX = "import time\nprint('sandbox is up', flush=True)\ntime.sleep(600)\n"
_AGENT = """\
import http.server, os, signal, sys, time
if sys.argv[1] == "demo":
    print("demo at port", os.environ["REFUND_AGENT_WEB_PORT"], flush=True)
    time.sleep(float(os.environ.get("DEMO_SECONDS", "0")))
    sys.exit(int(os.environ.get("DEMO_CODE", "0")))
if sys.argv[1] == "cost":
    print(*sys.argv[1:], flush=True)
    sys.exit(0)
if os.environ.get("AGENT_FAILS"):
    print("the ledger is locked", flush=True)
    time.sleep(0.3)
    sys.exit(1)
def end(*_):
    # Into a file, since the dapr CLI loses the last output of an app.
    with open(os.path.join(os.environ["REFUND_AGENT_STATE_DIR"], "ended"), "w") as file:
        file.write("orderly")
    os._exit(0)
signal.signal(signal.SIGTERM, end)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
address = ("127.0.0.1", int(os.environ["REFUND_AGENT_WEB_PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""


class Checkout:
    """The folder, its make targets, and the processes that they leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (*_COPIED, *_LOCKS):
            source = paths.ROOT / name
            ignore = shutil.ignore_patterns("__pycache__")
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=ignore)
            else:
                shutil.copy(source, folder / name)
        (folder / ".venv").symlink_to(paths.VENV)
        built = folder / ".runtime" / ".dapr" / "bin"
        built.mkdir(parents=True)
        for name, program in programs.find()[0].items():
            (built / name).symlink_to(program.path)
        self._write_fake_app()
        self.ports = self._move_ports()
        self._started: list[subprocess.Popen[str]] = []

    def make(self, target: str, **environment: str) -> subprocess.Popen[str]:
        """Starts a make target; its output is a pipe of lines."""
        process = subprocess.Popen(
            ["make", "--no-print-directory", target],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def ended_orderly(self) -> bool:
        """Whether the agent ended by SIGTERM."""
        return (self.folder / ".state" / "ended").exists()

    def running(self) -> list[str]:
        """Pid and command of the processes whose command or working folder is in this checkout."""
        return [words for pid in processes.process_table() if (words := self._describe(pid))]

    def close(self) -> None:
        """Ends the processes that a failed test has left."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
            if process.stdout:
                process.stdout.close()

    def _describe(self, pid: int) -> str:
        try:
            folder = os.readlink(f"/proc/{pid}/cwd")
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
        except OSError:
            return ""
        inside = folder.startswith(str(self.folder)) or str(self.folder) in words
        return f"{pid} {words}" if inside and words else ""

    def _write_fake_app(self) -> None:
        app = self.folder / "app"
        (app / "config").mkdir(parents=True)
        (app / "__init__.py").touch()
        # The modules of the product that runtime/ uses.
        for shared in ("__init__.py", "private_files.py", "proxies.py", "secret_files.py"):
            shutil.copy(paths.ROOT / "app" / "config" / shared, app / "config")
        (app / "__main__.py").write_text(_AGENT)
        (self.folder / "sandbox.py").write_text(_SANDBOX)

    def _move_ports(self) -> dict[str, int]:
        """Replaces all ports in the copy's dapr.yaml and components by free ones."""
        old = {name: port.number for name, port in read_ports(self.folder / "dapr.yaml").items()}
        new = dict(zip(old, free_ports(len(old)), strict=True)) | {_FIXED: old[_FIXED]}
        files = [self.folder / "dapr.yaml", *(self.folder / "components").glob("*.yaml")]
        for file in files:
            text = file.read_text()
            for name, number in old.items():
                text = text.replace(str(number), f"<{name}>")
            for name, number in new.items():
                text = text.replace(f"<{name}>", str(number))
            file.write_text(text)
        return new


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """Reads output up to the line that contains `wanted`. Fails if the output ends before."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if wanted in line:
            return lines
    raise AssertionError(f"no line with {wanted!r} in:\n" + "\n".join(lines))


def until(done: Callable[[], bool], what: Callable[[], Iterable[str]], seconds: float = 60.0) -> None:
    """Polls until `done`. Fails with the lines of `what` after `seconds`."""
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit, "\n".join(what())
        time.sleep(0.05)
