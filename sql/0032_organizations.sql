-- Further organisations of the platform that a deployment serves, by the names that stand before the
-- keys of their decisions: name:id. Those of the first organisation have none.
--
-- What works beside release 28 works beside this.
INSERT INTO trunkline.compatibility VALUES (32, 28);

CREATE TABLE trunkline.organizations (
    name       text        PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,31}$'),
    since      timestamptz NOT NULL DEFAULT now()
);
GRANT INSERT, SELECT ON trunkline.organizations TO trunkline_app;
GRANT SELECT ON trunkline.organizations TO trunkline_reader;

CREATE OR REPLACE VIEW audit.decisions AS
SELECT decision_id, loop, key, sequence, mode, decided_at, event_time, action, reason, inputs, policy,
       policy_version, policy_hash, settings_revision, topic, partition, "offset", parameters, cause_ids,
       expires_at, recorded_at, topic_id,
       -- Keys of consumer groups may begin with the name of a cluster.
       (SELECT g.name FROM trunkline.organizations g
        WHERE d.loop <> 'lag' AND g.name = split_part(d.key, ':', 1) AND d.key <> g.name) AS organization
FROM audit.decision_log d;

CREATE OR REPLACE VIEW audit.outcomes AS
SELECT decision_id, status, attempts, http_status, request, response, requested_at, finished_at, loop, key,
       sequence, reason, effect, topic, partition, "offset", recorded_at, topic_id, waited,
       (SELECT g.name FROM trunkline.organizations g
        WHERE o.loop <> 'lag' AND g.name = split_part(o.key, ':', 1) AND o.key <> g.name) AS organization
FROM audit.outcome_log o;

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
       o.waited,
       (SELECT g.name FROM trunkline.organizations g
        WHERE d.loop <> 'lag' AND g.name = split_part(d.key, ':', 1) AND d.key <> g.name) AS organization
FROM audit.decision_log d
LEFT JOIN audit.outcome_log o ON o.decision_id = d.decision_id AND NOT o.verification
LEFT JOIN audit.outcome_log v ON v.decision_id = d.decision_id AND v.verification;
