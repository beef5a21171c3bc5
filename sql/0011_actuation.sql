-- Until when an intent's decision may be carried out: judged by this database's clock in the statement
-- that records the intent. Absent in rows from before.
ALTER TABLE trunkline.intents ADD COLUMN expires_at timestamptz;

-- From which moment on a rollback locks its flow: when the facts behind its decision were observed, as the
-- stage that decides counts it. Absent in rows from before, which lock from their confirmation on.
ALTER TABLE trunkline.rollbacks ADD COLUMN event_time timestamptz;
