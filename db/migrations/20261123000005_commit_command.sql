-- migrate:up

-- Applies the queue steps of one command, in order. The caller holds the stream's row.
CREATE FUNCTION wvs.apply_queue_steps(
    p_workspace uuid, p_steps jsonb, p_request_id text, p_key text, p_traceparent text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_step jsonb;
    v_task uuid;
    v_head_moved boolean := false;
BEGIN
    -- The lane before the queue's rows, as in claim_task: the other way round a cancel and a claim wait for each other.
    IF p_steps @? '$[*] ? (@.type == "reschedule" || @.type == "remove" || @.type == "ask_to_cancel")' THEN
        PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    END IF;
    FOR v_step IN SELECT value FROM jsonb_array_elements(p_steps) LOOP
        v_task := (v_step ->> 'task_id')::uuid;
        CASE v_step ->> 'type'
            WHEN 'enqueue' THEN
                INSERT INTO wvs.queue (task_id, workspace_id, seq, kind, request_id, idempotency_key, traceparent)
                VALUES (v_task, p_workspace, (v_step ->> 'seq')::bigint, v_step ->> 'kind', p_request_id, p_key,
                        p_traceparent);
                UPDATE wvs.lanes l SET ready_at = coalesce(l.ready_at, now())
                WHERE l.workspace_id = p_workspace AND l.task_id IS NULL;
                -- Not ON CONFLICT: that would use up a lane_no with every task.
                INSERT INTO wvs.lanes (workspace_id, ready_at) SELECT p_workspace, now()
                WHERE NOT EXISTS (SELECT FROM wvs.lanes l WHERE l.workspace_id = p_workspace);
            WHEN 'reschedule' THEN
                v_head_moved := true;
                UPDATE wvs.queue
                SET state = 'queued', run_at = now() + make_interval(secs => (v_step ->> 'delay_s')::float8),
                    progress = NULL
                WHERE task_id = v_task;
                UPDATE wvs.lanes SET task_id = NULL WHERE workspace_id = p_workspace AND task_id = v_task;
            WHEN 'ask_to_cancel' THEN
                UPDATE wvs.queue SET cancel_requested = true WHERE task_id = v_task;
            WHEN 'remove' THEN
                v_head_moved := true;
                DELETE FROM wvs.queue WHERE task_id = v_task;
                UPDATE wvs.lanes SET task_id = NULL WHERE workspace_id = p_workspace AND task_id = v_task;
            WHEN 'relink' THEN
                UPDATE wvs.lanes SET link_pending = (v_step ->> 'epoch')::bigint WHERE workspace_id = p_workspace;
        END CASE;
    END LOOP;
    IF v_head_moved THEN
        -- A head that was put off keeps its time; one that has come of age goes behind the lanes that waited longer.
        UPDATE wvs.lanes l SET ready_at = (
            SELECT greatest(q.run_at, now()) FROM wvs.queue q
            WHERE q.workspace_id = p_workspace ORDER BY q.seq LIMIT 1)
        WHERE l.workspace_id = p_workspace AND l.task_id IS NULL;
    END IF;
END $$;

-- Applies row changes of the projector. Inserts are whole rows; an update names its row and the columns it changes.
CREATE FUNCTION wvs.apply_changes(p_changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_changes ? 'workspaces_insert' THEN
        INSERT INTO wvs.workspaces
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.workspaces, p_changes -> 'workspaces_insert') r;
    END IF;
    IF p_changes ? 'workspaces_update' THEN
        UPDATE wvs.workspaces t
        SET (name, state, labels, current_snapshot_id, live_tree, epoch, error, created_at, disabled_at) = (
            SELECT r.name, r.state, r.labels, r.current_snapshot_id, r.live_tree, r.epoch, r.error, r.created_at,
                   r.disabled_at
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'workspaces_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'snapshots_insert' THEN
        INSERT INTO wvs.snapshots
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.snapshots, p_changes -> 'snapshots_insert') r;
    END IF;
    IF p_changes ? 'snapshots_update' THEN
        UPDATE wvs.snapshots t
        SET (state, tree, engine, files, bytes, report, certificate, error, ready_at, deleted_at) = (
            SELECT r.state, r.tree, r.engine, r.files, r.bytes, r.report, r.certificate, r.error, r.ready_at,
                   r.deleted_at
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'snapshots_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'snapshot_labels_insert' THEN
        INSERT INTO wvs.snapshot_labels
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.snapshot_labels, p_changes -> 'snapshot_labels_insert') r;
    END IF;
    IF p_changes ? 'tasks_insert' THEN
        INSERT INTO wvs.tasks
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.tasks, p_changes -> 'tasks_insert') r;
    END IF;
    IF p_changes ? 'tasks_update' THEN
        UPDATE wvs.tasks t
        SET (state, noop, cancel_requested, attempt, progress, error, started_at, finished_at, next_attempt_at) = (
            SELECT r.state, r.noop, r.cancel_requested, r.attempt, r.progress, r.error, r.started_at, r.finished_at,
                   r.next_attempt_at
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'tasks_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'trees_insert' THEN
        INSERT INTO wvs.trees
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.trees, p_changes -> 'trees_insert') r;
    END IF;
    IF p_changes ? 'trees_update' THEN
        UPDATE wvs.trees t
        SET (state, snapshot_id) = (
            SELECT r.state, r.snapshot_id FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'trees_update') u
        WHERE t.workspace_id = (u.value ->> 'workspace_id')::uuid AND t.name = u.value ->> 'name';
    END IF;
END $$;

