-- name: open_freeze
-- Opens the next freeze for the claim that holds the lane; no row if that claim no longer holds it.
SELECT number, members FROM wvs.open_freeze_v2($1, $2, $3, $4, $5)

-- name: freeze_members
-- The required set of a freeze, and the last answer of each member.
SELECT m.session_id, m.state, m.token, m.flush, m.reason, m.details, s.agent, s.host, s.pid,
       s.lease_until < clock_timestamp() AS expired
FROM wvs.freeze_members m JOIN wvs.sessions s ON s.id = m.session_id
WHERE m.workspace_id = $1 AND m.number = $2 ORDER BY m.session_id

-- name: hold_freeze
-- Extends a freeze to $3 seconds from now; null if it has ended or expired.
UPDATE wvs.freezes SET holds_until = clock_timestamp() + make_interval(secs => $3)
WHERE workspace_id = $1 AND number = $2 AND phase <> 'over' AND holds_until > clock_timestamp() RETURNING number

-- name: confirm_freeze
-- Asks every member to confirm that it stayed frozen; if $4, a member may resume as soon as it has checked. Null if the freeze
-- has ended or expired. The lane's row is locked first, as everywhere. The commit does not wait for its flush: if a crash
-- loses it, it loses the answers too.
WITH lane AS (
    SELECT l.workspace_id, set_config('synchronous_commit', 'off', true) FROM wvs.lanes l WHERE l.workspace_id = $1
    FOR UPDATE),
asked AS (
    UPDATE wvs.freezes f
    SET phase = 'confirming', resumes = $4, holds_until = clock_timestamp() + make_interval(secs => $3) FROM lane
    WHERE f.workspace_id = lane.workspace_id AND f.number = $2 AND f.phase = 'freezing'
      AND f.holds_until > clock_timestamp() RETURNING f.number)
UPDATE wvs.lanes l SET directives = l.directives + 1 FROM asked WHERE l.workspace_id = $1 RETURNING asked.number

-- name: close_freeze
-- Ends a freeze with outcome $3: its sessions resume. False if it had ended before.
SELECT wvs.close_freeze($1, $2, $3)

-- name: lapse_freeze
-- Ends a freeze that has expired, before any session gets the directive to run: a clock that is set back cannot revive it.
-- A freeze that would last longer than its budget is one, too: the clock was set back (see wvs.directive_for).
WITH lane AS (SELECT l.workspace_id FROM wvs.lanes l WHERE l.workspace_id = $1 FOR UPDATE),
ended AS (
    UPDATE wvs.freezes f SET phase = 'over', outcome = 'lapsed', over_at = clock_timestamp() FROM lane
    WHERE f.workspace_id = lane.workspace_id AND f.phase <> 'over'
      AND (f.holds_until <= clock_timestamp()
        OR f.holds_until > clock_timestamp() + make_interval(secs => coalesce(f.budget_s, 1e6) + 1))
    RETURNING f.number)
UPDATE wvs.lanes l SET directives = l.directives + 1 FROM ended WHERE l.workspace_id = $1

-- name: register_session
-- Registers a session. Returns the workspace's state; nothing is written unless that is 'active'.
SELECT wvs.register_session_v2($1, $2, $3, $4, $5, $6, $7)

-- name: session_secret_hash
-- The hash of a session's secret; null if an API registered it that knew no secrets. No row if there is no such session.
SELECT secret_hash FROM wvs.sessions WHERE id = $1

-- name: session_by_id
-- One session.
SELECT id, workspace_id, state, agent, host, pid, epoch, lease_until, lease_until < clock_timestamp() AS lease_expired,
       reason, registered_at, ended_at
FROM wvs.sessions WHERE id = $1

-- name: sessions_active
-- Up to $3 active sessions of a workspace before id $2, newest first.
SELECT id, workspace_id, state, agent, host, pid, epoch, lease_until, lease_until < clock_timestamp() AS lease_expired,
       reason, registered_at, ended_at
