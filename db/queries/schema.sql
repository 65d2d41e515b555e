-- name: least_program_migration
-- The oldest program that works with this schema, identified by the newest migration that it knows.
SELECT wvs.least_program_migration()
