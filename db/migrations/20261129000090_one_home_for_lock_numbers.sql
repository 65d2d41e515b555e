-- migrate:up

-- The class of the advisory locks on idempotency keys; wvs/postgres/locks.py has it as COMMAND. Besides the
-- retired commit_command, no other text of SQL contains the number.
CREATE OR REPLACE FUNCTION wvs.command_lock() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 2004251394 $$;

-- The class of the advisory locks that show the holder of a lane to be alive; wvs/postgres/locks.py has it as HOLDER. No
-- other text of SQL contains the number.
CREATE OR REPLACE FUNCTION wvs.holder_lock() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 2004251395 $$;

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
        task_id = v_head.task_id, fence = l.fence + 1, ready_at = NULL, executor = p_executor,
        lease_until = now() + make_interval(secs => p_lease_s),
        deadline_at = now() + make_interval(secs => (p_deadlines_s ->> v_head.kind)::float8)
    WHERE l.workspace_id = v_lane.workspace_id;
    RETURN QUERY SELECT
        v_lane.workspace_id, v_lane.lane_no, v_lane.fence + 1, v_head.task_id, v_head.kind,
        v_lane.task_id IS NOT NULL, coalesce(v_lane.task_id IS NOT NULL AND v_lane.deadline_at < now(), false),
        v_lane.link_pending IS NOT NULL, v_head.request_id, v_head.traceparent, v_head.idempotency_key,
        extract(epoch FROM now() - v_head.queued_at)::float8, v_lane.ready_at;
END $$;

