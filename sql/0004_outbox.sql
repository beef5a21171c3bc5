-- Messages for topics, written in the same transaction as what they tell of. The role `outbox`
-- publishes them in the order of their ids and deletes them.

CREATE TABLE trunkline.outbox (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Without the installation's prefix.
    topic       text        NOT NULL,
    key         bytea,
    value       bytea,
    -- [[name, value], …]; what is no text stands as {"hex": "…"}.
    headers     jsonb       NOT NULL DEFAULT '[]',
    -- Whether the topic's own headers are added where they are missing.
    described   boolean     NOT NULL DEFAULT true,
    appended_at timestamptz NOT NULL DEFAULT now(),
    CHECK (coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0) <= 16 * 1024 * 1024)
);

-- Keys of messages that must not be appended twice; they outlive their messages.
CREATE TABLE trunkline.outbox_keys (
    dedupe_key  text        PRIMARY KEY,
    appended_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_keys_oldest ON trunkline.outbox_keys (appended_at);

-- Which outbox this is: the mark of what is published, kept in Kafka, belongs to one of them and
-- counts for no other.
CREATE TABLE trunkline.outbox_identity (
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
CREATE UNIQUE INDEX outbox_identity_is_one ON trunkline.outbox_identity ((true));
INSERT INTO trunkline.outbox_identity DEFAULT VALUES;

-- Ids are given out before their rows can be seen, and a later one may be seen first. So whoever
-- appends announces before taking an id that all its ids will be above the last one given out: an
-- advisory lock of the transaction, whose number is that id. It ends with the transaction.
CREATE FUNCTION trunkline.announce_append() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
BEGIN
    IF coalesce(current_setting('trunkline.append_announced', true), '') = '' THEN
        SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END INTO last
        FROM trunkline.outbox_id_seq;
        PERFORM pg_advisory_xact_lock_shared((7631477::bigint << 40) + last);
        PERFORM set_config('trunkline.append_announced', 'yes', true);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER announce_append BEFORE INSERT ON trunkline.outbox
    FOR EACH STATEMENT EXECUTE FUNCTION trunkline.announce_append();

-- Every row up to this id can be seen by the next statement, or never will be. The order matters:
-- an id given out before the first step was announced before it, so the second one finds it.
CREATE FUNCTION trunkline.outbox_settled() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
    announced bigint;
BEGIN
    SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END INTO last
    FROM trunkline.outbox_id_seq;
    SELECT min(((classid::bigint << 32) | objid::bigint) - (7631477::bigint << 40)) INTO announced
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 8 = 7631477
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
    RETURN LEAST(last, announced);
END
$$;

GRANT INSERT, SELECT, DELETE ON trunkline.outbox, trunkline.outbox_keys TO trunkline_app;
GRANT SELECT ON SEQUENCE trunkline.outbox_id_seq TO trunkline_app;
GRANT SELECT ON trunkline.outbox_identity TO trunkline_app;
