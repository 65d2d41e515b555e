-- Holds the log's watermark until the end of the transaction: a shared advisory lock whose key is below every position that
-- the transaction gets from now on. Call it before the first position is assigned. The key is the watermark's id in the high
-- 16 bits and the last position in the other 48; other applications' keys are not taken for it.
CREATE OR REPLACE FUNCTION wvs.hold_watermark() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_last bigint := coalesce(pg_sequence_last_value('wvs.events_notification_id_seq'), 0);
BEGIN
    PERFORM pg_advisory_xact_lock_shared((wvs.watermark_lock() << 48) | v_last);
    -- Shim for peers before 0.1.0; remove after 0.2.0. Their readers know only the bare position as a key. If another
    -- application holds that number exclusively, each lower one does as well, and this write must not wait.
    WHILE NOT pg_try_advisory_xact_lock_shared(v_last) LOOP
        v_last := v_last - 1;
    END LOOP;
    -- Followers store positions of events that they see. So an event must be durable before it is visible, even if the
    -- database or the role has asynchronous commits by default.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'local', true);
    END IF;
END $$;
