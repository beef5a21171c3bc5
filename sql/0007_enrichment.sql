-- Conversations that are to be enriched with what the platform's analytics know of them, and
-- those that are. One row per conversation: its events' summary, where it stands, the details.

CREATE TABLE trunkline.conversations (
    conversation_id text        PRIMARY KEY,
    -- What the events say, each fact with the event that said it last.
    summary         jsonb       NOT NULL,
    first_event_at  timestamptz NOT NULL,
    last_event_at   timestamptz NOT NULL,
    -- Where the last event stands in Kafka.
    partition       integer     NOT NULL,
    "offset"        bigint      NOT NULL,
    state           text        NOT NULL CHECK (state IN ('pending', 'done', 'not_available')),
    -- Answers in a row without it, since its last event.
    attempts        integer     NOT NULL,
    -- All answers so far: an answer is dealt with once, whoever asked.
    rounds          bigint      NOT NULL,
    -- When it is to be asked about.
    due_at          timestamptz,
    -- When it stopped being pending.
    settled_at      timestamptz,
    enriched_at     timestamptz,
    enriched_up_to  timestamptz,
    details         jsonb,
    CHECK ((state = 'pending') = (due_at IS NOT NULL)),
    CHECK ((state = 'pending') = (settled_at IS NULL)),
    CHECK ((enriched_at IS NULL) = (details IS NULL)),
    CHECK ((enriched_at IS NULL) = (enriched_up_to IS NULL))
)
-- Rows change with every event: room for their next versions beside them.
WITH (fillfactor = 70);
CREATE INDEX conversations_due ON trunkline.conversations (due_at) WHERE state = 'pending';
CREATE INDEX conversations_settled ON trunkline.conversations (settled_at) WHERE state <> 'pending';

CREATE VIEW audit.conversations AS
SELECT conversation_id, state, first_event_at, last_event_at,
       (summary ->> 'ended')::boolean AS ended,
       summary #>> '{mediaType,value}' AS media_type,
       summary #>> '{direction,value}' AS direction,
       summary #>> '{queueId,value}' AS queue_id,
       summary #>> '{campaignId,value}' AS campaign_id,
       summary #>> '{flow,value,id}' AS flow_id,
       summary #>> '{flow,value,version}' AS flow_version,
       summary #>> '{outcome,value}' AS outcome,
       enriched_at, enriched_up_to, details, attempts, due_at, settled_at
FROM trunkline.conversations;

GRANT INSERT, SELECT, UPDATE, DELETE ON trunkline.conversations TO trunkline_app;
GRANT SELECT ON audit.conversations TO trunkline_app, trunkline_reader;
