-- Trigger of wvs.lanes: a live tree is replaced only while the freeze of that claim holds and every member has confirmed it,
-- checked in the transaction that commits the replacement. An executor that was stopped after its members confirmed could
-- otherwise replace the live tree long after they resumed in the old one. Raises WV001. A claim without a freeze passes: it
-- creates the workspace's first live tree, in which no agent works yet. A freeze whose members resume when they confirm never
-- passes.
CREATE OR REPLACE FUNCTION wvs.require_freeze() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_freeze wvs.freezes;
BEGIN
    SELECT * INTO v_freeze FROM wvs.freezes f
    WHERE f.workspace_id = NEW.workspace_id AND f.fence = NEW.fence ORDER BY f.number DESC LIMIT 1 FOR UPDATE;
    -- None: the workspace's first live tree, which nobody works in yet.
    IF FOUND AND (
        v_freeze.phase = 'over' OR v_freeze.resumes OR v_freeze.holds_until <= clock_timestamp() OR EXISTS (
            SELECT FROM wvs.freeze_members m
            WHERE m.workspace_id = v_freeze.workspace_id AND m.number = v_freeze.number
              AND m.state NOT IN ('confirmed', 'left', 'evicted')))
    THEN
        RAISE EXCEPTION 'freeze % does not hold any more', v_freeze.number USING ERRCODE = 'WV001';
    END IF;
    RETURN NEW;
END $$;
