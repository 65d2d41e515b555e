-- migrate:up

-- True once the members of a freeze are asked whether they still stand still, and may go on as soon as they have looked:
-- the clone of their tree has ended. Nobody may before a new live tree is in its place.
ALTER TABLE wvs.freezes ADD COLUMN resumes boolean NOT NULL DEFAULT false;
-- True once the answer to its word said that the member runs: nothing is new for it when such a freeze is over.
ALTER TABLE wvs.freeze_members ADD COLUMN told boolean NOT NULL DEFAULT false;

-- What a session is to do now, as wvs.directive_of says it, which has no column for `resume`. Nobody goes on in a live tree
-- that was replaced: whoever has not switched stands still until it is told to. A disabled workspace is a new number.
CREATE FUNCTION wvs.directive_for(p_session uuid)
RETURNS TABLE (
    workspace_id uuid, number bigint, kind text, "freeze" bigint, member boolean, resume boolean,
    budget_s double precision, epoch bigint, live_tree text, reason text
) LANGUAGE sql STABLE AS $$
    SELECT s.workspace_id,
           -- A freeze whose hold ran out changes the answer without a write; the last term lets the number say so.
           l.directives + s.directives + w.epoch + (w.state = 'disabled')::integer
               + (CASE WHEN f.number IS NOT NULL AND NOT f.holds THEN 1000000000000 ELSE 0 END),
           CASE
               WHEN s.state <> 'active' OR w.state = 'disabled' THEN 'end'
               WHEN f.holds AND f.phase = 'confirming' AND m.state = 'frozen' THEN 'confirm'
               WHEN f.holds AND NOT coalesce(m.told, false) THEN 'freeze'
               WHEN s.epoch < w.epoch THEN 'switch'
               ELSE 'run'
           END,
           CASE WHEN f.holds THEN f.number END,
           m.session_id IS NOT NULL,
           coalesce(f.holds AND f.resumes AND f.phase = 'confirming' AND m.state = 'frozen' AND s.epoch = w.epoch, false),
           CASE WHEN f.holds THEN extract(epoch FROM f.holds_until - clock_timestamp())::float8 END,
           w.epoch, w.live_tree,
           CASE WHEN w.state = 'disabled' THEN 'the workspace is disabled' ELSE s.reason END
    FROM wvs.sessions s
    JOIN wvs.lanes l ON l.workspace_id = s.workspace_id
    JOIN wvs.workspaces w ON w.id = s.workspace_id
    LEFT JOIN LATERAL (
        SELECT o.number, o.phase, o.resumes, o.holds_until, o.holds_until > clock_timestamp() AS holds FROM wvs.freezes o
        WHERE o.workspace_id = s.workspace_id AND o.phase <> 'over'
    ) f ON true
    LEFT JOIN wvs.freeze_members m
        ON m.workspace_id = s.workspace_id AND m.number = f.number AND m.session_id = s.id
    WHERE s.id = p_session
$$;

