"""What was found in files, how pieces were made, and what a trigger's group held."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "findings",
        sa.Column("id", BIG, nullable=False),
        sa.Column("item_id", BIG, nullable=False),
        sa.Column("manifest_id", BIG, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("hdus", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("found_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_findings_item_id", "findings", ["item_id"])
    serious = sa.text("severity <> 'note'")
    op.create_index(
        "ix_findings_serious",
        "findings",
        ["manifest_id", "severity"],
        sqlite_where=serious,
        postgresql_where=serious,
    )
    op.create_table(
        "makings",
        sa.Column("item_id", BIG, autoincrement=False, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("camera", sa.String(), nullable=False),
        sa.Column("camera_digest", sa.String(), nullable=False),
        sa.Column("readout", sa.String(), nullable=False),
        sa.Column("crpix", sa.String(), nullable=False),
        sa.Column("shift", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"]),
        sa.PrimaryKeyConstraint("item_id"),
    )
    op.add_column("triggers", sa.Column("content", sa.String(), nullable=True))
    # What the version before had found in headers; of a chop's pieces it is told of the item.
    op.execute("""
        INSERT INTO findings (item_id, manifest_id, host, path, code, severity, hdus, text, found_at)
        SELECT i.id, i.manifest_id, g.host, g.path, 'header', 'warn', '[]', g.problem, g.registered_at
        FROM images g JOIN copies c ON c.host = g.host AND c.path = g.path
        JOIN items i ON i.id = c.piece_of WHERE g.problem IS NOT NULL
        UNION ALL
        SELECT i.id, i.manifest_id, g.host, g.path, 'header', 'warn', '[]', g.problem, g.registered_at
        FROM images g JOIN manifests m ON m.destination_host = g.host
        JOIN items i ON i.manifest_id = m.id AND i.destination = g.path WHERE g.problem IS NOT NULL""")
    op.drop_column("images", "problem")
