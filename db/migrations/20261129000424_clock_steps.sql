-- migrate:up

-- Null for a freeze that was open when this migration ran.
ALTER TABLE wvs.freezes ADD COLUMN budget_s double precision;

-- What a session has to do now: run, freeze, confirm, switch or end. `number` changes whenever the answer may have changed.
-- `resume`: the member may resume as soon as it has checked that it was frozen throughout. A session that has not switched
-- to the present live tree stays frozen until its directive is `switch`.
CREATE OR REPLACE FUNCTION wvs.directive_for(p_session uuid)
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
           CASE WHEN f.holds THEN greatest(extract(epoch FROM f.holds_until - clock_timestamp()), 0)::float8 END,
           w.epoch, w.live_tree,
           CASE WHEN w.state = 'disabled' THEN 'the workspace is disabled' ELSE s.reason END
    FROM wvs.sessions s
    JOIN wvs.lanes l ON l.workspace_id = s.workspace_id
    JOIN wvs.workspaces w ON w.id = s.workspace_id
    LEFT JOIN LATERAL (
        -- A hold ends at most a budget from now, unless the clock was set back: then the freeze is over, or agents would
        -- stay frozen for that time if the executor dies.
        SELECT o.number, o.phase, o.resumes, o.holds_until,
               o.holds_until > clock_timestamp()
                   AND o.holds_until <= clock_timestamp() + make_interval(secs => coalesce(o.budget_s, 1e6) + 1) AS holds
        FROM wvs.freezes o
        WHERE o.workspace_id = s.workspace_id AND o.phase <> 'over'
    ) f ON true
    LEFT JOIN wvs.freeze_members m
        ON m.workspace_id = s.workspace_id AND m.number = f.number AND m.session_id = s.id
    WHERE s.id = p_session
$$;

-- Opens the next freeze for the claim that holds the lane, and ends one that was left open. Returns no row if the claim is
-- stale. The required set is exact: registering and leaving lock the lane's row too.
-- `directives` grows by 3, so that no session has seen the number. A crash of the server may lose the last two numbers that a
-- session has seen, because their commits were not waited for; the session waits for a number other than the last one it saw.
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
    INSERT INTO wvs.freezes (workspace_id, number, task_id, fence, phase, holds_until, budget_s)
    VALUES (p_workspace, v_number, p_task, p_fence, 'freezing', now() + make_interval(secs => p_budget_s),
            p_budget_s);
    INSERT INTO wvs.freeze_members (workspace_id, number, session_id)
    SELECT p_workspace, v_number, s.id FROM wvs.sessions s WHERE s.workspace_id = p_workspace AND s.state = 'active';
    GET DIAGNOSTICS v_members = ROW_COUNT;
    RETURN QUERY SELECT v_number, v_members;
END $$;