-- The rows that an answer shows, as they are after the command.
CREATE FUNCTION wvs.answer_rows(p_show jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'workspace', (SELECT to_jsonb(w) FROM wvs.workspaces w WHERE w.id = (p_show ->> 'workspace')::uuid),
        'snapshot', (SELECT to_jsonb(s) FROM wvs.snapshots s WHERE s.id = (p_show ->> 'snapshot')::uuid),
        'task', (SELECT to_jsonb(t) FROM wvs.tasks t WHERE t.id = (p_show ->> 'task')::uuid)))
$$;

-- The whole write path of one command in one round trip and one transaction: key, workspace lock, version, fence,
-- events, read models, queue, answer. Nothing is written unless the outcome is 'committed'.
--
-- Outcomes: committed; replayed (the key was used by the same request); reused (by another request); in_flight (the
-- key's first request has not ended); conflict (the stream is at another version); stale_fence.
CREATE FUNCTION wvs.commit_command(
    p_workspace uuid, p_expected bigint, p_previous_hash bytea,
    p_topics text[], p_states bytea[], p_hashes bytea[], p_task_ids uuid[],
    p_occurred_at timestamptz, p_actor text, p_request_id text, p_traceparent text,
    p_changes jsonb, p_steps jsonb,
    p_scope text, p_key text, p_fingerprint bytea, p_status smallint, p_show jsonb,
    p_fence bigint, p_fence_task uuid
) RETURNS TABLE (outcome text, version bigint, status smallint, answer jsonb) LANGUAGE plpgsql AS $$
DECLARE
    v_version bigint;
    v_hash bytea;
    v_known wvs.idempotency_keys;
    v_answer jsonb;
BEGIN
    IF p_key IS NOT NULL AND NOT pg_try_advisory_xact_lock(2004251394, hashtext(p_scope || chr(31) || p_key)) THEN
        RETURN QUERY SELECT 'in_flight', NULL::bigint, NULL::smallint, NULL::jsonb;
        RETURN;
    END IF;
    IF p_expected = 0 THEN
        INSERT INTO wvs.streams VALUES (p_workspace, 0, p_previous_hash) ON CONFLICT DO NOTHING;
    END IF;
    SELECT s.version, s.hash INTO v_version, v_hash FROM wvs.streams s WHERE s.workspace_id = p_workspace FOR UPDATE;
    IF p_key IS NOT NULL THEN
        SELECT * INTO v_known FROM wvs.idempotency_keys k WHERE k.scope = p_scope AND k.key = p_key;
        IF FOUND THEN
            -- Only the row of a stream that this call itself put there is taken back.
            DELETE FROM wvs.streams s WHERE s.workspace_id = p_workspace AND s.version = 0;
            RETURN QUERY SELECT CASE WHEN v_known.fingerprint = p_fingerprint THEN 'replayed' ELSE 'reused' END,
                                v_version, v_known.status, v_known.answer;
            RETURN;
        END IF;
    END IF;
    IF v_version IS DISTINCT FROM p_expected OR v_hash IS DISTINCT FROM p_previous_hash THEN
        RETURN QUERY SELECT 'conflict', v_version, NULL::smallint, NULL::jsonb;
        RETURN;
    END IF;
    IF p_fence IS NOT NULL THEN
        PERFORM 1 FROM wvs.lanes l
        WHERE l.workspace_id = p_workspace AND l.fence = p_fence AND l.task_id = p_fence_task FOR UPDATE;
        IF NOT FOUND THEN
            RETURN QUERY SELECT 'stale_fence', v_version, NULL::smallint, NULL::jsonb;
            RETURN;
        END IF;
    END IF;
    v_version := p_expected + cardinality(p_topics);
    IF cardinality(p_topics) > 0 THEN
        -- The watermark: a key below every position that this transaction will get, held until its rows are visible.
        PERFORM pg_advisory_xact_lock_shared(coalesce(pg_sequence_last_value('wvs.events_notification_id_seq'), 0));
        INSERT INTO wvs.events
            (originator_id, originator_version, topic, state, hash, occurred_at, actor, request_id, task_id)
        SELECT p_workspace, p_expected + e.n, e.topic, e.state, e.hash, p_occurred_at, p_actor, p_request_id, e.task_id
        FROM unnest(p_topics, p_states, p_hashes, p_task_ids) WITH ORDINALITY AS e (topic, state, hash, task_id, n)
        ORDER BY e.n;
        UPDATE wvs.streams s SET version = v_version, hash = p_hashes[cardinality(p_hashes)]
        WHERE s.workspace_id = p_workspace;
        PERFORM wvs.apply_changes(p_changes);
        IF p_steps <> '[]' THEN
            PERFORM wvs.apply_queue_steps(p_workspace, p_steps, p_request_id, p_key, p_traceparent);
        END IF;
    END IF;
    v_answer := CASE WHEN p_show IS NOT NULL THEN wvs.answer_rows(p_show) END;
    IF p_key IS NOT NULL THEN
        INSERT INTO wvs.idempotency_keys (scope, key, fingerprint, status, answer, workspace_id, task_id)
        VALUES (p_scope, p_key, p_fingerprint, p_status, v_answer, p_workspace, (p_show ->> 'task')::uuid);
    END IF;
    RETURN QUERY SELECT 'committed', v_version, p_status, v_answer;
END $$;

-- What stands at a version of a stream, once no transaction that may still write there is left. Asked after a commit
-- whose outcome is unknown: both locks are those that commit_command holds until its end. The row of a stream that is
-- being created cannot be seen, but inserting it waits for who creates it.
CREATE FUNCTION wvs.settled_hash(p_workspace uuid, p_version bigint, p_scope text, p_key text)
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

-- migrate:down
DROP FUNCTION wvs.settled_hash;
DROP FUNCTION wvs.commit_command, wvs.answer_rows, wvs.apply_changes, wvs.apply_queue_steps;
