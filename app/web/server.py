"""The web server: waitress in a background thread of the worker's process, with a graceful stop."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import BadRequest

from app.domain.errors import ConfigurationError
from app.web.api.problems import CONTENT_TYPE, http_code, make_problem
from app.web.api.route_table import MAX_BILL_BYTES
from app.web.factory import MAX_BODY_BYTES, SECURITY_HEADERS

POLL_SECONDS = 0.01
# The health checks read memory only. A separate thread answers them, so that slow requests cannot delay them.
HEALTH = frozenset({"/healthz", "/livez", "/readyz"})


class _ProblemTask(ErrorTask):  # type: ignore[misc]  # waitress ships no types
    """Answers a request that waitress itself refuses (too large, not HTTP) with a problem document."""

    def execute(self) -> None:
        error = self.request.error
        detail = f"the request cannot be accepted: {error.reason.lower()}; correct it and send it again"
        problem = make_problem(http_code(error.reason), error.reason, error.code, detail, self.request.path or "/")
        body = problem.model_dump_json(exclude_none=True).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend([("Content-Type", CONTENT_TYPE), *SECURITY_HEADERS.items()])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress ships no types
    """Turns every failure of waitress's parser into an error of the request, so that it is answered with 400."""

    path = "/"  # for a request whose own path was not parsed

    def received(self, data: bytes) -> int:
        try:
            return int(super().received(data))
        except Exception as error:  # not handled by waitress, such as a content length of five thousand digits
            self.error = BadRequest(type(error).__name__)
            self.completed = True
            return len(data)


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress ships no types
    error_task_class = _ProblemTask
    parser_class = _Parser


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress ships no types
    """Threads for all requests, and one thread for the health checks alone."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.set_thread_count(threads)
        self._health = ThreadedTaskDispatcher()
        self._health.set_thread_count(1)

    def add_task(self, task: Any) -> None:
        if task.requests[0].path in HEALTH:
            self._health.add_task(task)
        else:
            super().add_task(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        self._health.shutdown(cancel_pending, timeout)
        return bool(super().shutdown(cancel_pending, timeout))


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on web address {host}:{port}: {error.strerror}; set REFUND_AGENT_WEB_PORT to a free port"
        ) from None
    return listener


class WebServer:
    """Serves `app` on one address. The constructor binds the port, so a taken port is reported early."""

    def __init__(self, app: Flask, *, host: str = "127.0.0.1", port: int = 8088, threads: int = 4) -> None:
        """Port 0 means any free port. Raises ConfigurationError if the address cannot be bound."""
        self._server: Any = create_server(
            app,
            sockets=[_bind(host, port)],
            _dispatcher=_Dispatcher(threads),
            ident="",
            max_request_body_size=MAX_BILL_BYTES + MAX_BODY_BYTES,
        )
        self._server.channel_class = _Channel
        # waitress warns of every request that waits for a thread, which is normal under load.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._thread = threading.Thread(target=self._server.run, name="web", daemon=True)

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._server.effective_port)

    @property
    def url(self) -> str:
        """The base URL on this machine."""
        return f"http://{self._server.effective_host}:{self.port}"

    def start(self) -> None:
        """Starts serving in the background."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> bool:
        """Stops accepting connections, waits for requests in progress and closes.

        Returns False if requests were cut off; a second call then waits for their threads.
        """
        if not self._thread.is_alive():
            self._stop_listening()
            self._server.task_dispatcher.shutdown(timeout=timeout_seconds)
            return self._close_pipe()
        deadline = time.monotonic() + timeout_seconds
        self._run_in_loop(self._stop_listening)
        finished = self._wait_for_requests(deadline)
        self._server.task_dispatcher.shutdown(timeout=max(0.0, deadline - time.monotonic()))
        self._run_in_loop(self._leave_loop)
        self._thread.join(timeout=max(1.0, deadline - time.monotonic()))
        return self._close_pipe() and finished

    def _run_in_loop(self, action: Callable[[], None]) -> None:
        # Only the loop's thread may touch its sockets.
        self._server.trigger.pull_trigger(action)

    def _stop_listening(self) -> None:
        self._server.accepting = False
        self._server.del_channel()
        self._server.socket.close()
        for channel in list(self._server.active_channels.values()):
            if not channel.requests and not channel.total_outbufs_len:
                channel.handle_close()

    def _leave_loop(self) -> None:
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()
        self._server.trigger.del_channel()  # the loop ends when no channel is left

    def _close_pipe(self) -> bool:
        # A thread that still works may write to the pipe that wakes the loop. If the pipe were closed, its descriptor
        # could belong to another file by then; so it stays open if a request was cut off.
        if self._thread.is_alive() or self._server.task_dispatcher.threads:
            return False
        self._server.trigger.close()
        return True

    def _wait_for_requests(self, deadline: float) -> bool:
        while any(c.requests or c.total_outbufs_len for c in list(self._server.active_channels.values())):
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True
