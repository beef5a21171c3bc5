-- The budget of platform calls that all instances share: one token bucket per OAuth client.
-- It is working memory, no record: lost, it begins anew with a full bucket.

CREATE TABLE trunkline.platform_budget (
    -- SHA-256 of the OAuth client's id.
    client        bytea            PRIMARY KEY,
    -- Calls that may be made at once, as of refilled_at. Below zero after the platform has
    -- counted more calls than this bucket.
    tokens        double precision NOT NULL,
    refilled_at   timestamptz      NOT NULL,
    -- Nobody calls before this: a 429 is being waited out.
    blocked_until timestamptz      NOT NULL DEFAULT '-infinity',
    -- 429 replies in a row.
    refusals      integer          NOT NULL DEFAULT 0
)
-- The few rows change with every call: room for their next versions beside them.
WITH (fillfactor = 10);

GRANT INSERT, SELECT, UPDATE ON trunkline.platform_budget TO trunkline_app;
