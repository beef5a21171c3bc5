-- After 429 replies one call finds out whether they have ended, over all instances.

ALTER TABLE trunkline.platform_budget
    -- While refusals > 0: nobody else calls before this, unless that one was let through.
    ADD COLUMN probe_until timestamptz NOT NULL DEFAULT '-infinity';
