-- The oldest program that works on this schema, named by the newest migration that it brings along. A program that knows
-- only older migrations refuses to start here. A migration that takes away what a release still uses replaces this function
-- by one that names the newest migration of the release after that.
CREATE OR REPLACE FUNCTION wvs.least_program_migration() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '20261129000100' $$;
