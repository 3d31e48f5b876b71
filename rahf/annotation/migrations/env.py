"""Runs migrations on the connection that `rahf.annotation.database` passes."""

from alembic import context

from rahf.annotation.tables import METADATA

context.configure(
  connection=context.config.attributes['connection'], target_metadata=METADATA
)
context.run_migrations()
