"""Accounts, entries and their lines."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

PREFIX = "threadpool_ledger_"


def upgrade() -> None:
    op.create_table(
        f"{PREFIX}accounts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.CheckConstraint("balance >= 0", name=f"{PREFIX}accounts_not_overdrawn"),
    )
    op.create_table(
        f"{PREFIX}entries",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("made", sa.DateTime, server_default=sa.func.current_timestamp(), nullable=False),
    )
    op.create_table(
        f"{PREFIX}lines",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("entry_id", sa.Integer, sa.ForeignKey(f"{PREFIX}entries.id"), nullable=False),
        sa.Column("account_id", sa.Integer, sa.ForeignKey(f"{PREFIX}accounts.id"), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("lines", "entries", "accounts"):
        op.drop_table(PREFIX + table)
