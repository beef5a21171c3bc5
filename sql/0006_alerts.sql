-- What people were told: alerts are kept as they were raised, deliveries as they stand.

CREATE TABLE audit.alert_log (
    alert_id      uuid        PRIMARY KEY,
    incident_type text        NOT NULL,
    loop          text        NOT NULL,
    key           text        NOT NULL,
    decision_id   uuid        NOT NULL,
    occurred_at   timestamptz NOT NULL,
    -- As it is signed and sent, byte for byte.
    body          text        NOT NULL,
    -- The record that raised it.
    topic         text        NOT NULL,
    partition     integer     NOT NULL,
    "offset"      bigint      NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (decision_id, incident_type)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.alert_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

CREATE TABLE trunkline.alert_deliveries (
    alert_id     uuid        NOT NULL REFERENCES audit.alert_log,
    receiver     text        NOT NULL,
    -- Each attempt raises it: the result of an attempt counts only while it is the last.
    attempts     integer     NOT NULL DEFAULT 0,
    next_at      timestamptz NOT NULL DEFAULT now(),
    last_status  integer,
    last_error   text,
    delivered_at timestamptz,
    given_up_at  timestamptz,
    queued_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (alert_id, receiver)
);
CREATE INDEX alert_deliveries_due ON trunkline.alert_deliveries (receiver, next_at)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX alert_deliveries_oldest ON trunkline.alert_deliveries (queued_at)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;

-- One row per alert and receiver; one with NULL where nobody was to be told.
CREATE VIEW audit.alerts AS
SELECT a.alert_id, a.incident_type, a.loop, a.key, a.decision_id, a.occurred_at, a.body::jsonb AS body,
       d.receiver,
       CASE WHEN d.receiver IS NULL THEN 'not_sent'
            WHEN d.delivered_at IS NOT NULL THEN 'delivered'
            WHEN d.given_up_at IS NOT NULL THEN 'given_up'
            ELSE 'queued' END AS status,
       d.attempts, d.last_status AS http_status, d.last_error, d.delivered_at, d.given_up_at,
       CASE WHEN d.delivered_at IS NULL AND d.given_up_at IS NULL THEN d.next_at END AS next_attempt_at,
       a.topic, a.partition, a."offset", a.recorded_at
FROM audit.alert_log a
LEFT JOIN trunkline.alert_deliveries d USING (alert_id);

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
        FROM audit.alerts a WHERE a.decision_id = d.decision_id) AS alert
FROM audit.decision_log d
LEFT JOIN audit.outcome_log o USING (decision_id);

GRANT INSERT, SELECT ON audit.alert_log TO trunkline_app;
GRANT INSERT, SELECT, UPDATE ON trunkline.alert_deliveries TO trunkline_app;
GRANT SELECT ON audit.alerts TO trunkline_app, trunkline_reader;
