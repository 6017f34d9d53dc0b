"""Migrates a database's tables to the current version with Alembic.

To change the tables: edit `tables.py`, add a file to `versions/` (the test of migrations prints what it must do), and
raise HEAD.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from app.domain.errors import ConfigurationError

HEAD = "0002"
_VERSION = "alembic_version"
_LOCK = 5_121_477  # an arbitrary number for PostgreSQL's advisory lock, the same in all our processes


def upgrade(engine: Engine) -> None:
    """Runs the migrations that the database lacks. Processes that start at the same time wait for each other. Raises
    ConfigurationError for a database that is not ours, or that was changed by a newer version."""
    if _revision(engine) == HEAD:
        return
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _migrate(connection)


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table(_VERSION):
            return None
        return connection.execute(text(f"SELECT version_num FROM {_VERSION}")).scalar()  # noqa: S608 - a constant


def _migrate(connection: Connection) -> None:
    # Loaded only when needed, since most starts have nothing to migrate.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    if not inspect(connection).has_table(_VERSION) and inspect(connection).has_table("tickets"):
        raise ConfigurationError(
            "the ledger's tables have no version number; move the ledger away (or `make clean-state`) and start again"
        )
    config = Config()
    # Alembic's options are ini values, in which % starts a reference.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the ledger's tables have another version: {error}; use the version of the program that made them, or "
            "move the database away"
        ) from None
