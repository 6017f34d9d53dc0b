"""The web server on a real socket: keep-alive, waitress's own refusals, health checks, graceful stop."""

from __future__ import annotations

import http.client
import json
import logging
import random
import re
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from flask import Flask

from app.domain.errors import ConfigurationError
from app.domain.models import TaskView
from app.web.factory import SECURITY_HEADERS, create_app
from app.web.server import WebServer
from tests.live import until
from tests.web.documented import ticket_body
from tests.web.fakes import FakeTaskService, FakeVitals, make_access, make_ticket, secret

ROOT = {"Authorization": f"Bearer {secret('root')}"}
CALL = {"headers": ROOT, "trust_env": False, "timeout": 60}


class SlowTaskService(FakeTaskService):
    """A service whose `get` waits until the test sets `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    def get(self, task_id: str) -> TaskView:
        self.entered.set()
        assert self.released.wait(60)
        return super().get(task_id)


@pytest.fixture
def server(flask_app: Flask) -> Iterator[WebServer]:
    running = WebServer(flask_app, port=0)
    running.start()
    yield running
    assert running.stop(60)


def open_port(server: WebServer) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


def test_a_ticket_goes_through_a_real_socket(server: WebServer, service: FakeTaskService) -> None:
    with httpx.Client(base_url=server.url, headers=ROOT, trust_env=False, timeout=60) as http_client:
        assert http_client.post("/tasks", json=ticket_body()).status_code == 201
        answer = http_client.get("/tasks/acme:T-1")
    assert TaskView.model_validate_json(answer.content) == service.get("acme:T-1")
    assert "server" not in answer.headers
    assert server.url.startswith("http://127.0.0.1:")


def test_one_connection_serves_many_requests(server: WebServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    used = connection.sock
    for _ in range(20):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
    assert connection.sock is used
    connection.close()


def test_many_callers_at_once_make_one_task(server: WebServer, service: FakeTaskService) -> None:
    statuses: list[int] = []

    def send() -> None:
        answer = httpx.post(f"{server.url}/tasks", json=ticket_body(), headers=ROOT, trust_env=False, timeout=60)
        statuses.append(answer.status_code)

    callers = [threading.Thread(target=send) for _ in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert sorted(statuses) == [200] * 11 + [201]
    assert service.submissions == 12


@pytest.mark.parametrize("length", [262_145, 20_000_000])
def test_a_body_that_is_too_large_is_a_problem(server: WebServer, length: int) -> None:
    # The app refuses bodies above 256 KiB. Above the limit for bills, waitress refuses before it reads the body.
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
        head = f"POST /tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret('root')}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        raw.sendall(head.encode())
        if length < 1_000_000:
            raw.sendall(b" " * length)
        status, headers, body = read_answer(raw)
    assert (status, headers["content-type"]) == (413, "application/problem+json")
    assert json.loads(body)["status"] == 413


def test_malformed_http_is_a_problem(server: WebServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
        raw.sendall(b"POST /tasks HTTP/1.1\r\nContent-Length: many\r\n\r\n")
        status, headers, body = read_answer(raw)
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert {name.lower(): value for name, value in SECURITY_HEADERS.items()}.items() <= headers.items()
    assert json.loads(body)["title"] == "Bad Request"


def test_a_health_check_does_not_wait_for_slow_requests() -> None:
    service = SlowTaskService()
    service.submit(make_ticket())
    server = WebServer(create_app(service, make_access(), version="1", vitals=FakeVitals()), port=0, threads=2)
    server.start()
    waiting = [
        threading.Thread(target=httpx.get, args=(f"{server.url}/tasks/acme:T-1",), kwargs=CALL) for _ in range(6)
    ]
    for thread in waiting:
        thread.start()
    assert service.entered.wait(60)
    for path in ("/healthz", "/healthz?deep=1", "/livez", "/readyz"):
        assert httpx.get(f"{server.url}{path}", trust_env=False, timeout=30).json()["status"] == "ok"
    service.released.set()
    for thread in waiting:
        thread.join(60)
    assert server.stop(60)


def test_any_bytes_are_answered_or_end_the_connection_without_an_error(
    server: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    dice = random.Random(17)
    statuses = {exchange(server, mutate_request(dice)) for _ in range(600)} | {
        exchange(server, bytes_) for bytes_ in ODD
    }
    assert {400, 200} <= statuses
    assert statuses <= {None, 200, 400, 401, 404, 405, 413, 414, 415, 422, 431, 501}
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert httpx.get(f"{server.url}/healthz", trust_env=False, timeout=60).is_success
    until(lambda: not server._server.active_channels, "no connection stays")


ODD = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
    b"\r\n\r\n\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"get /healthz HTTP/1.1\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%ff%00\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /tasks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /tasks HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"A" * 300_000,
    b"GET / HTTP/1.1\r\n" + b"x" * 300_000 + b"\r\n\r\n",
    bytes(range(256)) + b"\r\n\r\n",
)


def mutate_request(dice: random.Random) -> bytes:
    """A request with up to six random changes."""
    body = json.dumps(ticket_body()).encode()
    method, path = dice.choice([(b"GET", b"/healthz"), (b"POST", b"/tasks"), (b"GET", b"/tasks/acme:T-1?x=%41")])
    head = b"%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n" % (method, path)
    size = b"Content-Length: %d\r\n\r\n" % (len(body) if method == b"POST" else 0)
    request = bytearray(head + size + (body if method == b"POST" else b""))
    for _ in range(dice.randint(0, 6)):
        place = dice.randrange(len(request))
        match dice.randrange(4):
            case 0:
                request[place] = dice.randrange(256)
            case 1:
                del request[place : place + dice.randint(1, 8)]
            case 2:
                request[place:place] = request[place : place + 20]
            case _:
                request[place:place] = dice.choice([b"\r\n", b"\r\n\r\n", b"\x00", b"%", b": ", b"\xff\xfe"])
        if not request:
            break
    return bytes(request)


def exchange(server: WebServer, request: bytes) -> int | None:
    """Sends the bytes, closes the sending side, and returns the first status; None without an answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
        answer = b""
        try:
            raw.sendall(request)
            raw.shutdown(socket.SHUT_WR)
            while more := raw.recv(65_536):
                answer += more
        except ConnectionError:
            pass  # the server closed the connection before it had read everything
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    assert status or not answer, answer[:80]
    return int(status[1]) if status else None


