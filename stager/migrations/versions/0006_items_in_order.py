"""What waits lies in the order in which it is claimed and packed: PostgreSQL sorted a whole manifest for each batch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    again("ix_items_waiting", ["manifest_id", "not_before", "id"], "state = 'waiting' AND NOT missing")
    unbundled = "bundle_key IS NOT NULL AND state NOT IN ('done', 'excluded')"
    again("ix_items_bundled", ["manifest_id", "bundle_key", "id"], unbundled)


def again(name: str, columns: list[str], where: str) -> None:
    """Make an index of items anew, of these columns."""
    op.drop_index(name, "items")
    op.create_index(name, "items", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
