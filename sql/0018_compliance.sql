-- Compliance of campaigns: what each call counts as, and the figures made of it. Both are only
-- added to: a call that is found to be otherwise is a new revision, a figure that is restated
-- stands beside the one that was known.

CREATE TABLE audit.call_log (
    conversation_id text        NOT NULL,
    revision        integer     NOT NULL CHECK (revision >= 1),
    campaign_id     text        NOT NULL,
    -- The moment that decides which windows it counts in.
    counted_at      timestamptz NOT NULL,
    disposition     text        NOT NULL,
    -- Of an abandoned call: what the called person heard.
    heard           text,
    -- Whether the platform's own figure counts it as abandoned; NULL where it reached no queue.
    queue_abandoned boolean,
    -- The facts it was judged by, and the rules.
    facts           jsonb       NOT NULL,
    rules           jsonb       NOT NULL,
    -- When the platform gave its details.
    looked_up_at    timestamptz NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (conversation_id, revision)
);
CREATE INDEX call_log_campaign ON audit.call_log (campaign_id, counted_at);
CREATE INDEX call_log_recorded ON audit.call_log (recorded_at);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.call_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

CREATE TABLE audit.compliance_figure_log (
    campaign_id  text        NOT NULL,
    figure       text        NOT NULL,
    "window"     text        NOT NULL,
    window_start timestamptz NOT NULL,
    window_end   timestamptz NOT NULL,
    statement    text        NOT NULL CHECK (statement IN ('known', 'restated')),
    day          date        NOT NULL,
    time_zone    text        NOT NULL,
    source       text        NOT NULL,
    -- Calls answered by a person in this window, and those of them that were abandoned.
    answered     bigint,
    abandoned    bigint,
    -- Of this figure; NULL where it is not known.
    numerator    float8,
    denominator  float8,
    rate         float8,
    not_known    text,
    cap          float8      NOT NULL,
    over_cap     boolean,
    -- The counts it was made of, and the terms.
    counts       jsonb       NOT NULL,
    terms        jsonb       NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, figure, "window", window_start, window_end, statement),
    CHECK ((rate IS NULL) = (not_known IS NOT NULL))
);
CREATE INDEX compliance_figure_log_day ON audit.compliance_figure_log (campaign_id, day);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.compliance_figure_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

-- Windows that are open: the figures as they are now.
CREATE TABLE trunkline.compliance_open (
    LIKE audit.compliance_figure_log INCLUDING DEFAULTS,
    PRIMARY KEY (campaign_id, "window", window_start, figure),
    CHECK (statement = 'so_far')
);

-- Campaigns that are counted, and how far.
CREATE TABLE trunkline.compliance_campaigns (
    campaign_id    text        PRIMARY KEY,
    -- A moment of its first day.
    began_at       timestamptz NOT NULL,
    -- Windows that ended by then are stated as known, and as restated.
    known_upto     timestamptz NOT NULL,
    restated_upto  timestamptz NOT NULL,
    -- Calls up to this one have been looked up again.
    again_upto     timestamptz NOT NULL,
    again_after_id text        NOT NULL DEFAULT ''
);

-- Windows of a campaign's counters, by the times of its statistics.
CREATE INDEX decision_log_dial_events ON audit.decision_log (key, event_time) WHERE loop = 'dial';

-- Each call as its last revision has it.
CREATE VIEW audit.calls AS
SELECT c.conversation_id, c.campaign_id, c.counted_at, c.disposition, c.heard, c.queue_abandoned,
       (c.facts ->> 'placedAt')::timestamptz AS placed_at, (c.facts ->> 'answeredAt')::timestamptz AS answered_at,
       (c.facts ->> 'queuedAt')::timestamptz AS queued_at, (c.facts ->> 'agentAt')::timestamptz AS agent_at,
       (c.facts ->> 'endedAt')::timestamptz AS ended_at, c.facts ->> 'fromNumber' AS from_number,
       c.facts ->> 'toNumber' AS to_number, c.facts, c.rules, c.revision, c.looked_up_at, c.recorded_at
FROM audit.call_log c
WHERE NOT EXISTS (SELECT FROM audit.call_log l
                  WHERE l.conversation_id = c.conversation_id AND l.revision > c.revision);

-- What a campaign's statistics counted, once per poll however many decisions were made on it.
-- Without a number it is not counted.
CREATE VIEW audit.campaign_counts AS
SELECT DISTINCT ON (key, event_time) key AS campaign_id, event_time,
       CASE WHEN jsonb_typeof(inputs -> 'attempted') = 'number' THEN (inputs ->> 'attempted')::numeric END AS attempted,
       CASE WHEN jsonb_typeof(inputs -> 'answered') = 'number' THEN (inputs ->> 'answered')::numeric END AS answered,
       CASE WHEN jsonb_typeof(inputs -> 'abandoned') = 'number' THEN (inputs ->> 'abandoned')::numeric END AS abandoned
FROM audit.decision_log
WHERE loop = 'dial'
ORDER BY key, event_time, sequence;

