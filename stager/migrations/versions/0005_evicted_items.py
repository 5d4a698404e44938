"""Items whose copies were evicted are found at once, for `stager status`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    evicted = sa.text("state = 'excluded' AND kind = 'evicted'")
    op.create_index("ix_items_evicted", "items", ["manifest_id"], sqlite_where=evicted, postgresql_where=evicted)
