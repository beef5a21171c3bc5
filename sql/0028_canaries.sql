-- Canaries of flows. What share the candidate has stands in the very row that all instances of routing
-- count in: whoever writes a block of decisions after a change of it has seen it.

CREATE TABLE trunkline.canaries (
    canary_id        text        PRIMARY KEY,
    configuration_id text        NOT NULL,
    control_id       text        NOT NULL,
    candidate_id     text        NOT NULL,
    -- Shares of the candidate, rising, 0-1.
    steps            float8[]    NOT NULL,
    hold_minutes     integer     NOT NULL,
    state            text        NOT NULL,
    -- From 1; 0 before the first.
    step             integer     NOT NULL DEFAULT 0,
    share            float8      NOT NULL DEFAULT 0 CHECK (share BETWEEN 0 AND 1),
    -- What was decided last, and why.
    decision_id      uuid,
    -- The decision that publishes it.
    promotion_id     uuid UNIQUE,
    reason           text        NOT NULL,
    evidence         float8      NOT NULL DEFAULT 1,
    missing          jsonb,
    started_by       text        NOT NULL,
    started_at       timestamptz NOT NULL DEFAULT now(),
    changed_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX canaries_configuration ON trunkline.canaries (configuration_id, started_at DESC);
-- One at a time has a configuration.
CREATE UNIQUE INDEX canaries_under_way ON trunkline.canaries (configuration_id)
    WHERE state IN ('planned', 'running', 'promoting');

-- {canaryId, controlId, candidateId, candidateParts, revision}: stands for the configuration's rules.
ALTER TABLE trunkline.route_counters ADD COLUMN canary jsonb;

GRANT INSERT, SELECT, UPDATE ON trunkline.canaries TO trunkline_app;
GRANT SELECT ON trunkline.canaries TO trunkline_reader;
