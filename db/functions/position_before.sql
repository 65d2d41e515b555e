-- A position in the log, found by binary search: every event that occurred at `p_time` or later is after it, as far as the
-- clocks of all hosts agree. The caller therefore asks for a time well before the one it wants.
CREATE OR REPLACE FUNCTION wvs.position_before(p_time timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low bigint := 0;
    v_high bigint := (SELECT coalesce(max(e.notification_id), 0) FROM wvs.events e);
    v_middle bigint;
    v_next record;
BEGIN
    WHILE v_low < v_high LOOP
        v_middle := (v_low + v_high) / 2;
        SELECT e.notification_id, e.occurred_at INTO v_next FROM wvs.events e
        WHERE e.notification_id > v_middle ORDER BY e.notification_id LIMIT 1;
        IF FOUND AND v_next.occurred_at < p_time THEN
            v_low := v_next.notification_id;
        ELSE
            v_high := v_middle;
        END IF;
    END LOOP;
    RETURN v_low;
END $$;
