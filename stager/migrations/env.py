"""Alembic's way in: runs the revisions on the connection that `database.migrate` hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from stager import models  # noqa: F401  the tables register themselves on import

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
