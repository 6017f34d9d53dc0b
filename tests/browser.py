"""A real browser for tests: Debian's headless Chromium, controlled by the DevTools protocol over a pipe.

    ensure_installed()
    with Browser() as browser:
        browser.open("http://127.0.0.1:8088/pages/tasks")
        browser.run("document.title")

No port is opened, the profile is a temporary folder, and the browser ends with its `with` statement.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runtime.errors import UserError

PACKAGE = "chromium-headless-shell"
_PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
_INSTALL_SECONDS = 600
_ANSWER_SECONDS = 30.0
_QUIET = (
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server"),
)
# Chromium expects its pipes as descriptors 3 and 4, which may be in use, even by the other pipe.
_AS_3_AND_4 = """
import fcntl, os, sys
for wanted, given in enumerate([fcntl.fcntl(int(each), fcntl.F_DUPFD_CLOEXEC, 10) for each in sys.argv[1:3]], start=3):
    os.dup2(given, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> Path:
    """The browser's program. Raises UserError if none is installed."""
    for name in _PROGRAMS:
        path = shutil.which(name)
        if path:
            return Path(path)
    raise UserError("No Chromium is installed.", remedy=f"On Debian: apt-get install {PACKAGE}.")


def ensure_installed() -> None:
    """Installs Debian's package (about 100 MB) if there is no browser and this is root on a Debian machine. Otherwise
    raises UserError with the remedy."""
    with contextlib.suppress(UserError):
        find()
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        find()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", PACKAGE)):
        command = ["apt-get", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=_INSTALL_SECONDS
        )
        if done.returncode:
            raise UserError(f"apt-get {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    find()


class Browser:
    """A browser with one page. `requests` are the requested URLs, `complaints` the warnings and errors of the
    console."""

    def __init__(self) -> None:
        """Raises UserError if no browser is installed."""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._program = find()
        self._folder = Path(tempfile.mkdtemp(prefix="browser-"))
        self._number = 0
        self._unread = b""
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        """Starts the browser with an empty page."""
        with self._pipes() as (theirs_in, theirs_out):
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own sandbox refuses root
            headless = [] if "headless-shell" in self._program.name else ["--headless=new"]
            options = [*headless, *sandbox, *_QUIET, f"--user-data-dir={self._folder}", "--remote-debugging-pipe"]
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-IS",
                    "-c",
                    _AS_3_AND_4,
                    str(theirs_in),
                    str(theirs_out),
                    str(self._program),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs_in, theirs_out),
            )
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.ask(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the browser and deletes its profile."""
        self._end()

    def size(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Sets the size and the colour scheme of the emulated screen."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Opens a URL and waits until the page is loaded."""
        self._events.clear()
        problem = self.ask("Page.navigate", url=url).get("errorText")
        assert not problem, f"{url}: {problem}"
        self.loaded()

    def type(self, selector: str, text: str) -> None:
        """Types into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.ask("Input.insertText", text=text)

    def submit(self, selector: str) -> None:
        """Submits a form, and waits for the resulting page."""
        self._events.clear()
        self.run(f"document.querySelector({json.dumps(selector)}).requestSubmit()")
        self.loaded()

    def follow(self, selector: str) -> None:
        """Clicks on an element, and waits for the resulting page."""
        self._events.clear()
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self.loaded()

    def loaded(self) -> None:
        """Waits until a page is loaded."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._take(deadline)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{script}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def picture(self, file: Path) -> Path:
        """The whole page as a PNG file."""
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))
        return file

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends one command of the protocol and returns its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (answer := self._take(deadline)).get("id") != self._number:
            pass
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    @contextlib.contextmanager
    def _pipes(self) -> Iterator[tuple[int, int]]:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        try:
            yield theirs_in, theirs_out
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def _take(self, deadline: float) -> dict[str, Any]:
        """The next message. Events are also noted."""
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._in, 65_536) if ready else b""
            assert piece, "the browser has ended" if ready else f"the browser did not answer in {_ANSWER_SECONDS:.0f} s"
            self._unread += piece
        raw, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if "method" in message:
            self._note(message)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        values = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event["method"] == "Log.entryAdded" and values["entry"]["level"] in ("warning", "error"):
            self.complaints.append(f"{values['entry']['text']} ({values['entry'].get('url', '')})")
        elif event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(values))

    def _end(self) -> None:
        for descriptor in (self._out, self._in):
            os.close(descriptor)  # the browser ends when its pipe is closed
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
