-- Writes one command in one round trip and one transaction: key, workspace lock, version, fence, events, read models, queue,
-- answer. Nothing is written unless the outcome is 'committed'.
--
-- Outcomes: committed; replayed (the same request used the key before); reused (another request did); in_flight (the key's
-- first request has not ended); conflict (the stream is at another version); stale_fence (the lane is not held by that claim).
CREATE OR REPLACE FUNCTION wvs.commit_command(
    p_workspace uuid, p_expected bigint, p_previous_hash bytea,
    p_topics text[], p_states bytea[], p_hashes bytea[], p_task_ids uuid[], p_snapshot_ids uuid[],
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
            (originator_id, originator_version, topic, state, hash, occurred_at, actor, request_id, task_id, snapshot_id)
        SELECT p_workspace, p_expected + e.n, e.topic, e.state, e.hash, p_occurred_at, p_actor, p_request_id, e.task_id,
               e.snapshot_id
        FROM unnest(p_topics, p_states, p_hashes, p_task_ids, p_snapshot_ids)
             WITH ORDINALITY AS e (topic, state, hash, task_id, snapshot_id, n)
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