-- Releases the lock that shows the holder of a lane to be alive; returns whether a task of the lane can be claimed now. A lane
-- that other executors put off meanwhile can be claimed at once. The row is locked after the advisory lock is released: an
-- executor that tried in between has put the lane off by then, and one that tries later succeeds.
CREATE OR REPLACE FUNCTION wvs.release_lane(p_workspace uuid, p_lane_no integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_ready_at timestamptz;
BEGIN
    PERFORM pg_advisory_unlock(wvs.holder_lock(), p_lane_no);
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    UPDATE wvs.lanes l SET ready_at = (
        SELECT greatest(q.run_at, now()) FROM wvs.queue q WHERE q.workspace_id = p_workspace ORDER BY q.seq LIMIT 1)
    WHERE l.workspace_id = p_workspace AND l.task_id IS NULL AND l.ready_at > now();
    SELECT l.ready_at INTO v_ready_at FROM wvs.lanes l WHERE l.workspace_id = p_workspace AND l.task_id IS NULL;
    RETURN coalesce(v_ready_at <= now(), false);
END $$;

-- Makes lanes claimable whose holder is gone (its advisory lock is released) or hangs (its lease is over).
--
-- The claims are read first, and the locks in a later statement: a claim takes its lock before it is visible, and ends before
-- it releases the lock. A claim that was seen first, is not locked then, and is still there now, has no holder. In one
-- statement the lock of the last task and the claim of the next one could be taken for one another.
CREATE OR REPLACE FUNCTION wvs.reap_lanes() RETURNS TABLE (workspace_id uuid, task_id uuid, fence bigint, executor text, reason text)
LANGUAGE plpgsql AS $$
DECLARE
    v_claims wvs.lanes[];
BEGIN
    SELECT array_agg(l) INTO v_claims FROM wvs.lanes l WHERE l.task_id IS NOT NULL AND l.ready_at IS NULL;
    RETURN QUERY
    WITH gone AS (
        SELECT l.workspace_id, CASE WHEN k.pid IS NULL THEN 'holder_gone' ELSE 'lease_over' END AS reason
        FROM unnest(v_claims) c
        JOIN wvs.lanes l ON l.workspace_id = c.workspace_id AND l.fence = c.fence AND l.task_id = c.task_id
        LEFT JOIN pg_locks k
          ON k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND k.classid = wvs.holder_lock() AND k.objid = c.lane_no::oid AND k.objsubid = 2 AND k.granted
        WHERE l.ready_at IS NULL AND (k.pid IS NULL OR l.lease_until < now())
        FOR UPDATE OF l SKIP LOCKED
    )
    UPDATE wvs.lanes l SET ready_at = now() FROM gone g WHERE l.workspace_id = g.workspace_id
    RETURNING l.workspace_id, l.task_id, l.fence, l.executor, g.reason;
END $$;

-- The hash of a version of a stream, once no transaction that may still write it is left; null if nothing is there. Asked
-- after a commit whose outcome is unknown: both locks are those that a commit holds until its end. The row of a stream that
-- is being created cannot be seen, but inserting it waits for the transaction that creates it.
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

-- migrate:down

-- What stands at a version of a stream, once no transaction that may still write there is left. Asked after a commit
-- whose outcome is unknown: both locks are those that commit_command holds until its end. The row of a stream that is
-- being created cannot be seen, but inserting it waits for who creates it.
CREATE OR REPLACE FUNCTION wvs.settled_hash(p_workspace uuid, p_version bigint, p_scope text, p_key text)
RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
    IF p_key IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(2004251394, hashtext(p_scope || chr(31) || p_key));
    END IF;
    INSERT INTO wvs.streams VALUES (p_workspace, 0, '') ON CONFLICT DO NOTHING;
    PERFORM 1 FROM wvs.streams s WHERE s.workspace_id = p_workspace FOR UPDATE;
    DELETE FROM wvs.streams s WHERE s.workspace_id = p_workspace AND s.version = 0;
    RETURN (SELECT e.hash FROM wvs.events e WHERE e.originator_id = p_workspace AND e.originator_version = p_version);
END $$;

-- Makes lanes claimable whose holder is gone (its advisory lock vanished) or hangs (its lease is over).
--
-- The claims are read first and the locks in a later statement: a claim takes its lock before it is visible and ends
-- before it lets go, so that a claim seen first, not seen locked then, and still there now, has no holder. In one
-- statement the lock of the last task and the claim of the next one could be taken for one another.
CREATE OR REPLACE FUNCTION wvs.reap_lanes() RETURNS TABLE (workspace_id uuid, task_id uuid, fence bigint, executor text, reason text)
LANGUAGE plpgsql AS $$
DECLARE
    v_claims wvs.lanes[];
BEGIN
    SELECT array_agg(l) INTO v_claims FROM wvs.lanes l WHERE l.task_id IS NOT NULL AND l.ready_at IS NULL;
    RETURN QUERY
    WITH gone AS (
        SELECT l.workspace_id, CASE WHEN k.pid IS NULL THEN 'holder_gone' ELSE 'lease_over' END AS reason
        FROM unnest(v_claims) c
        JOIN wvs.lanes l ON l.workspace_id = c.workspace_id AND l.fence = c.fence AND l.task_id = c.task_id
        LEFT JOIN pg_locks k
          ON k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND k.classid = 2004251395 AND k.objid = c.lane_no::oid AND k.objsubid = 2 AND k.granted
        WHERE l.ready_at IS NULL AND (k.pid IS NULL OR l.lease_until < now())
        FOR UPDATE OF l SKIP LOCKED
    )
    UPDATE wvs.lanes l SET ready_at = now() FROM gone g WHERE l.workspace_id = g.workspace_id
    RETURNING l.workspace_id, l.task_id, l.fence, l.executor, g.reason;
END $$;

-- Gives up the lock that shows the holder to be alive. A lane that others put off meanwhile gets its time back; true if
-- a task of it can be claimed now. The row's lock comes after the other one: who tried in between has put the lane off
-- by then, and who tries later succeeds.
CREATE OR REPLACE FUNCTION wvs.release_lane(p_workspace uuid, p_lane_no integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_ready_at timestamptz;
BEGIN
    PERFORM pg_advisory_unlock(2004251395, p_lane_no);
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    UPDATE wvs.lanes l SET ready_at = (
        SELECT greatest(q.run_at, now()) FROM wvs.queue q WHERE q.workspace_id = p_workspace ORDER BY q.seq LIMIT 1)
    WHERE l.workspace_id = p_workspace AND l.task_id IS NULL AND l.ready_at > now();
    SELECT l.ready_at INTO v_ready_at FROM wvs.lanes l WHERE l.workspace_id = p_workspace AND l.task_id IS NULL;
    RETURN coalesce(v_ready_at <= now(), false);
END $$;

-- Claims the lane that has been ready longest and its head task: one round trip, on the executor's own connection.
--
-- The session-level advisory lock (0x77767303, lane_no) shows that the holder is alive: it is taken before the claim is
-- visible and vanishes with the connection. A lane whose lock is held is put off a little, and the next one is tried;
-- where its holder hangs on to it past its lease, that connection is ended, and the lane is free at a later call.
-- `p_after` bounds the index scan from below (dead entries of claimed lanes lie there). `took_over` tells that the task
-- was running under an older fence, `overdue` that it was past its deadline, `link_pending` that the link has yet to
-- follow an earlier task.
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
        IF NOT pg_try_advisory_lock(2004251395, v_lane.lane_no) THEN
            UPDATE wvs.lanes l SET ready_at = now() + interval '100 ms' WHERE l.workspace_id = v_lane.workspace_id;
            IF v_lane.lease_until < now() THEN
                PERFORM pg_terminate_backend(k.pid) FROM pg_locks k
                WHERE k.locktype = 'advisory'
                  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND k.classid = 2004251395 AND k.objid = v_lane.lane_no::oid AND k.objsubid = 2 AND k.granted;
            END IF;
            CONTINUE;
        END IF;
        -- Nobody changes the queue of this lane now: whoever removes from it holds the lane's row, and so do we.
        SELECT * INTO v_head FROM wvs.queue q WHERE q.workspace_id = v_lane.workspace_id ORDER BY q.seq LIMIT 1;
        EXIT WHEN FOUND;
        UPDATE wvs.lanes l SET ready_at = NULL WHERE l.workspace_id = v_lane.workspace_id;
        PERFORM pg_advisory_unlock(2004251395, v_lane.lane_no);
    END LOOP;
    UPDATE wvs.queue q SET state = 'running', progress = NULL WHERE q.task_id = v_head.task_id;
    UPDATE wvs.lanes l SET
        task_id = v_head.task_id, fence = l.fence + 1, ready_at = NULL, executor = p_executor,
        lease_until = now() + make_interval(secs => p_lease_s),
        deadline_at = now() + make_interval(secs => (p_deadlines_s ->> v_head.kind)::float8)
    WHERE l.workspace_id = v_lane.workspace_id;
    RETURN QUERY SELECT
        v_lane.workspace_id, v_lane.lane_no, v_lane.fence + 1, v_head.task_id, v_head.kind,
        v_lane.task_id IS NOT NULL, coalesce(v_lane.task_id IS NOT NULL AND v_lane.deadline_at < now(), false),
        v_lane.link_pending IS NOT NULL, v_head.request_id, v_head.traceparent, v_head.idempotency_key,
        extract(epoch FROM now() - v_head.queued_at)::float8, v_lane.ready_at;
END $$;

DROP FUNCTION wvs.holder_lock();

DROP FUNCTION wvs.command_lock();
