-- migrate:up

-- A live tree is replaced only while the freeze of that claim holds and everybody in it has confirmed: in the very
-- transaction that commits it. An executor that was stopped after its members confirmed could otherwise move the pointer
-- long after they were told to run on in the old tree. `link_pending` is set exactly by those commits.
CREATE FUNCTION wvs.require_freeze() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_freeze wvs.freezes;
BEGIN
    SELECT * INTO v_freeze FROM wvs.freezes f
    WHERE f.workspace_id = NEW.workspace_id AND f.fence = NEW.fence ORDER BY f.number DESC LIMIT 1 FOR UPDATE;
    -- None: the workspace's first live tree, which nobody works in yet.
    IF FOUND AND (
        v_freeze.phase = 'over' OR v_freeze.holds_until <= clock_timestamp() OR EXISTS (
            SELECT FROM wvs.freeze_members m
            WHERE m.workspace_id = v_freeze.workspace_id AND m.number = v_freeze.number
              AND m.state NOT IN ('confirmed', 'left', 'evicted')))
    THEN
        RAISE EXCEPTION 'freeze % does not hold any more', v_freeze.number USING ERRCODE = 'WV001';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lanes_require_freeze BEFORE UPDATE OF link_pending ON wvs.lanes
    FOR EACH ROW WHEN (NEW.link_pending IS NOT NULL) EXECUTE FUNCTION wvs.require_freeze();

-- migrate:down
DROP TRIGGER lanes_require_freeze ON wvs.lanes;
DROP FUNCTION wvs.require_freeze;
