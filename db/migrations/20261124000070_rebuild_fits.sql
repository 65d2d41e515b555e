-- migrate:up

-- Whether the fresh tables of schema wvs_fresh have the columns of the read models: a migration may have come between.
CREATE FUNCTION wvs.fresh_tables_fit() RETURNS boolean LANGUAGE sql STABLE AS $$
    WITH columns AS (
        SELECT c.relnamespace::regnamespace::text AS schema, c.relname, a.attname, a.atttypid, a.attnotnull
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname IN ('wvs', 'wvs_fresh'))
          AND c.relname = ANY (wvs.read_models()) AND a.attnum > 0 AND NOT a.attisdropped
    )
    SELECT NOT EXISTS (
        SELECT FROM columns GROUP BY relname, attname, atttypid, attnotnull HAVING count(*) <> 2)
$$;

-- As before, and rows for tables that were changed since are thrown away, too.
CREATE OR REPLACE FUNCTION wvs.begin_rebuild(p_fingerprint text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_position bigint;
BEGIN
    DROP SCHEMA IF EXISTS wvs_retired CASCADE;
    IF to_regclass('wvs_fresh.progress') IS NOT NULL THEN
        SELECT p.position INTO v_position FROM wvs_fresh.progress p JOIN wvs.log_identity i ON i.epoch = p.epoch
        WHERE p.fingerprint = p_fingerprint;
        IF FOUND AND wvs.fresh_tables_fit() THEN
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

-- As before, and refused (WV002) for tables that were changed since they were begun.
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

-- migrate:down
CREATE OR REPLACE FUNCTION wvs.begin_rebuild(p_fingerprint text) RETURNS bigint LANGUAGE plpgsql AS $$
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

CREATE OR REPLACE FUNCTION wvs.finish_rebuild() RETURNS void LANGUAGE plpgsql AS $$
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
DROP FUNCTION wvs.fresh_tables_fit;
