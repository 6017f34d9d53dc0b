"""The messages if no answer arrives: whether the request may have been carried out, and the remedy."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import client
from app.cli.root import cli

READS = (["task", "show", "acme:T-1"], ["task", "list"])
CHANGES = (
    ["task", "approve", "acme:T-1"],
    ["task", "reject", "acme:T-1"],
    ["task", "pause", "acme:T-1"],
    ["task", "resume", "acme:T-1"],
    ["task", "terminate", "acme:T-1", "--reason", "r"],
)
Answer = Callable[[socket.socket], object]


def close_at_once(connection: socket.socket) -> None:
    """Closes the connection without an answer."""


def answer_half(connection: socket.socket) -> None:
    """Closes the connection in the middle of the answer."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


@contextmanager
def server(answer: Answer | None) -> Iterator[str]:
    """A server that reads each request and calls `answer`; with None it keeps the connection open without answering."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def serve() -> None:
            kept = []
            while not over.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                connection.settimeout(5)
                connection.recv(65_536)
                if answer is None:
                    kept.append(connection)
                else:
                    answer(connection)
                    connection.close()
            for connection in kept:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        thread.join()


def error_line(words: list[str], url: str) -> str:
    """Runs a failing command and returns its one line of output."""
    result = CliRunner().invoke(cli, [*words, "--url", url, "--token", "t"])
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("answer", [close_at_once, answer_half, None])
@pytest.mark.parametrize("words", [*READS, *CHANGES], ids=lambda words: words[1])
def test_an_answer_that_does_not_come(words: list[str], answer: Answer | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.3)
    with server(answer) as url:
        line = error_line(words, url)
    assert line.startswith(f"error: the agent's answer is incomplete at {url} (")
    assert "start it" not in line
    if words in READS:
        assert line.endswith("; nothing was changed, so try again")
    else:
        assert line.endswith(
            ", so the outcome is unknown; check with `refund-agent task show acme:T-1` before you send it again"
        )


@pytest.mark.parametrize("words", [*READS, *CHANGES], ids=lambda words: words[1])
def test_nobody_listens(words: list[str]) -> None:
    assert "the agent does not answer at http://127.0.0.1:1 (ConnectError); start it with `make up`" in error_line(
        words, "http://127.0.0.1:1"
    )


@pytest.mark.parametrize("words", [*READS, *CHANGES], ids=lambda words: words[1])
def test_tls_to_a_port_of_plain_http(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain HTTP server waits for the end of a request's head, which a TLS handshake does not contain."""
    monkeypatch.setattr(client, "HANDSHAKE_SECONDS", 0.3)
    with plain_agent() as url:
        began = time.monotonic()
        line = error_line(words, url.replace("http://", "https://"))
    assert line.endswith(f" speaks plain HTTP, not TLS; use {url}")
    assert time.monotonic() - began < 5


@contextmanager
def plain_agent() -> Iterator[str]:
    """A server that answers complete requests, and waits for the rest of incomplete ones."""

    def serve(connection: socket.socket) -> None:
        read = b""
        with connection, suppress(OSError):
            while chunk := connection.recv(65_536):
                read += chunk
                if read.endswith(b"\r\n\r\n"):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def test_no_such_host() -> None:
    line = error_line(["task", "approve", "acme:T-1"], "http://nowhere.invalid:1")
    assert "the agent cannot be reached at http://nowhere.invalid:1 (ConnectError): " in line
    assert "start it" not in line


def test_a_ticket_may_be_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.submit.WAITS_SECONDS", (0.0,))
    file = tmp_path / "t.jsonl"
    file.write_text('{"tenant": "acme", "ticket_id": "T-1", "customer_id": "C-1", "text": "hello"}\n')
    with server(close_at_once) as url:
        line = error_line(["submit", str(file)], url)
    assert "outcome is unknown; send the ticket again: the same ticket is the same task" in line


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_an_unusable_proxy_does_not_affect_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert "the agent does not answer at" in error_line(["task", "list"], url)


@pytest.mark.parametrize(
    ("variable", "value"), [("ALL_PROXY", "socks5://127.0.0.1:9"), ("HTTP_PROXY", "nonsense://x"), ("NO_PROXY", "[bad")]
)
def test_an_unusable_proxy_to_another_machine_is_named(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    line = error_line(["task", "list"], "http://agent.example.org")
    assert "ALL_PROXY and NO_PROXY" in line or "the agent cannot be reached" in line or "does not answer" in line
