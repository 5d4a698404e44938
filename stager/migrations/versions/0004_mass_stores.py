"""Bundles on mass stores, recalls from tape, room that is promised, and copies that were evicted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _bundles()
    _recalls()
    _room()


def _bundles() -> None:
    op.create_table(
        "bundles",
        sa.Column("id", BIG, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("manifest_id", BIG, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("proof", sa.String(), nullable=True),
        sa.Column("made_at", sa.Float(), nullable=True),
        sa.Column("proven_at", sa.Float(), nullable=True),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host", "path"),
    )
    _partial("ix_bundles_packing", "bundles", ["manifest_id"], "state = 'packing'")
    number = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    op.execute(f"ALTER TABLE copies ADD COLUMN bundle_id {number} REFERENCES bundles (id)")
    op.add_column("copies", sa.Column("data_offset", sa.BigInteger(), nullable=True))
    _partial("ix_copies_bundle_id", "copies", ["bundle_id"], "bundle_id IS NOT NULL")
    members = sa.text("bundle_id IS NOT NULL")
    op.create_index(
        "ix_copies_members",
        "copies",
        ["host", "path"],
        sqlite_where=members,
        postgresql_where=members,
        postgresql_ops={"path": "text_pattern_ops"},
    )
    op.add_column("items", sa.Column("bundle_key", sa.String(), nullable=True))
    op.add_column("items", sa.Column("bundle_id", BIG, nullable=True))
    unbundled = "bundle_key IS NOT NULL AND state NOT IN ('done', 'excluded')"
    _partial("ix_items_bundled", "items", ["manifest_id", "bundle_key"], unbundled)
    _partial("ix_items_packing", "items", ["bundle_id"], "bundle_id IS NOT NULL")


def _recalls() -> None:
    op.create_table(
        "recalls",
        sa.Column("id", BIG, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("volume", sa.String(), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("wanted_at", sa.Float(), nullable=True),
        sa.Column("asked_at", sa.Float(), nullable=True),
        sa.Column("not_before", sa.Float(), nullable=True),
        sa.Column("online_at", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("host", "path"),
    )
    op.create_index("ix_recalls_state", "recalls", ["host", "state"])
    op.add_column("items", sa.Column("recall_id", BIG, nullable=True))
    _partial("ix_items_recalled", "items", ["recall_id"], "recall_id IS NOT NULL")


def _room() -> None:
    op.add_column("hosts", sa.Column("no_room", sa.String(), nullable=True))
    op.add_column("hosts", sa.Column("no_room_at", sa.Float(), nullable=True))
    op.create_table(
        "reservations",
        sa.Column("id", BIG, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_reservations_host", "reservations", ["host"])
    op.create_table(
        "evictions",
        sa.Column("id", BIG, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("quarantine", sa.String(), nullable=False),
        sa.Column("others", sa.String(), nullable=False),
        sa.Column("kept", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("evicted_at", sa.Float(), nullable=True),
        sa.Column("purge_after", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_evictions_place", "evictions", ["host", "path"])
    op.create_index("ix_copies_digest", "copies", ["digest"])
    _partial("ix_evictions_quarantined", "evictions", ["host", "purge_after"], "state = 'quarantined'")


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
