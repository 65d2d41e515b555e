-- The class of the advisory locks that show the holder of a lane to be alive; wvs/postgres/locks.py has it as HOLDER. No
-- other text of SQL contains the number.
CREATE OR REPLACE FUNCTION wvs.holder_lock() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 2004251395 $$;
