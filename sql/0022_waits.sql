-- How long a decision was held up on its way to the platform, and by what: milliseconds until its turn
-- came (turnMs), for the budget that all calls share (budgetMs), between tries (pausesMs, pausedFor).
ALTER TABLE audit.outcome_log ADD COLUMN waited jsonb;

CREATE OR REPLACE VIEW audit.outcomes AS
SELECT decision_id, status, attempts, http_status, request, response, requested_at, finished_at, loop, key,
       sequence, reason, effect, topic, partition, "offset", recorded_at, topic_id, waited
FROM audit.outcome_log;

CREATE OR REPLACE VIEW audit.explained AS
SELECT d.decision_id, d.loop, d.key, d.sequence, d.mode, d.decided_at, d.event_time, d.action, d.reason,
       d.parameters,
       d.inputs AS "window",
       d.policy || ' v' || d.policy_version || ' (' || d.policy_hash || ')' AS rule,
       o.status, o.reason AS outcome_reason, o.attempts, o.http_status, o.request,
       o.response AS reply, o.effect, o.requested_at, o.finished_at,
       d.inputs, d.policy, d.policy_version, d.policy_hash, d.settings_revision, o.response, d.cause_ids,
       d.expires_at, d.topic, d.partition, d."offset",
       (SELECT jsonb_agg(jsonb_build_object('incident_type', a.incident_type, 'receiver', a.receiver,
                                            'status', a.status, 'delivered_at', a.delivered_at)
                         ORDER BY a.incident_type, a.receiver)
        FROM audit.alerts a WHERE a.decision_id = d.decision_id) AS alert,
       v.status AS verification, v.reason AS verification_reason, v.finished_at AS verified_at,
       o.waited
FROM audit.decision_log d
LEFT JOIN audit.outcome_log o ON o.decision_id = d.decision_id AND NOT o.verification
LEFT JOIN audit.outcome_log v ON v.decision_id = d.decision_id AND v.verification;
