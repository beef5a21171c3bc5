-- A topic that is deleted and made again has the same name and begins at offset 0: it is another
-- topic. Positions and places say which one they are of, by the id the brokers gave it; what was
-- stored before this has none.

ALTER TABLE audit.positions ADD COLUMN topic_id uuid;

ALTER TABLE audit.decision_log ADD COLUMN topic_id uuid;
ALTER TABLE audit.decision_log DROP CONSTRAINT decision_log_topic_partition_offset_key,
    ADD CONSTRAINT decision_log_place UNIQUE (topic_id, partition, "offset");
ALTER TABLE audit.outcome_log ADD COLUMN topic_id uuid;
ALTER TABLE audit.outcome_log DROP CONSTRAINT outcome_log_topic_partition_offset_key,
    ADD CONSTRAINT outcome_log_place UNIQUE (topic_id, partition, "offset");
ALTER TABLE audit.alert_log ADD COLUMN topic_id uuid;

-- Part of keys, so all zeros where it is not known.
ALTER TABLE audit.dead_letter_log
    ADD COLUMN dead_letter_topic_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD COLUMN source_topic_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
ALTER TABLE audit.dead_letter_log DROP CONSTRAINT dead_letter_log_pkey,
    ADD PRIMARY KEY (dead_letter_topic, dead_letter_topic_id, partition, "offset");
ALTER TABLE audit.redrive_log
    ADD COLUMN dead_letter_topic_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD COLUMN source_topic_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
ALTER TABLE audit.redrive_log DROP CONSTRAINT redrive_log_pkey,
    ADD PRIMARY KEY (source_topic, source_topic_id, source_partition, source_offset);

CREATE OR REPLACE VIEW audit.decisions AS
SELECT decision_id, loop, key, sequence, mode, decided_at, event_time, action, reason, inputs, policy,
       policy_version, policy_hash, settings_revision, topic, partition, "offset", parameters, cause_ids,
       expires_at, recorded_at, topic_id
FROM audit.decision_log;

CREATE OR REPLACE VIEW audit.outcomes AS
SELECT decision_id, status, attempts, http_status, request, response, requested_at, finished_at, loop, key,
       sequence, reason, effect, topic, partition, "offset", recorded_at, topic_id
FROM audit.outcome_log;

CREATE OR REPLACE VIEW audit.dead_letters AS
SELECT d.partition || '/' || d."offset" AS id, d.stage, d.reason,
       d.source_topic AS topic, d.source_partition AS partition, d.source_offset AS "offset", d.set_aside_at,
       audit.readable(d.key) AS key, audit.readable(d.value) AS value, octet_length(d.value) AS value_bytes,
       d.headers, d.key AS original_key, d.value AS original_value, r.redriven_at, r.who AS redriven_by,
       d.dead_letter_topic, d.recorded_at, d.dead_letter_topic_id, d.source_topic_id AS topic_id
FROM audit.dead_letter_log d
-- Whichever copy of a record was named: one of them may not know which topic it was.
LEFT JOIN LATERAL (
    SELECT * FROM audit.redrive_log r
    WHERE r.source_topic = d.source_topic AND r.source_partition = d.source_partition
      AND r.source_offset = d.source_offset
      AND (r.source_topic_id = d.source_topic_id
           OR '00000000-0000-0000-0000-000000000000' IN (r.source_topic_id, d.source_topic_id))
    ORDER BY r.redriven_at DESC LIMIT 1
) r ON true;

-- Which programs may go on working while a newer one has migrated the database: those whose newest
-- migration is `oldest` or later. A migration without a row here stops all that do not know it.
CREATE TABLE trunkline.compatibility (
    version bigint PRIMARY KEY,
    oldest  bigint NOT NULL CHECK (oldest <= version)
);
GRANT SELECT ON trunkline.compatibility TO trunkline_app;
INSERT INTO trunkline.compatibility VALUES (12, 10);
