-- What the platform calls campaigns and flows, for people to read: nothing is decided by a name. What
-- works beside release 28 works beside this.
INSERT INTO trunkline.compatibility VALUES (35, 28);

CREATE TABLE trunkline.platform_names (
    -- As in decisions: those of a further organisation have its name before them.
    id      text        NOT NULL,
    kind    text        NOT NULL CHECK (kind IN ('campaign', 'flow')),
    name    text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    -- Since when it is called so, as far as was seen.
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, kind)
);

-- Of routing configurations the name in force.
CREATE VIEW trunkline.names AS
SELECT id, kind, name FROM trunkline.platform_names
UNION ALL
SELECT c.configuration_id, 'route', r.definition ->> 'name'
FROM trunkline.route_counters c JOIN trunkline.route_revisions r USING (configuration_id, revision)
WHERE r.definition ->> 'name' <> '';

GRANT INSERT, SELECT, UPDATE ON trunkline.platform_names TO trunkline_app;
GRANT SELECT ON trunkline.names TO trunkline_app, trunkline_reader;
