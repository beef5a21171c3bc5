-- The numbers that rules go by, as each configuration had them: a decision names them by their digest
-- alone, and is taken again with the numbers themselves.

CREATE TABLE audit.rule_numbers_log (
    -- SHA-256 of the numbers as they are written.
    digest   bytea       PRIMARY KEY,
    numbers  jsonb       NOT NULL,
    -- Version of the program that noted them first.
    program  text        NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.rule_numbers_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE VIEW audit.rule_numbers AS SELECT numbers, program, noted_at FROM audit.rule_numbers_log;

GRANT INSERT, SELECT ON audit.rule_numbers_log TO trunkline_app;
GRANT SELECT ON audit.rule_numbers TO trunkline_app, trunkline_reader;

-- Instances of the former release note nothing; their decisions are taken again with the
-- configuration that is there.
INSERT INTO trunkline.compatibility VALUES (30, 28);
