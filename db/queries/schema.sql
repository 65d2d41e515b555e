-- name: least_program_migration
-- The oldest program that works on this schema, named by the newest migration that it knows.
SELECT wvs.least_program_migration()
