"""Access to PostgreSQL: the embedded server, migrations, connection pools and the SQL texts."""
