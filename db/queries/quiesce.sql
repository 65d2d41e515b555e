-- name: open_freeze
-- Opens the next freeze for the claim that holds the lane; no row if it holds no longer.
SELECT number, members FROM wvs.open_freeze($1, $2, $3, $4)

-- name: freeze_members
-- The required set of a freeze and what each member has said.
SELECT m.session_id, m.state, m.token, m.flush, m.reason, s.agent, s.host, s.lease_until < clock_timestamp() AS expired
FROM wvs.freeze_members m JOIN wvs.sessions s ON s.id = m.session_id
WHERE m.workspace_id = $1 AND m.number = $2 ORDER BY m.session_id

-- name: hold_freeze
-- Moves the end of a freeze on to $3 seconds from now; null if it is over or its hold ran out.
UPDATE wvs.freezes SET holds_until = clock_timestamp() + make_interval(secs => $3)
WHERE workspace_id = $1 AND number = $2 AND phase <> 'over' AND holds_until > clock_timestamp() RETURNING number

-- name: confirm_freeze
-- Asks every member again, who may go on right after it has looked if $4; null if the freeze is over or its hold ran out.
-- The lane's row is locked first, as everywhere. The commit is not waited for: if it is lost, so are the answers.
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
-- Ends a freeze with outcome $3; everybody runs again. False if it was over.
SELECT wvs.close_freeze($1, $2, $3)

-- name: lapse_freeze
-- Ends a freeze whose hold ran out, before anybody is told to run: a clock that jumps back brings it to life no more.
WITH lane AS (SELECT l.workspace_id FROM wvs.lanes l WHERE l.workspace_id = $1 FOR UPDATE),
ended AS (
    UPDATE wvs.freezes f SET phase = 'over', outcome = 'lapsed', over_at = clock_timestamp() FROM lane
    WHERE f.workspace_id = lane.workspace_id AND f.phase <> 'over' AND f.holds_until <= clock_timestamp()
    RETURNING f.number)
UPDATE wvs.lanes l SET directives = l.directives + 1 FROM ended WHERE l.workspace_id = $1

-- name: register_session
-- Registers a session; answers the workspace's state, and nothing was written unless that is 'active'.
SELECT wvs.register_session($1, $2, $3, $4, $5, $6)

-- name: session_by_id
-- One session.
SELECT id, workspace_id, state, agent, host, pid, epoch, lease_until, lease_until < clock_timestamp() AS lease_expired,
       reason, registered_at, ended_at
FROM wvs.sessions WHERE id = $1

-- name: sessions_active
-- Up to $3 active sessions of a workspace older than $2, newest first.
SELECT id, workspace_id, state, agent, host, pid, epoch, lease_until, lease_until < clock_timestamp() AS lease_expired,
       reason, registered_at, ended_at
FROM wvs.sessions WHERE workspace_id = $1 AND state = 'active' AND id < $2 ORDER BY id DESC LIMIT $3

-- name: sessions_all
-- The same, ended and evicted ones included.
SELECT id, workspace_id, state, agent, host, pid, epoch, lease_until, lease_until < clock_timestamp() AS lease_expired,
       reason, registered_at, ended_at
FROM wvs.sessions WHERE workspace_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3

-- name: directive_for
-- What a session is to do now.
SELECT workspace_id, number, kind, "freeze", member, resume, budget_s, epoch, live_tree, reason FROM wvs.directive_for($1)

-- name: heard_directive
-- A session was heard of; what it is to do now. Its lease is renewed once a tenth of it is over, which spares most writes.
-- The commit is not waited for: the next call makes up for a lost one.
WITH heard AS (
    UPDATE wvs.sessions SET lease_until = clock_timestamp() + make_interval(secs => lease_s)
    WHERE id = $1 AND state = 'active' AND lease_until < clock_timestamp() + make_interval(secs => 0.9 * lease_s)
    RETURNING set_config('synchronous_commit', 'off', true))
SELECT d.workspace_id, d.number, d.kind, d."freeze", d.member, d.resume, d.budget_s, d.epoch, d.live_tree, d.reason
FROM wvs.directive_for($1) d LEFT JOIN heard ON true

-- name: directives_after
-- What those of the sessions $1 are to do now whose directive has another number than the one in $2 that they saw.
SELECT s.id, d.workspace_id, d.number, d.kind, d."freeze", d.member, d.resume, d.budget_s, d.epoch, d.live_tree, d.reason
FROM unnest($1::uuid[], $2::bigint[]) AS s (id, seen), LATERAL wvs.directive_for(s.id) d WHERE d.number <> s.seen

-- name: acknowledge_together
-- Takes words of sessions of one workspace on freezes (taken is false for a stale one), and tells what each is to do now.
SELECT word, taken, settled, workspace_id, number, kind, "freeze", member, resume, budget_s, epoch, live_tree, reason
FROM wvs.acknowledge_together($1, $2, $3, $4, $5, $6)

-- name: session_switched
-- A session works in the live tree of epoch $2 now.
UPDATE wvs.sessions SET epoch = $2, directives = directives + 1 WHERE id = $1 AND state = 'active' AND epoch < $2

-- name: leave_session
-- Takes an active session out; false if there is none by this id.
SELECT wvs.leave_session($1, $2, $3)

-- name: session_gauges
-- Active sessions, those that were heard of lately and those that were not.
SELECT CASE WHEN lease_until < clock_timestamp() THEN 'expired' ELSE 'active' END AS state, count(*) AS sessions
FROM wvs.sessions WHERE state = 'active' GROUP BY 1

-- name: abandon_freezes
-- Ends what a holder that is gone left open; its sessions run again at once instead of at the end of their budget.
WITH lane AS (SELECT l.workspace_id FROM wvs.lanes l WHERE l.workspace_id = $1 FOR UPDATE),
ended AS (
    UPDATE wvs.freezes f SET phase = 'over', outcome = 'abandoned', over_at = clock_timestamp() FROM lane
    WHERE f.workspace_id = lane.workspace_id AND f.fence <= $2 AND f.phase <> 'over' RETURNING f.number)
UPDATE wvs.lanes l SET directives = l.directives + 1 FROM ended WHERE l.workspace_id = $1 RETURNING ended.number
