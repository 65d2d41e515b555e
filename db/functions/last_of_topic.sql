-- The last events of one type in a workspace before a version, newest first; with p_first only those that are the first event
-- of their task. The settings leave the planner only the index with which the scan ends with the page. Otherwise the planner
-- would search all events of the workspace for a type that is rare in it.
CREATE OR REPLACE FUNCTION wvs.last_of_topic(
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
