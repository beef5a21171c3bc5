-- Weighted distribution. What must stay exact over all instances stands in one row per
-- configuration; every answer is a row before it is given, and waits here to be told to the audit.

CREATE TABLE trunkline.route_drafts (
    configuration_id text        PRIMARY KEY,
    definition       jsonb       NOT NULL,
    saved_by         text        NOT NULL,
    saved_at         timestamptz NOT NULL DEFAULT now()
);

-- What was in force, never changed: decisions name the revision they were taken under.
CREATE TABLE trunkline.route_revisions (
    configuration_id text        NOT NULL,
    revision         bigint      NOT NULL CHECK (revision >= 1),
    definition       jsonb       NOT NULL,
    published_by     text        NOT NULL,
    published_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (configuration_id, revision)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trunkline.route_revisions
    FOR EACH STATEMENT EXECUTE FUNCTION trunkline.refuse_change();

CREATE TABLE trunkline.route_counters (
    -- Stands for configuration_id in the larger tables.
    configuration    integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    configuration_id text    PRIMARY KEY,
    -- Revision in force.
    revision         bigint  NOT NULL,
    -- Raised by every block of decisions and every publication: who knows an older one knows too little.
    turn             bigint  NOT NULL DEFAULT 0,
    -- Decisions so far, which is the last one's sequence.
    decisions        bigint  NOT NULL DEFAULT 0,
    -- {destination: [deficit in billionths of an interaction, decisions]}
    groups           jsonb   NOT NULL DEFAULT '{}'
)
-- The few rows change with every block: room for their next versions beside them.
WITH (fillfactor = 10);

-- One row per block of decisions: what they were taken from.
CREATE TABLE trunkline.route_turns (
    configuration     integer NOT NULL,
    first_sequence    bigint  NOT NULL,
    revision          bigint  NOT NULL,
    settings_revision bigint  NOT NULL,
    -- [[destination, share, deficit before the first decision], …], both in billionths
    groups            jsonb   NOT NULL,
    PRIMARY KEY (configuration, first_sequence)
);

-- One row per conversation: who asks again gets it again.
CREATE TABLE trunkline.route_answers (
    configuration   integer NOT NULL,
    conversation_id text    NOT NULL,
    sequence        bigint  NOT NULL,
    destination_id  text    NOT NULL,
    revision        bigint  NOT NULL,
    source          text    NOT NULL,
    reason          text    NOT NULL,
    decided_at_ms   bigint  NOT NULL,
    PRIMARY KEY (configuration, conversation_id)
);
CREATE UNIQUE INDEX route_answers_in_order ON trunkline.route_answers (configuration, sequence);

-- How far each configuration's answers have gone to the outbox.
CREATE TABLE trunkline.route_records (
    configuration integer PRIMARY KEY,
    sequence      bigint  NOT NULL
);

-- What was asked of the platform about a revision, and what came of it.
CREATE TABLE trunkline.route_publications (
    id               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    configuration_id text        NOT NULL,
    revision         bigint      NOT NULL,
    -- intent, then applied or failed
    step             text        NOT NULL,
    content          jsonb       NOT NULL,
    noted_at         timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trunkline.route_publications
    FOR EACH STATEMENT EXECUTE FUNCTION trunkline.refuse_change();

-- Shares as the audit has them. `target_share` is the mean of what each decision's own weights
-- said, and `deviation` is in interactions: decisions by share less those due.
CREATE VIEW audit.route_shares AS
WITH taken AS (
    SELECT key AS configuration_id, parameters ->> 'destinationId' AS destination_id, count(*) AS decisions,
           count(*) FILTER (WHERE reason = 'share') AS by_share
    FROM audit.decision_log WHERE loop = 'route' GROUP BY 1, 2
), due AS (
    SELECT d.key AS configuration_id, g.value ->> 'destinationId' AS destination_id,
           sum((g.value ->> 'shareBillionths')::numeric) AS due
    FROM audit.decision_log d, jsonb_array_elements(d.inputs -> 'groups') AS g
    WHERE d.loop = 'route' AND d.reason = 'share' GROUP BY 1, 2
), totals AS (
    SELECT configuration_id, sum(decisions) AS decisions, sum(by_share) AS by_share FROM taken GROUP BY 1
)
SELECT configuration_id, destination_id,
       coalesce(taken.decisions, 0) AS decisions,
       (coalesce(taken.decisions, 0) / totals.decisions)::float8 AS share,
       (coalesce(due.due, 0) / 1000000000 / nullif(totals.by_share, 0))::float8 AS target_share,
       (coalesce(taken.by_share, 0) - coalesce(due.due, 0) / 1000000000)::float8 AS deviation
FROM taken FULL JOIN due USING (configuration_id, destination_id) JOIN totals USING (configuration_id);

GRANT INSERT, SELECT, UPDATE, DELETE ON trunkline.route_drafts TO trunkline_app;
GRANT INSERT, SELECT ON trunkline.route_revisions, trunkline.route_publications TO trunkline_app;
GRANT INSERT, SELECT, UPDATE ON trunkline.route_counters, trunkline.route_records TO trunkline_app;
GRANT INSERT, SELECT, DELETE ON trunkline.route_turns, trunkline.route_answers TO trunkline_app;
GRANT SELECT ON audit.route_shares TO trunkline_app, trunkline_reader;
