-- What was set aside and why, as it stands on the topic of dead letters, and what of it was sent on
-- its way again. Like all of the audit it only grows.

CREATE TABLE audit.dead_letter_log (
    -- Its place on the topic of dead letters: partition and offset are the id people use.
    dead_letter_topic text    NOT NULL,
    partition         integer NOT NULL,
    "offset"          bigint  NOT NULL,
    stage             text    NOT NULL,
    reason            text    NOT NULL,
    -- Where it was read; NULL where its headers do not tell.
    source_topic      text,
    source_partition  integer,
    source_offset     bigint,
    set_aside_at      timestamptz NOT NULL,
    key               bytea,
    value             bytea,
    -- [[name, value], …] without those that tell why; what is no text stands as {"hex": "…"}.
    headers           jsonb   NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dead_letter_topic, partition, "offset")
);
CREATE INDEX dead_letter_log_newest ON audit.dead_letter_log (set_aside_at DESC);
CREATE INDEX dead_letter_log_source ON audit.dead_letter_log (source_topic, source_partition, source_offset);

-- One row per record that was sent again, whichever of its copies among the dead letters was named:
-- all its readers get it.
CREATE TABLE audit.redrive_log (
    dead_letter_topic text    NOT NULL,
    partition         integer NOT NULL,
    "offset"          bigint  NOT NULL,
    source_topic      text    NOT NULL,
    source_partition  integer NOT NULL,
    source_offset     bigint  NOT NULL,
    who               text    NOT NULL,
    redriven_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_topic, source_partition, source_offset)
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.dead_letter_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.redrive_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

-- Bytes for people: as text where they are UTF-8, else in hexadecimal digits after \x.
CREATE FUNCTION audit.readable(bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN OTHERS THEN
    RETURN bytes::text;
END
$$;

CREATE VIEW audit.dead_letters AS
SELECT d.partition || '/' || d."offset" AS id, d.stage, d.reason,
       d.source_topic AS topic, d.source_partition AS partition, d.source_offset AS "offset", d.set_aside_at,
       audit.readable(d.key) AS key, audit.readable(d.value) AS value, octet_length(d.value) AS value_bytes,
       d.headers, d.key AS original_key, d.value AS original_value, r.redriven_at, r.who AS redriven_by,
       d.dead_letter_topic, d.recorded_at
FROM audit.dead_letter_log d
LEFT JOIN audit.redrive_log r
       ON r.source_topic = d.source_topic AND r.source_partition = d.source_partition
      AND r.source_offset = d.source_offset;

GRANT INSERT, SELECT ON audit.dead_letter_log, audit.redrive_log TO trunkline_app;
GRANT SELECT ON audit.dead_letters TO trunkline_app, trunkline_reader;
