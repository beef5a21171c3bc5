-- Counts that the dial loop took from conversation events are no counters of the statistics: calls
-- have their own log.
CREATE OR REPLACE VIEW audit.campaign_counts AS
SELECT DISTINCT ON (key, event_time) key AS campaign_id, event_time,
       CASE WHEN jsonb_typeof(inputs -> 'attempted') = 'number'
             AND coalesce(inputs #>> '{countsFrom,attempted}', 'statistics') = 'statistics'
            THEN (inputs ->> 'attempted')::numeric END AS attempted,
       CASE WHEN jsonb_typeof(inputs -> 'answered') = 'number'
             AND coalesce(inputs #>> '{countsFrom,answered}', 'statistics') = 'statistics'
            THEN (inputs ->> 'answered')::numeric END AS answered,
       CASE WHEN jsonb_typeof(inputs -> 'abandoned') = 'number'
             AND coalesce(inputs #>> '{countsFrom,abandoned}', 'statistics') = 'statistics'
            THEN (inputs ->> 'abandoned')::numeric END AS abandoned
FROM audit.decision_log
WHERE loop = 'dial'
ORDER BY key, event_time, sequence;

-- Programs from before it may go on beside it.
INSERT INTO trunkline.compatibility VALUES (25, 20);
