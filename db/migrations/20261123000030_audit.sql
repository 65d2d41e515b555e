-- migrate:up

-- Which snapshot an event is about: what was known of a snapshot at some version is a fold of its few events, found by
-- this index. What moves the pointer names a snapshot without changing it, and may do so without end.
ALTER TABLE wvs.events ADD COLUMN snapshot_id uuid;
UPDATE wvs.events SET snapshot_id = (convert_from(state, 'UTF8')::jsonb #>> '{event,snapshot_id}')::uuid
WHERE convert_from(state, 'UTF8')::jsonb #>> '{event,snapshot_id}' IS NOT NULL;
CREATE INDEX events_snapshot_id_idx ON wvs.events (snapshot_id, originator_version)
WHERE snapshot_id IS NOT NULL AND topic NOT LIKE 'current.%';

-- The audit's filters. Position and version follow the filtered column, so that a page is a piece of the index.
CREATE INDEX events_topic_idx ON wvs.events (topic, notification_id);
CREATE INDEX events_actor_idx ON wvs.events (actor, notification_id);
CREATE INDEX events_topic_version_idx ON wvs.events (topic, originator_id, originator_version);

-- Whether an event passes the audit's filters; one that is null asks for nothing.
CREATE FUNCTION wvs.event_matches(
    e wvs.events, p_workspace uuid, p_topic text, p_actor text, p_task uuid, p_since timestamptz, p_until timestamptz
) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (p_workspace IS NULL OR e.originator_id = p_workspace)
       AND (p_topic IS NULL OR e.topic = p_topic)
       AND (p_actor IS NULL OR e.actor = p_actor)
       AND (p_task IS NULL OR e.task_id = p_task)
       AND (p_since IS NULL OR e.occurred_at >= p_since)
       AND (p_until IS NULL OR e.occurred_at < p_until)
$$;

-- A position behind which the first event at or after a time is looked for, found by halving. Times grow with positions
-- only as well as the clocks of all hosts agree, so that the caller asks for a time that is a good deal earlier.
CREATE FUNCTION wvs.position_before(p_time timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
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

-- The version of a workspace at a time: its event had occurred, the next one had not. 0 before the first.
CREATE FUNCTION wvs.version_at(p_workspace uuid, p_time timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
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

-- The last events of one type in a workspace before a version, the last one first; with p_first only those that are the
-- first of their task. The settings leave the planner the one index that ends at the page: a type that is rare in the
-- workspace, or that it does not have, would else be looked for among all of its events.
CREATE FUNCTION wvs.last_of_topic(
    p_workspace uuid, p_topic text, p_before bigint, p_limit bigint, p_first boolean DEFAULT false
) RETURNS TABLE (version bigint, task_id uuid, snapshot_id uuid) LANGUAGE plpgsql STABLE
SET enable_sort = off SET enable_incremental_sort = off SET enable_bitmapscan = off SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT e.originator_version, e.task_id, e.snapshot_id FROM wvs.events e
    WHERE (e.topic, e.originator_id, e.originator_version) >= (p_topic, p_workspace, 1)
      AND (e.topic, e.originator_id, e.originator_version) <= (p_topic, p_workspace, p_before - 1)
      AND (NOT p_first OR NOT EXISTS (
          SELECT FROM wvs.events f WHERE f.task_id = e.task_id AND f.notification_id < e.notification_id))
    ORDER BY e.topic DESC, e.originator_id DESC, e.originator_version DESC LIMIT p_limit;
END $$;

-- The write path as before, which also writes down the snapshot of each event.
DROP FUNCTION wvs.commit_command;

CREATE FUNCTION wvs.commit_command(
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

-- migrate:down
DROP FUNCTION wvs.commit_command;

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

DROP FUNCTION wvs.last_of_topic, wvs.version_at, wvs.position_before, wvs.event_matches;
DROP INDEX wvs.events_topic_version_idx, wvs.events_actor_idx, wvs.events_topic_idx;
ALTER TABLE wvs.events DROP COLUMN snapshot_id;
