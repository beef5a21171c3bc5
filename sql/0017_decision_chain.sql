-- How the value of each decision came to be, and what another policy would have decided in its place.

INSERT INTO trunkline.compatibility VALUES (17, 16);

-- One row per decision and limit, in the order in which they were asked; the limit that bound is
-- marked. Decisions of older programs have no rows.
CREATE VIEW audit.decision_chain AS
SELECT d.decision_id, d.loop, d.key, d.sequence, d.mode, d.decided_at, d.event_time, d.action, d.reason,
       (c.chain ->> 'raw')::float8 AS raw,
       l.step::integer AS step,
       l.limited ->> 'limit' AS limit_name,
       (l.limited ->> 'value')::float8 AS value_after,
       coalesce(l.limited ->> 'limit' = c.chain ->> 'bound', false) AS bound
FROM audit.decision_log d
CROSS JOIN LATERAL (SELECT d.parameters -> 'chain' AS chain) AS c
CROSS JOIN LATERAL jsonb_array_elements(
    CASE WHEN jsonb_typeof(c.chain -> 'limits') = 'array' THEN c.chain -> 'limits' ELSE '[]' END
) WITH ORDINALITY AS l(limited, step);

-- What the shadow policy answered to the same inputs, beside what was decided.
CREATE VIEW audit.shadow_decisions AS
SELECT d.decision_id, d.key AS campaign_id, d.sequence, 'shadow'::text AS mode, d.decided_at, d.event_time,
       s.shadow ->> 'policy' AS policy,
       (s.shadow ->> 'policyVersion')::bigint AS policy_version,
       s.shadow ->> 'policyHash' AS policy_hash,
       (d.parameters ->> 'previousDialRate')::float8 AS previous_dial_rate,
       (s.shadow ->> 'dialRate')::float8 AS dial_rate,
       s.shadow ->> 'reason' AS reason,
       d.mode AS live_mode, d.policy AS live_policy, d.policy_version AS live_policy_version,
       d.policy_hash AS live_policy_hash,
       (d.parameters ->> 'dialRate')::float8 AS live_dial_rate,
       d.reason AS live_reason,
       (s.shadow ->> 'dialRate')::float8 - (d.parameters ->> 'dialRate')::float8 AS difference,
       s.shadow -> 'chain' AS chain
FROM audit.decision_log d
CROSS JOIN LATERAL (SELECT d.parameters -> 'shadow' AS shadow) AS s
WHERE d.loop = 'dial' AND jsonb_typeof(s.shadow) = 'object';

GRANT SELECT ON audit.decision_chain, audit.shadow_decisions TO trunkline_app, trunkline_reader;
