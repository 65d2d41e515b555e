-- Whether an event passes the audit's filters; a null filter lets every event pass.
CREATE OR REPLACE FUNCTION wvs.event_matches(
    e wvs.events, p_workspace uuid, p_topic text, p_actor text, p_task uuid, p_since timestamptz, p_until timestamptz
) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (p_workspace IS NULL OR e.originator_id = p_workspace)
       AND (p_topic IS NULL OR e.topic = p_topic)
       AND (p_actor IS NULL OR e.actor = p_actor)
       AND (p_task IS NULL OR e.task_id = p_task)
       AND (p_since IS NULL OR e.occurred_at >= p_since)
       AND (p_until IS NULL OR e.occurred_at < p_until)
$$;
