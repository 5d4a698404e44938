"""First tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from stager.migrations import tallies

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "facts",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "hosts",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("root", sa.String(), nullable=True),
        sa.Column("marker", sa.String(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("changed_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "images",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("camera", sa.String(), nullable=False),
        sa.Column("layout", sa.String(), nullable=False),
        sa.Column("visit", sa.BigInteger(), nullable=True),
        sa.Column("ids", sa.String(), nullable=False),
        sa.Column("mjd", sa.Float(), nullable=True),
        sa.Column("scale", sa.String(), nullable=True),
        sa.Column("exptime", sa.Float(), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("registered_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host", "path"),
    )
    op.create_index("ix_images_dataset", "images", ["dataset", "visit"], unique=False)
    op.create_table(
        "manifests",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("lead", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("source_host", sa.String(), nullable=False),
        sa.Column("destination_host", sa.String(), nullable=False),
        sa.Column("document", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("intent", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("submitted_at", sa.Float(), nullable=True),
        sa.Column("planned_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", "revision"),
    )
    op.create_index("ix_manifests_intent", "manifests", ["intent"], unique=False)
    op.create_table(
        "spooled",
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("read_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("path"),
    )
    op.create_table(
        "tallies",
        sa.Column(
            "manifest_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("unknown", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("manifest_id", "state"),
    )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("seen_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("manifest_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("ids", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"],
            ["manifests.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("manifest_id", "label"),
    )
    op.create_table(
        "items",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("manifest_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("destination", sa.String(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("ids", sa.String(), nullable=True),
        sa.Column("group_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("missing", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("claimed_until", sa.Float(), nullable=True),
        sa.Column("not_before", sa.Float(), nullable=True),
        sa.Column("progressed_at", sa.Float(), nullable=True),
        sa.Column("carried_from", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["groups.id"],
        ),
        sa.ForeignKeyConstraint(
            ["manifest_id"],
            ["manifests.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("manifest_id", "destination"),
    )
    op.create_index(
        "ix_items_carried",
        "items",
        ["carried_from"],
        unique=False,
        sqlite_where=sa.text("carried_from IS NOT NULL"),
        postgresql_where=sa.text("carried_from IS NOT NULL"),
    )
    op.create_index(
        "ix_items_group",
        "items",
        ["group_id"],
        unique=False,
        sqlite_where=sa.text("group_id IS NOT NULL"),
        postgresql_where=sa.text("group_id IS NOT NULL"),
    )
    op.create_index(
        "ix_items_open",
        "items",
        ["group_id"],
        unique=False,
        sqlite_where=sa.text("state NOT IN ('done', 'excluded') AND group_id IS NOT NULL"),
        postgresql_where=sa.text("state NOT IN ('done', 'excluded') AND group_id IS NOT NULL"),
    )
    op.create_index(
        "ix_items_running",
        "items",
        ["claimed_until"],
        unique=False,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_items_troubled",
        "items",
        ["manifest_id", "progressed_at"],
        unique=False,
        sqlite_where=sa.text("reason IS NOT NULL AND state IN ('waiting', 'held')"),
        postgresql_where=sa.text("reason IS NOT NULL AND state IN ('waiting', 'held')"),
    )
    op.create_index(
        "ix_items_waiting",
        "items",
        ["manifest_id", "not_before"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting' AND NOT missing"),
        postgresql_where=sa.text("state = 'waiting' AND NOT missing"),
    )
    op.create_table(
        "triggers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("manifest_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("group_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("group_label", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("data", sa.String(), nullable=False),
        sa.Column("inventory", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=True),
        sa.Column("ready_at", sa.Float(), nullable=True),
        sa.Column("claimed_by", sa.String(), nullable=True),
        sa.Column("claimed_until", sa.Float(), nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["groups.id"],
        ),
        sa.ForeignKeyConstraint(
            ["manifest_id"],
            ["manifests.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("dataset", "revision", "group_label", "queue"),
    )
    op.create_index("ix_triggers_queue", "triggers", ["queue", "state", "created_at"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("item_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("manifest_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=True),
        sa.Column("side", sa.String(), nullable=True),
        sa.Column("phase", sa.String(), nullable=True),
        sa.Column("host", sa.String(), nullable=True),
        sa.Column("path", sa.String(), nullable=True),
        sa.Column("errno", sa.Integer(), nullable=True),
        sa.Column("text", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["item_id"],
            ["items.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_attempts_ended", "attempts", ["manifest_id", "ended_at"], unique=False)
    op.create_index(op.f("ix_attempts_item_id"), "attempts", ["item_id"], unique=False)
    op.create_table(
        "copies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("proof", sa.String(), nullable=False),
        sa.Column("proven_at", sa.Float(), nullable=True),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.Column("piece_of", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.ForeignKeyConstraint(
            ["piece_of"],
            ["items.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host", "path"),
    )
    op.create_index(
        "ix_copies_piece_of",
        "copies",
        ["piece_of"],
        unique=False,
        sqlite_where=sa.text("piece_of IS NOT NULL"),
        postgresql_where=sa.text("piece_of IS NOT NULL"),
    )
    op.create_index(
        "ix_attempts_lost",
        "attempts",
        ["ended_at"],
        unique=False,
        sqlite_where=sa.text("outcome = 'lost'"),
        postgresql_where=sa.text("outcome = 'lost'"),
    )
    op.create_index(
        "ix_items_lost",
        "items",
        ["kind"],
        unique=False,
        sqlite_where=sa.text("kind = 'lost'"),
        postgresql_where=sa.text("kind = 'lost'"),
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in tallies.SQLITE if on_sqlite else tallies.POSTGRESQL:
        op.get_bind().exec_driver_sql(statement)
