"""The throw-away servers: they answer, they keep what was written through a crash, and nothing of them stays."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runtime import processes
from runtime.errors import UserError
from runtime.loopback import HOST
from tests import debian
from tests.servers import PostgresServer, RedisServer, ensure_installed


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for this file."""
    ensure_installed()
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A Redis server for this file."""
    ensure_installed()
    with RedisServer() as server:
        yield server


def test_postgres_gives_databases_that_do_not_share_tables(postgres: PostgresServer) -> None:
    first, second = postgres.create_database("first"), postgres.create_database("second")
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    with psycopg.connect(second) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM notes")


def test_postgres_is_one_that_a_benchmark_may_use(postgres: PostgresServer) -> None:
    settings = {name: postgres.run_sql(f"SHOW {name}").strip() for name in ("fsync", "synchronous_commit")}
    assert settings == {"fsync": "on", "synchronous_commit": "on"}
    assert int(postgres.version().split(".")[0]) >= 14


def test_postgres_wants_the_password(postgres: PostgresServer) -> None:
    wrong = postgres.url("postgres").replace(postgres.password, "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_postgres_says_what_is_wrong_with_a_statement(postgres: PostgresServer) -> None:
    with pytest.raises(UserError, match='psql failed: ERROR:  relation "nowhere" does not exist'):
        postgres.run_sql("SELECT * FROM nowhere")


def test_postgres_keeps_committed_rows_through_a_kill() -> None:
    ensure_installed()
    with PostgresServer() as server:
        server.run_sql("CREATE TABLE notes (text TEXT)")
        server.run_sql("INSERT INTO notes VALUES ('kept')")
        server.kill()
        server.start()
        assert server.run_sql("SELECT text FROM notes").strip() == "kept"


def test_redis_answers_and_wants_the_password(redis: RedisServer) -> None:
    assert redis.ask("SET", "key", "value") == "+OK"
    assert redis.ask("GET", "key") == "value"
    with socket.create_connection((HOST, redis.port)) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100).startswith(b"-NOAUTH")


def test_redis_says_what_is_wrong_with_a_command(redis: RedisServer) -> None:
    with pytest.raises(UserError, match="redis refuses NONSENSE: -ERR unknown command"):
        redis.ask("NONSENSE")


def test_redis_keeps_what_was_synchronised_through_a_kill() -> None:
    ensure_installed()
    with RedisServer(fsync="always") as server:
        server.ask("SET", "key", "kept")
        server.kill()
        server.start()
        assert server.ask("GET", "key") == "kept"


@pytest.mark.parametrize("server_type", [PostgresServer, RedisServer])
def test_nothing_stays_behind(server_type: type[PostgresServer] | type[RedisServer]) -> None:
    ensure_installed()
    with server_type() as server:
        leader, folder = server.pid, server.folder
        assert processes.process_tree(leader, "no mark") >= {leader}
    assert processes.process_tree(leader, "no mark") == set()
    assert not folder.exists()


@pytest.mark.parametrize("server_type", [PostgresServer, RedisServer])
def test_a_server_listens_on_loopback_alone_and_not_as_root(
    server_type: type[PostgresServer] | type[RedisServer],
) -> None:
    ensure_installed()
    with server_type() as server:
        assert {address for address, port in _listening() if port == server.port} == {HOST}
        assert os.stat(f"/proc/{server.pid}").st_uid != 0


def test_what_cannot_be_installed_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "missing", lambda *_: ["redis"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match=r"Not installed: redis\. .*apt-get install redis-server"):
        ensure_installed()


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 0\n"])
def test_the_policy_against_services_lasts_as_long_as_the_installation(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    if before is not None:
        policy.write_text(before)
    seen: list[str] = []
    absent = iter([["redis"], []])
    monkeypatch.setattr(debian, "_POLICY", policy)
    monkeypatch.setattr(debian, "missing", lambda *_: next(absent))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(debian, "_apt_get", lambda *_: seen.append(_executable(policy)))
    ensure_installed()
    assert all("exit 101" in text for text in seen)
    assert len(seen) == 2
    assert (policy.read_text() if policy.exists() else None) == before


def _executable(path: Path) -> str:
    assert path.stat().st_mode & stat.S_IXUSR
    return path.read_text()


def _listening() -> list[tuple[str, int]]:
    """Addresses and ports that something listens on, from the kernel's table."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    found = [row[1].split(":") for row in rows if row[3] == "0A"]
    return [(_address(address), int(port, 16)) for address, port in found]


def _address(digits: str) -> str:
    return socket.inet_ntoa(bytes.fromhex(digits)[::-1]) if len(digits) == 8 else f"IPv6 {digits}"
