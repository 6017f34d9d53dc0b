"""Two workers with a sidecar each, as on a cluster: one app, one state store and one ledger, both on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.bench.sides import component
from tests.servers import PostgresServer, ensure_installed

LEDGER_URL = "REFUND_AGENT_LEDGER_URL"


@contextmanager
def on_postgres() -> Iterator[dict[str, Any]]:
    """What a `Stack` is to be made with; the server ends with it."""
    ensure_installed()
    with PostgresServer() as server:
        store = component("state.postgresql", "v2", connectionString=server.create_database("workflow"))
        server.create_database("ledger")
        ledger = {LEDGER_URL: server.url("ledger", "postgresql+psycopg")}
        yield {"pairs": 2, "overlay": store, "worker_env": ledger}
