-- Settings changed at run time, and what rolling flow versions back must remember.

-- Every change; the newest of a scope is in force, and the JSON value null withdraws it. Revisions
-- count without gaps: changes are made one after the other.
CREATE TABLE audit.settings_log (
    revision   bigint      PRIMARY KEY CHECK (revision >= 1),
    scope      text        NOT NULL,
    value      jsonb       NOT NULL,
    who        text        NOT NULL,
    changed_at timestamptz NOT NULL
);
CREATE INDEX settings_log_newest ON audit.settings_log (scope, revision DESC);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.settings_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

CREATE VIEW audit.settings_history AS
SELECT revision, scope, value, who, changed_at FROM audit.settings_log;

-- Rollbacks that the platform confirmed: the cooldown of the flow, and versions not to go back to.
CREATE TABLE trunkline.rollbacks (
    decision_id    uuid        PRIMARY KEY,
    flow_id        text        NOT NULL,
    bad_version    text        NOT NULL,
    target_version text        NOT NULL,
    confirmed_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX rollbacks_newest ON trunkline.rollbacks (flow_id, confirmed_at DESC);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trunkline.rollbacks
    FOR EACH STATEMENT EXECUTE FUNCTION trunkline.refuse_change();

-- A rollback has two outcomes: how it ended, and minutes later whether it helped.
ALTER TABLE audit.outcome_log ADD COLUMN verification boolean NOT NULL
    GENERATED ALWAYS AS (status IN ('recovered', 'not_recovered')) STORED;
ALTER TABLE audit.outcome_log DROP CONSTRAINT outcome_log_pkey, ADD PRIMARY KEY (decision_id, verification);

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
       v.status AS verification, v.reason AS verification_reason, v.finished_at AS verified_at
FROM audit.decision_log d
LEFT JOIN audit.outcome_log o ON o.decision_id = d.decision_id AND NOT o.verification
LEFT JOIN audit.outcome_log v ON v.decision_id = d.decision_id AND v.verification;

GRANT INSERT, SELECT ON audit.settings_log, trunkline.rollbacks TO trunkline_app;
GRANT SELECT ON audit.settings_history TO trunkline_app, trunkline_reader;
