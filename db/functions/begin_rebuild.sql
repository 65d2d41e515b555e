-- Begins a rebuild in schema wvs_fresh, or continues the one that was interrupted there; returns the position up to which the
-- fresh tables are filled. They are dropped first if other code made them (another fingerprint), if they are of another log
-- (another epoch), or if a migration has changed the read models since.
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
