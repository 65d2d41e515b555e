-- Replaces the read models by the fresh tables; the old ones go to schema wvs_retired. The caller's transaction has locked
-- wvs.streams IN EXCLUSIVE MODE, so that no command is running, and has applied every event. PostgreSQL replans cached plans
-- on the old tables, as after any change of a table. Raises WV002 if a migration has changed the read models since the
-- rebuild began.
CREATE OR REPLACE FUNCTION wvs.finish_rebuild() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY wvs.read_models() LOOP
        EXECUTE format('LOCK TABLE wvs.%I IN ACCESS EXCLUSIVE MODE', v_table);
    END LOOP;
    IF NOT wvs.fresh_tables_fit() THEN
        RAISE EXCEPTION 'the read models were changed during the rebuild' USING ERRCODE = 'WV002';
    END IF;
    CREATE SCHEMA wvs_retired;
    FOREACH v_table IN ARRAY wvs.read_models() LOOP
        EXECUTE format('ALTER TABLE wvs.%I SET SCHEMA wvs_retired', v_table);
        EXECUTE format('ALTER TABLE wvs_fresh.%I SET SCHEMA wvs', v_table);
    END LOOP;
    DROP SCHEMA wvs_fresh CASCADE;
END $$;
