"""Brings a database's tables up to date, one step after another; Alembic keeps which were taken.

A new step: change the tables, add a file to `versions/` (the test of migrations prints what it must do), raise HEAD.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from app.domain.errors import ConfigurationError

HEAD = "0002"
_VERSION = "alembic_version"
_LOCK = 5_121_477  # any number that is ours; PostgreSQL lets one process at a time pass


def upgrade(engine: Engine) -> None:
    """Takes the steps that the database lacks. Processes that start at once wait for each other. Raises
    ConfigurationError for a database that is not ours, or that a newer version has changed."""
    if _revision(engine) == HEAD:
        return
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _take_steps(connection)


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table(_VERSION):
            return None
        return connection.execute(text(f"SELECT version_num FROM {_VERSION}")).scalar()  # noqa: S608 - a constant


def _take_steps(connection: Connection) -> None:
    # Loaded when needed: most starts have nothing to change.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    if not inspect(connection).has_table(_VERSION) and inspect(connection).has_table("tickets"):
        raise ConfigurationError(
            "the ledger was made before its tables had versions; move it away (or `make clean-state`) and start again"
        )
    config = Config()
    # Options are ini text, in which a path's % would be a reference.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the ledger's tables are of another version: {error}; use the program that made them, or move the "
            "database away"
        ) from None