def read_answer(raw: socket.socket) -> tuple[int, dict[str, str], bytes]:
    answer = http.client.HTTPResponse(raw)
    answer.begin()
    body = answer.read()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def test_stop_waits_for_a_request_in_progress_and_accepts_no_new_one() -> None:
    service = SlowTaskService()
    service.submit(make_ticket())
    server = WebServer(create_app(service, make_access(), version="1"), port=0)
    server.start()
    answers: list[int] = []

    def ask() -> None:
        url = f"{server.url}/tasks/acme:T-1"
        answers.append(httpx.get(url, headers=ROOT, trust_env=False, timeout=60).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert service.entered.wait(60)
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(server.stop(60)))
    stopping.start()
    until(lambda: not open_port(server), "no new connection is taken")
    assert not stopped
    service.released.set()
    stopping.join(60)
    asking.join(60)
    assert (stopped, answers) == ([True], [200])


def test_stop_has_a_time_limit() -> None:
    service = SlowTaskService()
    server = WebServer(create_app(service, make_access(), version="1"), port=0)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
        head = f"GET /tasks/acme:T-1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret('root')}\r\n\r\n"
        raw.sendall(head.encode())
        assert service.entered.wait(60)
        assert server.stop(0.2) is False
    until(lambda: not open_port(server), "no new connection is taken")
    assert server._server.trigger._fds  # the cut-off worker may still write there
    service.released.set()
    assert server.stop(60)


def test_the_pipe_that_wakes_the_loop_outlives_its_writers(flask_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop may end before `stop` writes its own byte to the pipe, which must still be open then."""
    server = WebServer(flask_app, port=0)
    server.start()
    trigger, loop = server._server.trigger, server._thread
    write = trigger._physical_pull

    def pull_twice() -> None:
        write()  # the worker's byte: the loop may act on it at once, even end
        loop.join(0.5)
        write()

    monkeypatch.setattr(trigger, "_physical_pull", pull_twice)
    assert server.stop(60)
    with pytest.raises(OSError, match="Bad file descriptor"):
        write()


def test_stop_does_not_wait_for_an_idle_keep_alive_connection(flask_app: Flask) -> None:
    server = WebServer(flask_app, port=0)
    server.start()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http_client:
        http_client.get("/healthz")
        assert server.stop(60)
    assert not open_port(server)
    assert not [thread for thread in threading.enumerate() if thread.name == "web"]


def test_a_server_that_was_never_started_can_be_stopped(flask_app: Flask) -> None:
    server = WebServer(flask_app, port=0)
    assert server.stop()
    assert not open_port(server)


def test_a_taken_port_is_reported_with_the_remedy(server: WebServer, flask_app: Flask) -> None:
    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{server.port}: .*REFUND_AGENT_WEB_PORT"):
        WebServer(flask_app, port=server.port)
