-- Creates empty tables like the read models in schema `p_schema` (which exists, or is pg_temp), with primary keys but without
-- other indexes, and a function apply_changes in that schema that writes to them.
CREATE OR REPLACE FUNCTION wvs.make_fresh_tables(p_schema text) RETURNS void LANGUAGE plpgsql AS $$
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
