-- What the console reads often, and who is logged in to it.

-- The newest decisions of a loop. Routing's are many and are not looked for this way.
CREATE INDEX decision_log_newest_of_loop ON audit.decision_log (loop, decided_at DESC, decision_id DESC)
    WHERE loop <> 'route';

-- People with a key exchange it for a session. Neither the key nor the session's token stands here.
CREATE TABLE trunkline.console_sessions (
    -- SHA-256 of the token in the cookie.
    token_digest bytea       PRIMARY KEY,
    -- SHA-256 of the key's own digest: a key that is no longer configured opens nothing.
    key_digest   bytea       NOT NULL,
    opened_at    timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL
);

CREATE TABLE audit.session_log (
    number   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    what     text        NOT NULL CHECK (what IN ('opened', 'closed')),
    key_name text        NOT NULL,
    role     text        NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.session_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();

CREATE VIEW audit.sessions AS SELECT number, what, key_name, role, at FROM audit.session_log;

GRANT INSERT, SELECT, DELETE ON trunkline.console_sessions TO trunkline_app;
GRANT INSERT, SELECT ON audit.session_log TO trunkline_app;
GRANT SELECT ON audit.sessions TO trunkline_app, trunkline_reader;

-- Instances of the release before neither read nor write any of this.
INSERT INTO trunkline.compatibility VALUES (19, 16);
