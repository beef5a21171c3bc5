-- What the actuator must remember to change nothing twice: who may act, what was about to be sent,
-- and what became of it. Intents and settlements are never changed: they are evidence.

CREATE FUNCTION trunkline.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'trunkline.% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

-- Each taking raises the token; whoever writes under a lease names the token it took, and a former
-- holder's no longer matches.
CREATE TABLE trunkline.leases (
    name     text        PRIMARY KEY,
    holder   text        NOT NULL,
    token    bigint      NOT NULL CHECK (token >= 1),
    taken_at timestamptz NOT NULL DEFAULT now()
);

-- One row per attempt, written before the request is sent.
CREATE TABLE trunkline.intents (
    decision_id uuid        NOT NULL,
    attempt     integer     NOT NULL CHECK (attempt >= 1),
    lease       text        NOT NULL,
    token       bigint      NOT NULL,
    request     jsonb       NOT NULL,
    parameters  jsonb       NOT NULL,
    claimed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (decision_id, attempt)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trunkline.intents
    FOR EACH STATEMENT EXECUTE FUNCTION trunkline.refuse_change();

-- How a decision ended, written before the outcome is published, which is then this one for ever.
CREATE TABLE trunkline.settlements (
    decision_id uuid        PRIMARY KEY,
    outcome     jsonb       NOT NULL,
    settled_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trunkline.settlements
    FOR EACH STATEMENT EXECUTE FUNCTION trunkline.refuse_change();

GRANT INSERT, SELECT ON trunkline.intents, trunkline.settlements TO trunkline_app;
GRANT INSERT, SELECT, UPDATE ON trunkline.leases TO trunkline_app;
