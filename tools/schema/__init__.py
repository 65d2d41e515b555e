"""The database as text: `db/schema.sql` and `db/functions/*.sql`, written from a migrated database, and new migrations."""
