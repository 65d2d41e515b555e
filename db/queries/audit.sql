-- name: workspace_version_at
-- The last version of workspace $1 at or before position $2; 0 if there is none. Positions grow with versions, so that
-- halving finds it in a few steps on the primary key, without another index on the log.
WITH RECURSIVE halving (low, high) AS (
    SELECT 0::bigint, s.version FROM wvs.streams s WHERE s.workspace_id = $1
    UNION ALL
    SELECT CASE WHEN m.position <= $2 THEN m.middle ELSE m.low END,
           CASE WHEN m.position <= $2 THEN m.high ELSE m.middle - 1 END
    FROM (
        SELECT h.low, h.high, (h.low + h.high + 1) / 2 AS middle, e.notification_id AS position
        FROM halving h
        JOIN wvs.events e ON e.originator_id = $1 AND e.originator_version = (h.low + h.high + 1) / 2
        WHERE h.low < h.high) m)
SELECT coalesce(max(low), 0)::bigint FROM halving

-- name: workspace_events_between
-- Up to $4 events of workspace $1 behind version $2 and not beyond position $3, in order.
SELECT notification_id, originator_id, originator_version, topic, state, hash FROM wvs.events
WHERE originator_id = $1 AND originator_version > $2 AND notification_id <= $3 ORDER BY originator_version LIMIT $4
