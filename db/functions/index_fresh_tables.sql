-- Gives the fresh tables every index of the read models, under the same names, and statistics. Indexes that exist already
-- are kept.
CREATE OR REPLACE FUNCTION wvs.index_fresh_tables(p_schema text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_index record;
BEGIN
    FOR v_index IN
        SELECT i.relname, pg_get_indexdef(i.oid) AS definition, t.relname AS table_name
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
        WHERE t.relnamespace = 'wvs'::regnamespace AND t.relname = ANY (wvs.read_models()) AND NOT x.indisprimary
        ORDER BY t.relname, i.relname
    LOOP
        IF to_regclass(format('%I.%I', p_schema, v_index.relname)) IS NULL THEN
            EXECUTE replace(v_index.definition, ' ON wvs.', format(' ON %I.', p_schema));
        END IF;
    END LOOP;
    FOR v_index IN SELECT unnest(wvs.read_models()) AS relname LOOP
        EXECUTE format('ANALYZE %I.%I', p_schema, v_index.relname);
    END LOOP;
END $$;
