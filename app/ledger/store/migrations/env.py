"""What Alembic runs: the steps, on the connection that it was handed."""

from alembic import context

from app.ledger.store import tables
from app.ledger.store import tables as record_tables
from app.ledger.store.tables import METADATA

assert record_tables.TASKS.metadata is tables.TICKETS.metadata is METADATA  # noqa: S101 - all tables are in it

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
