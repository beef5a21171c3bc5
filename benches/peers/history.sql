-- Decisions of `months` months up to now, spread evenly, each with its outcome: of ten, eight of a thousand campaigns
-- and one each of fifty flows and of thirty consumer groups.
SELECT audit.make_month(now() - n * interval '1 month') FROM generate_series(0, :months) AS n;
UPDATE trunkline.audit_months SET since = audit.month_of(now() - :months * interval '1 month');

CREATE TEMP VIEW history AS
SELECT n,
       CASE n % 10 WHEN 0 THEN 'rollback' WHEN 1 THEN 'lag' ELSE 'dial' END AS loop,
       CASE n % 10 WHEN 0 THEN 'flow-' || n / 10 % 50 WHEN 1 THEN 'group-' || n / 10 % 30
                   ELSE 'campaign-' || lpad((n / 10 * 8 + n % 10 - 2)::bigint % 1000 || '', 4, '0') END AS key,
       now() - (:decisions - n)::float8 / :decisions * :months * interval '30 days' AS at
FROM generate_series(:from, :upto) AS n;

INSERT INTO audit.decision_log (decision_id, loop, key, sequence, mode, decided_at, event_time, expires_at, action, reason,
    parameters, inputs, policy, policy_version, policy_hash, settings_revision, cause_ids, topic, partition, "offset", topic_id)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8' || lpad(to_hex(n), 19, '0'))::uuid, loop, key, n,
       'live', at, at, at + interval '1 minute', CASE loop WHEN 'dial' THEN 'set_dial_rate' ELSE 'hold' END, 'within_limits',
       jsonb_build_object('previousDialRate', 2.0, 'dialRate', 2.0 + n % 100 / 100.0, 'candidateId', NULL),
       jsonb_build_object('campaignId', key, 'observedAt', at, 'answerRates', jsonb_build_array(0.4, 0.41, 0.42, 0.43, 0.44),
                          'meanAnswerRate', 0.42, 'attempted', n % 1000, 'answered', n % 400, 'abandoned', n % 7,
                          'agentsIdle', 3, 'agentsBusy', 17, 'dialRate', 2.0, 'minDialRate', 1.0, 'maxDialRate', 10.0),
       'pacing', 3, '0123456789abcdef', 0, '["trunkline.campaign-windows.v1/0/1"]', 'trunkline.dial-decisions.v1',
       (n % 6)::integer, n / 6, '00000000-0000-0000-0000-000000000001'
FROM history;

INSERT INTO audit.outcome_log (decision_id, loop, key, sequence, status, reason, attempts, finished_at, request, response,
    topic, partition, "offset", topic_id)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8' || lpad(to_hex(n), 19, '0'))::uuid, loop, key, n,
       'applied', 'confirmed', 1, at + interval '200 milliseconds',
       jsonb_build_object('method', 'PATCH', 'path', '/api/v2/outbound/campaigns/' || key), '{"status": 200}',
       'trunkline.outcomes.v1', (n % 6)::integer, n / 6, '00000000-0000-0000-0000-000000000001'
FROM history;
