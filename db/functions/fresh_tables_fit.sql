-- Whether the fresh tables in schema wvs_fresh have the columns of the read models, which a migration may have changed.
CREATE OR REPLACE FUNCTION wvs.fresh_tables_fit() RETURNS boolean LANGUAGE sql STABLE AS $$
    WITH columns AS (
        SELECT c.relnamespace::regnamespace::text AS schema, c.relname, a.attname, a.atttypid, a.attnotnull
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname IN ('wvs', 'wvs_fresh'))
          AND c.relname = ANY (wvs.read_models()) AND a.attnum > 0 AND NOT a.attisdropped
    )
    SELECT NOT EXISTS (
        SELECT FROM columns GROUP BY relname, attname, atttypid, attnotnull HAVING count(*) <> 2)
$$;
