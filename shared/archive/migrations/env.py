"""Entry point of Alembic: runs the migrations in the transaction of its caller, ``shared/archive/schema.py``."""

from alembic import context

from shared.archive.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
