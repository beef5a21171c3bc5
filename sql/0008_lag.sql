-- How each consumer group is after its newest poll, so that any instance can say it. What led to
-- a change of status is in the audit; this is only the present.

CREATE TABLE trunkline.lag_status (
    consumer_group text        PRIMARY KEY,
    observed_at    timestamptz NOT NULL,
    -- After this nobody can say how the group is.
    valid_until    timestamptz NOT NULL,
    status         text        NOT NULL,
    -- The whole evaluation, as on its topic.
    evaluation     jsonb       NOT NULL
)
-- Every row changes with every poll: room for its next version beside it.
WITH (fillfactor = 50);

CREATE VIEW audit.lag_status AS
SELECT consumer_group, observed_at, valid_until,
       CASE WHEN valid_until < now() THEN 'UNKNOWN' ELSE status END AS status,
       (evaluation ->> 'lag')::bigint AS lag,
       (evaluation ->> 'ageSeconds')::float8 AS age_seconds,
       (evaluation ->> 'members')::bigint AS members,
       (evaluation ->> 'replicas')::bigint AS replicas,
       evaluation
FROM trunkline.lag_status;

GRANT INSERT, SELECT, UPDATE, DELETE ON trunkline.lag_status TO trunkline_app;
GRANT SELECT ON audit.lag_status TO trunkline_app, trunkline_reader;
