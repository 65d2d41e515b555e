-- The version of a workspace at a time: its event had occurred, and the next one had not. 0 before the first event.
CREATE OR REPLACE FUNCTION wvs.version_at(p_workspace uuid, p_time timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low bigint := 0;
    v_high bigint := coalesce((SELECT s.version FROM wvs.streams s WHERE s.workspace_id = p_workspace), 0);
    v_middle bigint;
BEGIN
    WHILE v_low < v_high LOOP
        v_middle := (v_low + v_high + 1) / 2;
        IF (SELECT e.occurred_at FROM wvs.events e
            WHERE e.originator_id = p_workspace AND e.originator_version = v_middle) <= p_time THEN
            v_low := v_middle;
        ELSE
            v_high := v_middle - 1;
        END IF;
    END LOOP;
    RETURN v_low;
END $$;
