-- The id in the high 16 bits of the keys of the log's watermark; wvs/postgres/locks.py has it as WATERMARK. No other text of
-- SQL contains the number.
CREATE OR REPLACE FUNCTION wvs.watermark_lock() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT 30582::bigint $$;