-- Five figures of five windows, so far, as known and as restated. Days that no figures are kept for
-- (the role `compliance` does not run) are counted from the ledger, by UTC and a cap of 3 %.
CREATE OR REPLACE VIEW audit.campaign_compliance AS
SELECT campaign_id, day, answered, abandoned,
       CASE WHEN figure IN ('live_answer', 'platform', 'uk_form') THEN rate END AS abandonment_rate, over_cap,
       figure, "window", window_start, window_end, statement, source, numerator, denominator, rate, cap,
       not_known, time_zone, counts, terms, recorded_at
FROM (SELECT * FROM audit.compliance_figure_log UNION ALL SELECT * FROM trunkline.compliance_open) AS kept
UNION ALL
SELECT campaign_id, day, answered, abandoned, rate, abandoned * 100 > answered * 3,
       'live_answer', 'day', day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC',
       'so_far', 'counters', abandoned::float8, answered::float8, rate, 0.03,
       CASE WHEN answered IS NULL OR abandoned IS NULL
                THEN 'the platform''s statistics count no answers and abandoned answers'
            WHEN answered = 0 THEN 'no call was answered by a person in this window' END,
       'UTC', jsonb_build_object('answers', answered, 'abandoned', abandoned), '{}'::jsonb, NULL
FROM (
    SELECT campaign_id, day, answered, abandoned,
           CASE WHEN answered > 0 THEN abandoned::float8 / answered END AS rate
    FROM (
        SELECT campaign_id, (event_time AT TIME ZONE 'UTC')::date AS day,
               sum(answered)::bigint AS answered, sum(abandoned)::bigint AS abandoned
        FROM audit.campaign_counts GROUP BY 1, 2
    ) AS summed
) AS counted
WHERE NOT EXISTS (SELECT FROM audit.compliance_figure_log f
                  WHERE f.campaign_id = counted.campaign_id AND f.day = counted.day AND f."window" = 'day')
  AND NOT EXISTS (SELECT FROM trunkline.compliance_open f
                  WHERE f.campaign_id = counted.campaign_id AND f.day = counted.day AND f."window" = 'day');

-- Records of campaigns end with their retention. Who may delete nothing may ask for that; a
-- sequence begins after what is gone.
CREATE TABLE trunkline.pruned_sequences (
    loop     text   NOT NULL,
    key      text   NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (loop, key)
);

CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('trunkline.pruning', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit.% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE FUNCTION audit.prune_campaign_records(kept_for interval, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    before  timestamptz := now() - kept_for;
    gone    bigint;
    deleted bigint;
BEGIN
    IF kept_for < interval '30 days' THEN
        RAISE EXCEPTION 'records of campaigns are kept for 30 days at least, not %', kept_for;
    END IF;
    SET LOCAL trunkline.pruning = 'on';
    DELETE FROM audit.call_log c USING (
        SELECT conversation_id, revision FROM audit.call_log WHERE recorded_at < before ORDER BY recorded_at LIMIT most
    ) AS old WHERE c.conversation_id = old.conversation_id AND c.revision = old.revision;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM audit.compliance_figure_log WHERE recorded_at < before AND ctid = ANY (ARRAY(
        SELECT ctid FROM audit.compliance_figure_log WHERE recorded_at < before LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    deleted := deleted + gone;
    -- From the beginning of each sequence on, so that no hole is made.
    WITH old AS (
        SELECT decision_id, key, sequence FROM audit.decision_log
        WHERE loop = 'dial' AND decided_at < before ORDER BY decided_at, sequence LIMIT most
    ), outcomes AS (
        DELETE FROM audit.outcome_log o USING old WHERE o.decision_id = old.decision_id
    ), ends AS (
        INSERT INTO trunkline.pruned_sequences AS known (loop, key, sequence)
        SELECT 'dial', key, max(sequence) FROM old GROUP BY key
        ON CONFLICT (loop, key) DO UPDATE SET sequence = greatest(known.sequence, excluded.sequence)
    )
    DELETE FROM audit.decision_log d USING old WHERE d.decision_id = old.decision_id;
    GET DIAGNOSTICS gone = ROW_COUNT;
    SET LOCAL trunkline.pruning = 'off';
    RETURN deleted + gone;
END
$$;
REVOKE ALL ON FUNCTION audit.prune_campaign_records FROM PUBLIC;

CREATE OR REPLACE VIEW audit.gaps AS
SELECT loop, key, previous + 1 AS missing_from, sequence - 1 AS missing_to,
       sequence - 1 - previous AS missing
FROM (
    SELECT d.loop, d.key, d.sequence,
           lag(d.sequence, 1, coalesce(p.sequence, 0)) OVER (PARTITION BY d.loop, d.key ORDER BY d.sequence) AS previous
    FROM audit.decision_log d
    LEFT JOIN trunkline.pruned_sequences p ON p.loop = d.loop AND p.key = d.key
) AS steps
WHERE sequence > previous + 1;

GRANT INSERT, SELECT ON audit.call_log, audit.compliance_figure_log TO trunkline_app;
GRANT INSERT, SELECT, UPDATE, DELETE ON trunkline.compliance_open TO trunkline_app;
GRANT INSERT, SELECT, UPDATE ON trunkline.compliance_campaigns TO trunkline_app;
GRANT EXECUTE ON FUNCTION audit.prune_campaign_records TO trunkline_app;
GRANT SELECT ON audit.calls, audit.campaign_counts TO trunkline_app, trunkline_reader;
INSERT INTO trunkline.compatibility VALUES (18, 16);
