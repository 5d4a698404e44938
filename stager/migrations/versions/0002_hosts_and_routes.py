"""What breakers know of hosts, and what routes do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("reached", sa.String(), nullable=True),
        sa.Column("trouble_kind", sa.String(), nullable=True),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.Column("trouble_since", sa.Float(), nullable=True),
        sa.Column("next_look", sa.Float(), nullable=True),
        sa.Column("looks", sa.Integer(), server_default="0", nullable=False),
    ):
        op.add_column("hosts", column)
    op.create_table(
        "routes",
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("streams", sa.Integer(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("rate_bytes_per_s", sa.Float(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Boolean(), nullable=False),
        sa.Column("bytes_per_s", sa.BigInteger(), nullable=True),
        sa.Column("hours", sa.String(), nullable=True),
        sa.Column("at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("source", "destination"),
    )
    broken = sa.text("outcome = 'failed' AND phase IN ('connect', 'channel', 'run')")
    op.create_index("ix_attempts_broken", "attempts", ["ended_at"], sqlite_where=broken, postgresql_where=broken)
