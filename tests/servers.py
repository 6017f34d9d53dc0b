"""Throw-away PostgreSQL, PgBouncer and Redis for tests and benchmarks: loopback only, a free port, a temporary folder.

    ensure_installed()
    with PostgresServer() as postgres:
        psycopg.connect(postgres.url("postgres"))

Each server has a random password and temporary data, and ends with the process that started it. PostgreSQL's fsync
stays on; Redis appends to a log that is synchronised every second.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from runtime import processes
from runtime.errors import UserError
from runtime.loopback import HOST, free_ports
from tests.debian import (
    POSTGRES_PROGRAMS,
    REDIS_PROGRAM,
    ensure_installed,
    find_pgbouncer,
    find_postgres,
    find_redis,
    give_away,
    lowered,
)

__all__ = ["USER", "PgBouncer", "PostgresServer", "RedisServer", "ensure_installed"]

USER = "bench"
READY_SECONDS = 60.0
_STOP_SECONDS = 15.0


class _Server:
    """A server's folder, port, password and child process."""

    name = "server"
    stop_signal = signal.SIGTERM
    discard_signal = signal.SIGTERM  # if its data is deleted afterwards

    def __init__(self) -> None:
        """Prepares the folder, without starting the server."""
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        give_away(self.folder, self.data)
        (self.port,) = free_ports(1)
        self.password = secrets.token_hex(16)
        self._child: processes.Child | None = None

    @property
    def pid(self) -> int:
        """The server's process id. Raises UserError before `start`."""
        if self._child is None:
            raise UserError(f"{self.name} was not started.", remedy="Call start(), or use it in a with statement.")
        return self._child.pid

    def start(self) -> None:
        """Starts the server and waits until it answers; after `stop` or `kill`, on the same port and data."""
        log = self.folder / f"{self.name}.log"
        command = [*lowered(tether=self.stop_signal), *self._command()]
        self._child = processes.start(self.name, command, log=log, folder=self.folder)
        processes.wait_until(self._answers, what=self.name, deadline_seconds=READY_SECONDS, children=[self._child])

    def stop(self) -> None:
        """Stops the server gracefully; its data stays until `remove`."""
        self._end(self.stop_signal)

    def _end(self, number: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(_STOP_SECONDS)
        processes.stop(child)

    def kill(self) -> None:
        """Kills the server, as in a crash."""
        child, self._child = self._child, None
        if child is not None:
            processes.kill(child)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stops all processes of the server (SIGSTOP); the kernel keeps accepting connections for it."""
        os.kill(self.pid, signal.SIGSTOP)  # first, so that it starts no new processes
        pids = [self.pid, *processes.descendants(self.pid)]
        _signal_each(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal_each(pids, signal.SIGCONT)

    def remove(self) -> None:
        """Stops the server and deletes its folder."""
        try:
            self._end(self.discard_signal)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Starts the server."""
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the server and deletes its data."""
        self.remove()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class PostgresServer(_Server):
    """One PostgreSQL cluster."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients
    discard_signal = signal.SIGQUIT  # "immediate": writes nothing more but, unlike SIGKILL, removes its shared memory

    def __init__(self) -> None:
        """Creates the cluster (1 to 2 s) without starting it. Raises UserError if PostgreSQL is not installed."""
        self.programs = find_postgres()
        super().__init__()
        try:
            self._make_cluster()
        except BaseException:
            self.remove()
            raise

    def url(self, database: str, driver: str = "postgresql") -> str:
        """The URL of a database, for libpq, pgx or, with driver `postgresql+psycopg`, SQLAlchemy."""
        return f"{driver}://{USER}:{self.password}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Creates a database and returns its URL."""
        self.run_sql(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def run_sql(self, sql: str, database: str = "postgres") -> str:
        """Runs one statement; returns its rows as lines of text. Raises UserError with the server's message."""
        command = [str(self.programs / "psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]
        return _run([*command, "-h", HOST, "-p", str(self.port), "-U", USER, database], PGPASSWORD=self.password)

    def version(self) -> str:
        """The server's version, such as 15.18."""
        return self.run_sql("SHOW server_version").split()[0]

    def _make_cluster(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        give_away(password_file)
        authentication = ["--auth=scram-sha-256", f"--pwfile={password_file}"]
        options = [*authentication, "--no-instructions", "--no-sync", "--encoding=UTF8"]
        command = [str(self.programs / "initdb"), f"--pgdata={self.data}", f"--username={USER}", "--locale=C"]
        _run([*lowered(), *command, *options])
        password_file.unlink()

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "300",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), *options]

    def _answers(self) -> bool:
        return self.is_ready(self.port)

    def is_ready(self, port: int) -> bool:
        """Whether a server at the port accepts PostgreSQL's clients."""
        check = [str(self.programs / "pg_isready"), "-q", "-h", HOST, "-p", str(port)]
        try:
            return subprocess.run(check, check=False, timeout=10).returncode == 0
        except subprocess.TimeoutExpired:
            return False


class PgBouncer(_Server):
    """A connection pooler in transaction mode before a PostgreSQL server: each transaction may use another of its few
    connections."""

    name = "pgbouncer"
    stop_signal = signal.SIGINT

    def __init__(self, postgres: PostgresServer, connections: int = 2) -> None:
        """Raises UserError if PgBouncer is not installed."""
        self.program = find_pgbouncer()
        self.postgres = postgres
        super().__init__()
        users, settings = self.folder / "users.txt", self.folder / "pgbouncer.ini"
        users.write_text(f'"{USER}" "{postgres.password}"\n')
        settings.write_text(
            f"[databases]\n* = host={HOST} port={postgres.port}\n[pgbouncer]\nlisten_addr = {HOST}\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = transaction\ndefault_pool_size = {connections}\nserver_round_robin = 1\n"
        )
        for file in (users, settings):
            file.chmod(0o600)
        give_away(users, settings)

    def url(self, database: str, driver: str = "postgresql") -> str:
        """The URL of a database behind the pooler."""
        return self.postgres.url(database, driver).replace(f":{self.postgres.port}/", f":{self.port}/")

    def _command(self) -> list[str]:
        return [str(self.program), str(self.folder / "pgbouncer.ini")]

    def _answers(self) -> bool:
        return self.postgres.is_ready(self.port)


class RedisServer(_Server):
    """One Redis server. `fsync` says when its log is written to disk: always, everysec or no."""

    name = "redis"

    def __init__(self, fsync: str = "everysec") -> None:
        """Raises UserError if Redis is not installed."""
        self.program = find_redis()
        self.fsync = fsync
        super().__init__()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    def ask(self, *words: str) -> str:
        """Sends one command and returns the first line of its answer. Raises UserError if Redis refuses it."""
        with socket.create_connection((HOST, self.port), timeout=30) as connection:
            connection.sendall(_encode("AUTH", self.password) + _encode(*words))
            with connection.makefile("rb") as answers:
                lines = [answers.readline().decode().strip() for _ in range(2)]
                bulk = answers.readline().decode().strip() if lines[1].startswith("$") else ""
        if lines[1].startswith("-"):
            raise UserError(f"redis refuses {words[0]}: {lines[1]}.")
        return bulk or lines[1]

    def version(self) -> str:
        """The server's version, such as 7.0.15."""
        done = _run([str(self.program), "--version"])
        return next(word.removeprefix("v=") for word in done.split() if word.startswith("v="))

    def _command(self) -> list[str]:
        return [
            *(str(self.program), "--bind", HOST, "--port", str(self.port), "--dir", str(self.data)),
            *("--appendonly", "yes", "--appendfsync", self.fsync, "--save", ""),
            *("--requirepass", self.password, "--daemonize", "no"),
        ]

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except (OSError, UserError):  # refused while it loads its log
            return False


def _encode(*words: str) -> bytes:
    """A command in Redis's protocol."""
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def _run(command: Sequence[str], **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env={**os.environ, **environment}, timeout=60
    )
    if done.returncode:
        program = next(Path(word).name for word in command if Path(word).name in (*POSTGRES_PROGRAMS, REDIS_PROGRAM))
        raise UserError(f"{program} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _signal_each(pids: Iterable[int], number: int) -> None:
    """Sends the signal to all processes that still exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
