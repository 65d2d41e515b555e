-- The class of the advisory locks on idempotency keys; wvs/postgres/locks.py has it as COMMAND. Besides the
-- retired commit_command, no other text of SQL contains the number.
CREATE OR REPLACE FUNCTION wvs.command_lock() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 2004251394 $$;
