-- migrate:up

-- The read models in the order in which a command writes them.
CREATE FUNCTION wvs.read_models() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['workspaces', 'snapshots', 'snapshot_labels', 'tasks', 'trees']
$$;

-- Makes empty tables like the read models in schema `p_schema` (which exists, or is pg_temp), with their primary keys but
-- no other index, and an `apply_changes` of that schema that writes there.
CREATE FUNCTION wvs.make_fresh_tables(p_schema text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_table text;
    v_options text[];
    v_key record;
BEGIN
    FOREACH v_table IN ARRAY wvs.read_models() LOOP
        EXECUTE format('CREATE TABLE %I.%I (LIKE wvs.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                       p_schema, v_table, v_table);
        SELECT c.reloptions INTO v_options FROM pg_class c WHERE c.oid = format('wvs.%I', v_table)::regclass;
        IF v_options IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %I.%I SET (%s)', p_schema, v_table, array_to_string(v_options, ', '));
        END IF;
        SELECT k.conname, pg_get_constraintdef(k.oid) AS definition INTO STRICT v_key FROM pg_constraint k
        WHERE k.conrelid = format('wvs.%I', v_table)::regclass AND k.contype = 'p';
        EXECUTE format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s', p_schema, v_table, v_key.conname, v_key.definition);
    END LOOP;
    EXECUTE replace(pg_get_functiondef('wvs.apply_changes'::regproc), 'wvs.', quote_ident(p_schema) || '.');
END $$;

-- Gives the fresh tables every index that the read models have, under the same names, and statistics. Does nothing
-- where the indexes are there already.
CREATE FUNCTION wvs.index_fresh_tables(p_schema text) RETURNS void LANGUAGE plpgsql AS $$
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

-- Begins a rebuild in schema wvs_fresh, or goes on with the one that was broken off there, and tells the position that
-- it has come to. Rows that other code made (another fingerprint) or of another log (another epoch) are thrown away.
CREATE FUNCTION wvs.begin_rebuild(p_fingerprint text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_position bigint;
BEGIN
    DROP SCHEMA IF EXISTS wvs_retired CASCADE;
    IF to_regclass('wvs_fresh.progress') IS NOT NULL THEN
        SELECT p.position INTO v_position FROM wvs_fresh.progress p JOIN wvs.log_identity i ON i.epoch = p.epoch
        WHERE p.fingerprint = p_fingerprint;
        IF FOUND THEN
            RETURN v_position;
        END IF;
    END IF;
    DROP SCHEMA IF EXISTS wvs_fresh CASCADE;
    CREATE SCHEMA wvs_fresh;
    PERFORM wvs.make_fresh_tables('wvs_fresh');
    CREATE TABLE wvs_fresh.progress (position bigint NOT NULL, epoch integer NOT NULL, fingerprint text NOT NULL);
    INSERT INTO wvs_fresh.progress SELECT 0, i.epoch, p_fingerprint FROM wvs.log_identity i;
    RETURN 0;
END $$;

-- Puts the fresh tables in the place of the read models, which go to schema wvs_retired. The caller's transaction holds
-- wvs.streams IN EXCLUSIVE MODE, so that no command is under way, and has applied every event. What still uses the old
-- tables by a cached plan is planned again, as after any change of a table.
CREATE FUNCTION wvs.finish_rebuild() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY wvs.read_models() LOOP
        EXECUTE format('LOCK TABLE wvs.%I IN ACCESS EXCLUSIVE MODE', v_table);
    END LOOP;
    CREATE SCHEMA wvs_retired;
    FOREACH v_table IN ARRAY wvs.read_models() LOOP
        EXECUTE format('ALTER TABLE wvs.%I SET SCHEMA wvs_retired', v_table);
        EXECUTE format('ALTER TABLE wvs_fresh.%I SET SCHEMA wvs', v_table);
    END LOOP;
    DROP SCHEMA wvs_fresh CASCADE;
END $$;

-- migrate:down
DROP FUNCTION wvs.finish_rebuild, wvs.begin_rebuild, wvs.index_fresh_tables, wvs.make_fresh_tables, wvs.read_models;
