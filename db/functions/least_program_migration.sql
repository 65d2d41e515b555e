-- The oldest program that works with this schema, identified by the newest migration that it brings along. A program that
-- knows only older migrations refuses to start. A migration that removes what a release still uses replaces this function by
-- one that returns the newest migration of the next release.
CREATE OR REPLACE FUNCTION wvs.least_program_migration() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '20261129000300' $$;
