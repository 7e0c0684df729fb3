"""PostgreSQL: the embedded server, migrations, connections."""

from negatoscope.db.embedded import EmbeddedPostgreSQL, EmbeddedPostgreSQLError, die_with_parent
from negatoscope.db.migrate import migrate
from negatoscope.db.pool import Database

__all__ = ["Database", "EmbeddedPostgreSQL", "EmbeddedPostgreSQLError", "die_with_parent", "migrate"]
