-- The audit: every decision and every outcome, as they stand on their topics, with their place
-- there. Nothing in it is ever changed: the application's role cannot, and a trigger refuses
-- everybody else.

CREATE SCHEMA audit;

CREATE TABLE audit.decision_log (
    decision_id       uuid        PRIMARY KEY,
    loop              text        NOT NULL,
    key               text        NOT NULL,
    sequence          bigint      NOT NULL,
    mode              text        NOT NULL,
    decided_at        timestamptz NOT NULL,
    event_time        timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL,
    action            text        NOT NULL,
    reason            text        NOT NULL,
    parameters        jsonb       NOT NULL,
    inputs            jsonb       NOT NULL,
    policy            text        NOT NULL,
    policy_version    bigint      NOT NULL,
    policy_hash       text        NOT NULL,
    settings_revision bigint      NOT NULL,
    cause_ids         jsonb       NOT NULL,
    topic             text        NOT NULL,
    partition         integer     NOT NULL,
    "offset"          bigint      NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (topic, partition, "offset")
);
-- Newest first, over all and per loop or key; and the search for holes.
CREATE INDEX decision_log_newest ON audit.decision_log (decided_at DESC, decision_id DESC);
CREATE INDEX decision_log_newest_of_key ON audit.decision_log (key, decided_at DESC, decision_id DESC);
CREATE INDEX decision_log_sequence ON audit.decision_log (loop, key, sequence);

CREATE TABLE audit.outcome_log (
    decision_id  uuid        PRIMARY KEY,
    loop         text        NOT NULL,
    key          text        NOT NULL,
    sequence     bigint      NOT NULL,
    status       text        NOT NULL,
    reason       text        NOT NULL,
    attempts     bigint      NOT NULL,
    http_status  integer,
    request      jsonb,
    response     jsonb,
    requested_at timestamptz,
    finished_at  timestamptz NOT NULL,
    effect       jsonb,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    "offset"     bigint      NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (topic, partition, "offset")
);

CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit.% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.decision_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.outcome_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

-- Where each consumer reads on. Written in the same transaction as the rows, on the condition
-- that it still is what the writer last saw.
CREATE TABLE audit.positions (
    consumer    text        NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    next_offset bigint      NOT NULL CHECK (next_offset >= 0),
    moved_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, topic, partition)
);

CREATE VIEW audit.decisions AS
SELECT decision_id, loop, key, sequence, mode, decided_at, event_time, action, reason, inputs, policy,
       policy_version, policy_hash, settings_revision, topic, partition, "offset", parameters, cause_ids,
       expires_at, recorded_at
FROM audit.decision_log;

CREATE VIEW audit.outcomes AS
SELECT decision_id, status, attempts, http_status, request, response, requested_at, finished_at, loop, key,
       sequence, reason, effect, topic, partition, "offset", recorded_at
FROM audit.outcome_log;

-- Window, rule, request and reply of every decision side by side; one without an outcome yet has
-- NULL for status and all that follows.
CREATE VIEW audit.explained AS
SELECT d.decision_id, d.loop, d.key, d.sequence, d.mode, d.decided_at, d.event_time, d.action, d.reason,
       d.parameters,
       d.inputs AS "window",
       d.policy || ' v' || d.policy_version || ' (' || d.policy_hash || ')' AS rule,
       o.status, o.reason AS outcome_reason, o.attempts, o.http_status, o.request,
       o.response AS reply, o.effect, o.requested_at, o.finished_at,
       d.inputs, d.policy, d.policy_version, d.policy_hash, d.settings_revision, o.response, d.cause_ids,
       d.expires_at, d.topic, d.partition, d."offset"
FROM audit.decision_log d
LEFT JOIN audit.outcome_log o USING (decision_id);

-- Answers and abandonments per campaign and UTC day, counted once per window: each window holds
-- what happened since the one before. Over the cap: more than 3 % abandoned, compared in whole calls.
CREATE VIEW audit.campaign_compliance AS
SELECT campaign_id, day, answered, abandoned,
       CASE WHEN answered > 0 THEN abandoned::float8 / answered END AS abandonment_rate,
       abandoned * 100 > answered * 3 AS over_cap
FROM (
    SELECT key AS campaign_id,
           (event_time AT TIME ZONE 'UTC')::date AS day,
           coalesce(sum(CASE WHEN jsonb_typeof(inputs -> 'answered') = 'number'
                             THEN (inputs ->> 'answered')::numeric END), 0)::bigint AS answered,
           coalesce(sum(CASE WHEN jsonb_typeof(inputs -> 'abandoned') = 'number'
                             THEN (inputs ->> 'abandoned')::numeric END), 0)::bigint AS abandoned
    FROM audit.decision_log
    WHERE loop = 'dial'
    GROUP BY 1, 2
) AS counted;

-- One row per hole: sequences count from 1, so a missing beginning is a hole as well.
CREATE VIEW audit.gaps AS
SELECT loop, key, previous + 1 AS missing_from, sequence - 1 AS missing_to,
       sequence - 1 - previous AS missing
FROM (
    SELECT loop, key, sequence,
           lag(sequence, 1, 0::bigint) OVER (PARTITION BY loop, key ORDER BY sequence) AS previous
    FROM audit.decision_log
) AS steps
WHERE sequence > previous + 1;

GRANT USAGE ON SCHEMA trunkline, audit TO trunkline_app;
GRANT SELECT ON trunkline.migrations TO trunkline_app;
GRANT INSERT, SELECT ON audit.decision_log, audit.outcome_log TO trunkline_app;
GRANT INSERT, SELECT, UPDATE ON audit.positions TO trunkline_app;

GRANT USAGE ON SCHEMA audit TO trunkline_reader;
GRANT SELECT ON audit.decisions, audit.outcomes, audit.explained, audit.campaign_compliance, audit.gaps
    TO trunkline_app, trunkline_reader;