-- Claims the lane that has been ready longest, and its head task: one round trip, on the executor's own connection.
--
-- The session-level advisory lock (wvs.holder_lock(), lane_no) shows that the holder is alive: it is taken before the claim is
-- visible, and ends with the connection. If the lock of a lane is held, the function postpones the lane a little and tries the
-- next one. If the holder keeps the lock beyond its lease, the function terminates that connection, and a later call can claim
-- the lane. `p_after` bounds the index scan from below, to skip the dead entries of claimed lanes. `took_over`: the task was
-- running under an older fence. `overdue`: it was past its deadline. `link_pending`: the link has yet to follow an earlier
-- task.
CREATE OR REPLACE FUNCTION wvs.claim_task(
    p_executor text, p_lease_s double precision, p_deadlines_s jsonb, p_after timestamptz
) RETURNS TABLE (
    workspace_id uuid, lane_no integer, fence bigint, task_id uuid, kind text, took_over boolean, overdue boolean,
    link_pending boolean, request_id text, traceparent text, idempotency_key text, waited_s double precision,
    ready_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    v_lane wvs.lanes;
    v_head wvs.queue;
BEGIN
    LOOP
        SELECT * INTO v_lane FROM wvs.lanes l
        WHERE l.ready_at <= now() AND l.ready_at >= p_after
        ORDER BY l.ready_at LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        IF NOT pg_try_advisory_lock(wvs.holder_lock(), v_lane.lane_no) THEN
            UPDATE wvs.lanes l SET ready_at = now() + interval '100 ms' WHERE l.workspace_id = v_lane.workspace_id;
            IF v_lane.lease_until < now() THEN
                PERFORM pg_terminate_backend(k.pid) FROM pg_locks k
                WHERE k.locktype = 'advisory'
                  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND k.classid = wvs.holder_lock() AND k.objid = v_lane.lane_no::oid AND k.objsubid = 2 AND k.granted;
            END IF;
            CONTINUE;
        END IF;
        -- Nobody changes the queue of this lane now: whoever removes from it holds the lane's row, and so do we.
        SELECT * INTO v_head FROM wvs.queue q WHERE q.workspace_id = v_lane.workspace_id ORDER BY q.seq LIMIT 1;
        EXIT WHEN FOUND;
        UPDATE wvs.lanes l SET ready_at = NULL WHERE l.workspace_id = v_lane.workspace_id;
        PERFORM pg_advisory_unlock(wvs.holder_lock(), v_lane.lane_no);
    END LOOP;
    UPDATE wvs.queue q SET state = 'running', progress = NULL WHERE q.task_id = v_head.task_id;
    UPDATE wvs.lanes l SET
        task_id = v_head.task_id, fence = l.fence + 1, ready_at = NULL, executor = p_executor, overdue = false,
        lease_until = now() + make_interval(secs => p_lease_s),
        deadline_at = now() + make_interval(secs => (p_deadlines_s ->> v_head.kind)::float8)
    WHERE l.workspace_id = v_lane.workspace_id;
    RETURN QUERY SELECT
        v_lane.workspace_id, v_lane.lane_no, v_lane.fence + 1, v_head.task_id, v_head.kind,
        v_lane.task_id IS NOT NULL, v_lane.task_id IS NOT NULL AND v_lane.overdue,
        v_lane.link_pending IS NOT NULL, v_head.request_id, v_head.traceparent, v_head.idempotency_key,
        -- Not below 0: the clock of the database may have been set back since.
        greatest(extract(epoch FROM now() - v_head.queued_at), 0)::float8, v_lane.ready_at;
END $$;

-- migrate:down

-- Claims the lane that has been ready longest, and its head task: one round trip, on the executor's own connection.
--
-- The session-level advisory lock (wvs.holder_lock(), lane_no) shows that the holder is alive: it is taken before the claim is
-- visible, and ends with the connection. A lane whose lock is held is put off a little, and the next one is tried. If its
-- holder keeps the lock beyond its lease, that connection is ended, and a later call can claim the lane.
-- `p_after` bounds the index scan from below, where dead entries of claimed lanes lie. `took_over`: the task was running
-- under an older fence. `overdue`: it was past its deadline. `link_pending`: the link has yet to follow an earlier task.
CREATE OR REPLACE FUNCTION wvs.claim_task(
    p_executor text, p_lease_s double precision, p_deadlines_s jsonb, p_after timestamptz
) RETURNS TABLE (
    workspace_id uuid, lane_no integer, fence bigint, task_id uuid, kind text, took_over boolean, overdue boolean,
    link_pending boolean, request_id text, traceparent text, idempotency_key text, waited_s double precision,
    ready_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    v_lane wvs.lanes;
    v_head wvs.queue;
BEGIN
    LOOP
        SELECT * INTO v_lane FROM wvs.lanes l
        WHERE l.ready_at <= now() AND l.ready_at >= p_after
        ORDER BY l.ready_at LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        IF NOT pg_try_advisory_lock(wvs.holder_lock(), v_lane.lane_no) THEN
            UPDATE wvs.lanes l SET ready_at = now() + interval '100 ms' WHERE l.workspace_id = v_lane.workspace_id;
            IF v_lane.lease_until < now() THEN
                PERFORM pg_terminate_backend(k.pid) FROM pg_locks k
                WHERE k.locktype = 'advisory'
                  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND k.classid = wvs.holder_lock() AND k.objid = v_lane.lane_no::oid AND k.objsubid = 2 AND k.granted;
            END IF;
            CONTINUE;
        END IF;
        -- Nobody changes the queue of this lane now: whoever removes from it holds the lane's row, and so do we.
        SELECT * INTO v_head FROM wvs.queue q WHERE q.workspace_id = v_lane.workspace_id ORDER BY q.seq LIMIT 1;
        EXIT WHEN FOUND;
        UPDATE wvs.lanes l SET ready_at = NULL WHERE l.workspace_id = v_lane.workspace_id;
        PERFORM pg_advisory_unlock(wvs.holder_lock(), v_lane.lane_no);
    END LOOP;
    UPDATE wvs.queue q SET state = 'running', progress = NULL WHERE q.task_id = v_head.task_id;
    UPDATE wvs.lanes l SET
        task_id = v_head.task_id, fence = l.fence + 1, ready_at = NULL, executor = p_executor, overdue = false,
        lease_until = now() + make_interval(secs => p_lease_s),
        deadline_at = now() + make_interval(secs => (p_deadlines_s ->> v_head.kind)::float8)
    WHERE l.workspace_id = v_lane.workspace_id;
    RETURN QUERY SELECT
        v_lane.workspace_id, v_lane.lane_no, v_lane.fence + 1, v_head.task_id, v_head.kind,
        v_lane.task_id IS NOT NULL, v_lane.task_id IS NOT NULL AND v_lane.overdue,
        v_lane.link_pending IS NOT NULL, v_head.request_id, v_head.traceparent, v_head.idempotency_key,
        extract(epoch FROM now() - v_head.queued_at)::float8, v_lane.ready_at;
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

-- What a session is to do now, as wvs.directive_of says it, which has no column for `resume`. Nobody goes on in a live tree
-- that was replaced: whoever has not switched stands still until it is told to. A disabled workspace is a new number.
CREATE OR REPLACE FUNCTION wvs.directive_for(p_session uuid)
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

ALTER TABLE wvs.freezes DROP COLUMN budget_s;
