-- The hash of a version of a stream, once no transaction can still write that version; null if there is no such version. The
-- write path calls it after a commit whose outcome is unknown. It takes the two locks that a commit holds until its end. The
-- row of a stream that is being created is not visible, but an INSERT of it waits for the transaction that creates it.
CREATE OR REPLACE FUNCTION wvs.settled_hash(p_workspace uuid, p_version bigint, p_scope text, p_key text)
RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
    IF p_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(wvs.command_lock(), hashtext(p_scope || chr(31) || p_key));
    END IF;
    INSERT INTO wvs.streams VALUES (p_workspace, 0, '') ON CONFLICT DO NOTHING;
    PERFORM 1 FROM wvs.streams s WHERE s.workspace_id = p_workspace FOR UPDATE;
    DELETE FROM wvs.streams s WHERE s.workspace_id = p_workspace AND s.version = 0;
    RETURN (SELECT e.hash FROM wvs.events e WHERE e.originator_id = p_workspace AND e.originator_version = p_version);
END $$;