-- Takes words of sessions on freezes, in the order given, each as wvs.acknowledge alone would: the agents of one workspace
-- stop within the same few milliseconds. `word` counts from 1; none for a session that there is not. All of them have to
-- be of one workspace, so that only one lane is locked. `settled`, as all words together left it: nobody is waited for
-- any more, or the freeze has failed; the executor need not be woken before. Whoever speaks was heard of, too.
-- The commit is not waited for; 20261124000060_acks.sql says why.
CREATE FUNCTION wvs.acknowledge_together(
    p_sessions uuid[], p_freezes bigint[], p_kinds text[], p_tokens text[], p_flushes text[], p_reasons text[]
) RETURNS TABLE (
    word bigint, taken boolean, settled boolean, workspace_id uuid, number bigint, kind text, "freeze" bigint,
    member boolean, resume boolean, budget_s double precision, epoch bigint, live_tree text, reason text
) LANGUAGE plpgsql AS $$
DECLARE
    v_taken boolean[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR i IN 1 .. cardinality(p_sessions) LOOP
        v_taken[i] := wvs.acknowledge(p_sessions[i], p_freezes[i], p_kinds[i], p_tokens[i], p_flushes[i], p_reasons[i]);
    END LOOP;
    UPDATE wvs.sessions s SET lease_until = clock_timestamp() + make_interval(secs => s.lease_s)
    WHERE s.id = ANY (p_sessions) AND s.state = 'active'
      AND s.lease_until < clock_timestamp() + make_interval(secs => 0.9 * s.lease_s);
    -- Who has confirmed a freeze that resumes is told to run, which is a new number for it.
    WITH told AS (
        UPDATE wvs.freeze_members m SET told = true
        FROM wvs.freezes f, wvs.sessions s, wvs.workspaces w
        WHERE f.workspace_id = m.workspace_id AND f.number = m.number AND f.phase = 'confirming' AND f.resumes
          AND m.session_id = ANY (p_sessions) AND m.state = 'confirmed' AND NOT m.told
          AND s.id = m.session_id AND w.id = m.workspace_id AND s.epoch = w.epoch
        RETURNING m.session_id)
    UPDATE wvs.sessions s SET directives = s.directives + 1 FROM told WHERE s.id = told.session_id;
    RETURN QUERY
    WITH counted AS (
        SELECT m.workspace_id, m.number, bool_or(m.state IN ('refused', 'broken')) AS failed,
               bool_or(m.state = 'asked') AS asked, bool_or(m.state = 'frozen') AS frozen
        FROM wvs.freeze_members m
        WHERE m.workspace_id = (SELECT s.workspace_id FROM wvs.sessions s WHERE s.id = p_sessions[1])
          AND m.number = ANY (p_freezes)
        GROUP BY m.workspace_id, m.number
    )
    SELECT w.n, v_taken[w.n],
           coalesce(c.failed OR NOT CASE p_kinds[w.n] WHEN 'still_frozen' THEN c.frozen ELSE c.asked END, true), d.*
    FROM unnest(p_sessions) WITH ORDINALITY AS w (session_id, n)
    CROSS JOIN LATERAL wvs.directive_for(w.session_id) d
    LEFT JOIN counted c ON c.workspace_id = d.workspace_id AND c.number = p_freezes[w.n];
END $$;

-- As 20261123000007_quiesce.sql has it, but with a number that no session can have seen. A crash of the server may lose what
-- was not waited for, and with it the two numbers that a session has had since the last freeze was opened: one when it was
-- asked again, one for its answer. It waits for a number other than the last one that it saw.
CREATE OR REPLACE FUNCTION wvs.open_freeze(p_workspace uuid, p_fence bigint, p_task uuid, p_budget_s double precision)
RETURNS TABLE (number bigint, members integer) LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
    v_members integer;
BEGIN
    UPDATE wvs.lanes l SET freezes = l.freezes + 1, directives = l.directives + 3
    WHERE l.workspace_id = p_workspace AND l.fence = p_fence AND l.task_id = p_task
    RETURNING l.freezes INTO v_number;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE wvs.freezes f SET phase = 'over', outcome = 'abandoned', over_at = now()
    WHERE f.workspace_id = p_workspace AND f.phase <> 'over';
    -- Kept only to look at; the proof of each freeze is with its event.
    DELETE FROM wvs.freezes f WHERE f.workspace_id = p_workspace AND f.number < v_number - 10;
    DELETE FROM wvs.freeze_members m WHERE m.workspace_id = p_workspace AND m.number < v_number - 10;
    INSERT INTO wvs.freezes (workspace_id, number, task_id, fence, phase, holds_until)
    VALUES (p_workspace, v_number, p_task, p_fence, 'freezing', now() + make_interval(secs => p_budget_s));
    INSERT INTO wvs.freeze_members (workspace_id, number, session_id)
    SELECT p_workspace, v_number, s.id FROM wvs.sessions s WHERE s.workspace_id = p_workspace AND s.state = 'active';
    GET DIAGNOSTICS v_members = ROW_COUNT;
    RETURN QUERY SELECT v_number, v_members;
END $$;

-- Ends a freeze; everybody runs again, and is told so unless that is nothing new for any session. False: it was over.
-- The sessions are looked at after the lane is locked: one may register while this waits.
CREATE FUNCTION wvs.close_freeze(p_workspace uuid, p_number bigint, p_outcome text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    UPDATE wvs.freezes f SET phase = 'over', outcome = p_outcome, over_at = clock_timestamp()
    WHERE f.workspace_id = p_workspace AND f.number = p_number AND f.phase <> 'over';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wvs.lanes l SET directives = l.directives + 1
    WHERE l.workspace_id = p_workspace AND EXISTS (
        SELECT FROM wvs.sessions s WHERE s.workspace_id = p_workspace AND s.state = 'active' AND NOT EXISTS (
            SELECT FROM wvs.freeze_members m
            WHERE m.workspace_id = p_workspace AND m.number = p_number AND m.session_id = s.id AND m.told));
    RETURN true;
END $$;

-- As 20261123000040_freeze_guards_move.sql has it, and never for a freeze whose members may have gone on.
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

-- As 20261123000007_quiesce.sql has it, but that who has confirmed and gone on may end: its proof is given.
CREATE OR REPLACE FUNCTION wvs.leave_session(p_session uuid, p_state text, p_reason text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_workspace uuid;
BEGIN
    SELECT s.workspace_id INTO v_workspace FROM wvs.sessions s WHERE s.id = p_session;
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = v_workspace FOR UPDATE;
    UPDATE wvs.sessions s
    SET state = p_state, reason = p_reason, ended_at = now(), directives = s.directives + 1
    WHERE s.id = p_session AND s.state = 'active';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wvs.freeze_members m SET state = CASE p_state WHEN 'ended' THEN 'left' ELSE 'evicted' END
    FROM wvs.freezes f
    WHERE f.workspace_id = v_workspace AND f.phase <> 'over'
      AND m.workspace_id = v_workspace AND m.number = f.number AND m.session_id = p_session
      AND NOT (f.resumes AND m.state = 'confirmed');
    RETURN true;
END $$;

-- migrate:down
CREATE OR REPLACE FUNCTION wvs.open_freeze(p_workspace uuid, p_fence bigint, p_task uuid, p_budget_s double precision)
RETURNS TABLE (number bigint, members integer) LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
    v_members integer;
BEGIN
    UPDATE wvs.lanes l SET freezes = l.freezes + 1, directives = l.directives + 1
    WHERE l.workspace_id = p_workspace AND l.fence = p_fence AND l.task_id = p_task
    RETURNING l.freezes INTO v_number;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE wvs.freezes f SET phase = 'over', outcome = 'abandoned', over_at = now()
    WHERE f.workspace_id = p_workspace AND f.phase <> 'over';
    -- Kept only to look at; the proof of each freeze is with its event.
    DELETE FROM wvs.freezes f WHERE f.workspace_id = p_workspace AND f.number < v_number - 10;
    DELETE FROM wvs.freeze_members m WHERE m.workspace_id = p_workspace AND m.number < v_number - 10;
    INSERT INTO wvs.freezes (workspace_id, number, task_id, fence, phase, holds_until)
    VALUES (p_workspace, v_number, p_task, p_fence, 'freezing', now() + make_interval(secs => p_budget_s));
    INSERT INTO wvs.freeze_members (workspace_id, number, session_id)
    SELECT p_workspace, v_number, s.id FROM wvs.sessions s WHERE s.workspace_id = p_workspace AND s.state = 'active';
    GET DIAGNOSTICS v_members = ROW_COUNT;
    RETURN QUERY SELECT v_number, v_members;
END $$;
CREATE OR REPLACE FUNCTION wvs.leave_session(p_session uuid, p_state text, p_reason text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_workspace uuid;
BEGIN
    SELECT s.workspace_id INTO v_workspace FROM wvs.sessions s WHERE s.id = p_session;
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = v_workspace FOR UPDATE;
    UPDATE wvs.sessions s
    SET state = p_state, reason = p_reason, ended_at = now(), directives = s.directives + 1
    WHERE s.id = p_session AND s.state = 'active';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wvs.freeze_members m SET state = CASE p_state WHEN 'ended' THEN 'left' ELSE 'evicted' END
    FROM wvs.freezes f
    WHERE f.workspace_id = v_workspace AND f.phase <> 'over'
      AND m.workspace_id = v_workspace AND m.number = f.number AND m.session_id = p_session;
    RETURN true;
END $$;
CREATE OR REPLACE FUNCTION wvs.require_freeze() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_freeze wvs.freezes;
BEGIN
    SELECT * INTO v_freeze FROM wvs.freezes f
    WHERE f.workspace_id = NEW.workspace_id AND f.fence = NEW.fence ORDER BY f.number DESC LIMIT 1 FOR UPDATE;
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
DROP FUNCTION wvs.close_freeze, wvs.acknowledge_together, wvs.directive_for;
ALTER TABLE wvs.freeze_members DROP COLUMN told;
ALTER TABLE wvs.freezes DROP COLUMN resumes;
