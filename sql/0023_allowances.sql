-- What a month's allowances have been used for. Working memory, no record: the platform's own count
-- of calls is asked for every hour, and attempts stand in the decisions.

-- Calls by OAuth client and hour, counted where their permits are taken.
CREATE TABLE trunkline.platform_calls (
    -- SHA-256 of the OAuth client's id.
    client       bytea            NOT NULL,
    hour         timestamptz      NOT NULL,
    calls        bigint           NOT NULL,
    -- Those of them that only look.
    polls        bigint           NOT NULL,
    -- As many as these would have been if nobody had slowed them.
    polls_wanted double precision NOT NULL,
    PRIMARY KEY (client, hour)
)
WITH (fillfactor = 50);

-- What the platform itself has counted in a month, for our client and for all others of the organisation.
CREATE TABLE trunkline.platform_usage (
    client      bytea       PRIMARY KEY,
    month       date        NOT NULL,
    -- An instance asks; nobody else does until an hour later.
    asked_at    timestamptz NOT NULL,
    -- Of which moment the counts are; NULL where it has not answered for this month.
    counted_at  timestamptz,
    own         bigint      NOT NULL DEFAULT 0,
    others      bigint      NOT NULL DEFAULT 0,
    -- What was counted here by then.
    own_counted bigint      NOT NULL DEFAULT 0
);

-- Call attempts by campaign and day, UTC.
CREATE TABLE trunkline.campaign_attempts (
    campaign_id   text        NOT NULL,
    day           date        NOT NULL,
    attempts      bigint      NOT NULL,
    -- Statistics up to then are in it.
    counted_until timestamptz NOT NULL,
    PRIMARY KEY (campaign_id, day)
);

GRANT INSERT, SELECT, UPDATE, DELETE
    ON trunkline.platform_calls, trunkline.platform_usage, trunkline.campaign_attempts TO trunkline_app;

-- Instances of the former release take permits without counting them, which the platform's count makes good.
INSERT INTO trunkline.compatibility VALUES (23, 16);
