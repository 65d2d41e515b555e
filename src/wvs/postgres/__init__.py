"""Everything that knows how to reach PostgreSQL: the embedded server, migrations, pools, the SQL texts."""
