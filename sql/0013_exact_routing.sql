-- Shares and deficits are whole parts of an interaction, and how many parts one has is a multiple of
-- the weights' sum: nothing is rounded. What was counted until now was in billionths.

ALTER TABLE trunkline.route_counters ADD COLUMN unit bigint NOT NULL DEFAULT 1000000000 CHECK (unit > 0);
COMMENT ON COLUMN trunkline.route_counters.groups IS
    '{destination: [deficit in parts of an interaction, decisions]}; an interaction has unit parts';
ALTER TABLE trunkline.route_turns ADD COLUMN unit bigint NOT NULL DEFAULT 1000000000 CHECK (unit > 0);

-- Answers that were given anew because their group had been removed, until the audit has been told
-- of the old ones.
CREATE TABLE trunkline.route_superseded (
    LIKE trunkline.route_answers,
    PRIMARY KEY (configuration, sequence)
);
GRANT INSERT, SELECT, DELETE ON trunkline.route_superseded TO trunkline_app;

-- As before, in each decision's own unit.
CREATE OR REPLACE VIEW audit.route_shares AS
WITH taken AS (
    SELECT key AS configuration_id, parameters ->> 'destinationId' AS destination_id, count(*) AS decisions,
           count(*) FILTER (WHERE reason = 'share') AS by_share
    FROM audit.decision_log WHERE loop = 'route' GROUP BY 1, 2
), parts AS (
    SELECT d.key AS configuration_id, g.value ->> 'destinationId' AS destination_id,
           coalesce((d.inputs ->> 'unit')::numeric, 1000000000) AS unit,
           sum(coalesce(g.value ->> 'share', g.value ->> 'shareBillionths')::numeric) AS due
    FROM audit.decision_log d, jsonb_array_elements(d.inputs -> 'groups') AS g
    WHERE d.loop = 'route' AND d.reason = 'share' GROUP BY 1, 2, 3
), due AS (
    SELECT configuration_id, destination_id, sum(due / unit) AS due FROM parts GROUP BY 1, 2
), totals AS (
    SELECT configuration_id, sum(decisions) AS decisions, sum(by_share) AS by_share FROM taken GROUP BY 1
)
SELECT configuration_id, destination_id,
       coalesce(taken.decisions, 0) AS decisions,
       (coalesce(taken.decisions, 0) / totals.decisions)::float8 AS share,
       (coalesce(due.due, 0) / nullif(totals.by_share, 0))::float8 AS target_share,
       (coalesce(taken.by_share, 0) - coalesce(due.due, 0))::float8 AS deviation
FROM taken FULL JOIN due USING (configuration_id, destination_id) JOIN totals USING (configuration_id);
