"""Alembic's part of the app: it migrates over the connection that app.py has borrowed from the pool."""

from alembic import context
from ledger import PREFIX, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=f"{PREFIX}version",
)
with context.begin_transaction():
    context.run_migrations()
