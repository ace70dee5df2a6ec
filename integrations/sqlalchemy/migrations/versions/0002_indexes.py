"""Find an entry's lines, and an account's, without reading all of them."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLE = "threadpool_ledger_lines"


def upgrade() -> None:
    for column in ("entry_id", "account_id"):
        op.create_index(f"ix_{TABLE}_{column}", TABLE, [column])


def downgrade() -> None:
    """Nothing: the indexes go with their table, and MySQL keeps an index that a foreign key needs."""