FROM wvs.sessions WHERE workspace_id = $1 AND state = 'active' AND id < $2 ORDER BY id DESC LIMIT $3

-- name: sessions_all
-- The same, including ended and evicted sessions.
SELECT id, workspace_id, state, agent, host, pid, epoch, lease_until, lease_until < clock_timestamp() AS lease_expired,
       reason, registered_at, ended_at
FROM wvs.sessions WHERE workspace_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3

-- name: directive_for
-- What a session has to do now.
SELECT d.workspace_id, d.number, d.kind, d."freeze", d.member, d.resume, d.budget_s, d.epoch, d.live_tree, d.reason,
       f.looked_from
FROM wvs.directive_for($1) d LEFT JOIN wvs.freezes f ON f.workspace_id = d.workspace_id AND f.number = d."freeze"

-- name: renewed_directive
-- A session has sent a request: what it has to do now. Its lease is renewed only after a tenth of it has passed, which saves
-- most writes. The commit does not wait for its flush: the next request replaces a lost one.
WITH renewed AS (
    UPDATE wvs.sessions SET lease_until = clock_timestamp() + make_interval(secs => lease_s)
    WHERE id = $1 AND state = 'active' AND lease_until < clock_timestamp() + make_interval(secs => 0.9 * lease_s)
    RETURNING set_config('synchronous_commit', 'off', true))
SELECT d.workspace_id, d.number, d.kind, d."freeze", d.member, d.resume, d.budget_s, d.epoch, d.live_tree, d.reason,
       f.looked_from
FROM wvs.directive_for($1) d LEFT JOIN renewed ON true
LEFT JOIN wvs.freezes f ON f.workspace_id = d.workspace_id AND f.number = d."freeze"

-- name: directives_after
-- What the sessions $1 have to do now, those only whose directive's number differs from the last one they saw, in $2.
SELECT s.id, d.workspace_id, d.number, d.kind, d."freeze", d.member, d.resume, d.budget_s, d.epoch, d.live_tree,
       d.reason, f.looked_from
FROM unnest($1::uuid[], $2::bigint[]) AS s (id, seen) CROSS JOIN LATERAL wvs.directive_for(s.id) d
LEFT JOIN wvs.freezes f ON f.workspace_id = d.workspace_id AND f.number = d."freeze" WHERE d.number <> s.seen

-- name: acknowledge_together
-- Takes answers of sessions of one workspace to freezes (`taken` is false for a stale one). Returns what each session has to
-- do now.
SELECT word, taken, settled, workspace_id, number, kind, "freeze", member, resume, budget_s, epoch, live_tree, reason,
       looked_from
FROM wvs.acknowledge_together_v2($1, $2, $3, $4, $5, $6, $7)

-- name: session_switched
-- Notes that a session works in the live tree of epoch $2.
UPDATE wvs.sessions SET epoch = $2, directives = directives + 1 WHERE id = $1 AND state = 'active' AND epoch < $2

-- name: leave_session
-- Ends an active session; false if no active session has this id.
SELECT wvs.leave_session($1, $2, $3)

-- name: session_gauges
-- The numbers of active sessions whose lease holds, and of those whose lease has expired.
SELECT CASE WHEN lease_until < clock_timestamp() THEN 'expired' ELSE 'active' END AS state, count(*) AS sessions
FROM wvs.sessions WHERE state = 'active' GROUP BY 1

-- name: abandon_freezes
-- Ends the freezes that a holder left open when it died: the sessions resume at once, not at the end of their budget.
WITH lane AS (SELECT l.workspace_id FROM wvs.lanes l WHERE l.workspace_id = $1 FOR UPDATE),
ended AS (
    UPDATE wvs.freezes f SET phase = 'over', outcome = 'abandoned', over_at = clock_timestamp() FROM lane
    WHERE f.workspace_id = lane.workspace_id AND f.fence <= $2 AND f.phase <> 'over' RETURNING f.number)
UPDATE wvs.lanes l SET directives = l.directives + 1 FROM ended WHERE l.workspace_id = $1 RETURNING ended.number
