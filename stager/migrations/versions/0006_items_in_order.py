"""What waits lies in the order in which it is claimed: PostgreSQL sorted all of a manifest for each batch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waiting = sa.text("state = 'waiting' AND NOT missing")
    op.drop_index("ix_items_waiting", "items")
    columns = ["manifest_id", "not_before", "id"]
    op.create_index("ix_items_waiting", "items", columns, sqlite_where=waiting, postgresql_where=waiting)
