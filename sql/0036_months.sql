-- Decisions and outcomes lie in a table for each month (UTC) in which the facts behind them were observed. A
-- decision's id begins with the milliseconds of that time: a month is a range of ids, an id is unique over all months,
-- and a month whose retention is over is dropped whole.
--
-- `…_older` has what was recorded before there were months, `…_others` what belongs to no month that is open.
-- What works beside release 28 works beside this.
INSERT INTO trunkline.compatibility VALUES (36, 28);

-- The least id of what was observed at this time or later.
CREATE FUNCTION audit.first_id(at timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

CREATE FUNCTION audit.month_of(at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
$$;

CREATE FUNCTION audit.month_after(at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC'
$$;

-- From when on there are months.
CREATE TABLE trunkline.audit_months (since timestamptz NOT NULL);
GRANT SELECT ON trunkline.audit_months TO trunkline_app;

-- An id from which on all that was observed in the last two days is found, and hardly a month is read but this one. All
-- zeros while that would cut through what was recorded before there were months.
CREATE FUNCTION audit.recent_id() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT audit.first_id(audit.month_of(now() - interval '2 days'))
                     FROM trunkline.audit_months WHERE since <= audit.month_of(now() - interval '2 days')),
                    '00000000-0000-0000-0000-000000000000'::uuid)
$$;

LOCK TABLE audit.decision_log, audit.outcome_log IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
    last  uuid;
    since timestamptz;
    upto  text := 'MAXVALUE';
    log   text;
    old   text;
    name  text;
    views text[];
BEGIN
    SELECT decision_id INTO last FROM (
        (SELECT decision_id FROM audit.decision_log ORDER BY decision_id DESC LIMIT 1)
        UNION ALL
        (SELECT decision_id FROM audit.outcome_log ORDER BY decision_id DESC LIMIT 1)
    ) AS newest ORDER BY decision_id DESC LIMIT 1;
    since := CASE
        WHEN last IS NULL THEN audit.month_of(now())
        -- Times that cannot be: everything stays in one table.
        WHEN last >= audit.first_id(now() + interval '1 year') THEN 'infinity'
        ELSE greatest(audit.month_after(now()), audit.month_after(to_timestamp(
            ('x' || left(replace(last::text, '-', ''), 12))::bit(48)::bigint / 1000.0)))
    END;
    INSERT INTO trunkline.audit_months VALUES (since);
    IF since < 'infinity' THEN
        upto := quote_literal(audit.first_id(since));
    END IF;

    -- Views follow the table that they were made of through its renaming.
    SELECT array_agg(DISTINCT format('CREATE OR REPLACE VIEW %s AS %s', v.oid::regclass, pg_get_viewdef(v.oid)))
    INTO views
    FROM pg_depend d
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
    WHERE d.refclassid = 'pg_class'::regclass
      AND d.refobjid IN ('audit.decision_log'::regclass, 'audit.outcome_log'::regclass);

    FOREACH log IN ARRAY ARRAY['decision_log', 'outcome_log'] LOOP
        old := log || '_older';
        EXECUTE format('ALTER TABLE audit.%I RENAME TO %I', log, old);
        FOR name IN SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = ('audit.' || old)::regclass LOOP
            name := replace(name, 'audit.', '');
            EXECUTE format('ALTER INDEX audit.%I RENAME TO %I', name, replace(name, log, old));
        END LOOP;
        EXECUTE format('CREATE TABLE audit.%I (LIKE audit.%I INCLUDING DEFAULTS INCLUDING GENERATED)
                        PARTITION BY RANGE (decision_id)', log, old);
        EXECUTE format('CREATE TABLE audit.%I PARTITION OF audit.%I DEFAULT', log || '_others', log);
    END LOOP;
    FOR name IN SELECT unnest(views) LOOP
        EXECUTE name;
    END LOOP;
    FOREACH log IN ARRAY ARRAY['decision_log', 'outcome_log'] LOOP
        old := log || '_older';
        IF last IS NULL THEN
            EXECUTE format('DROP TABLE audit.%I', old);
        ELSE
            EXECUTE format('ALTER TABLE audit.%I ATTACH PARTITION audit.%I FOR VALUES FROM (MINVALUE) TO (%s)',
                           log, old, upto);
        END IF;
    END LOOP;
END
$$;

ALTER TABLE audit.decision_log ADD PRIMARY KEY (decision_id);
CREATE INDEX decision_log_newest ON audit.decision_log (decided_at DESC, decision_id DESC);
CREATE INDEX decision_log_newest_of_key ON audit.decision_log (key, decided_at DESC, decision_id DESC);
CREATE INDEX decision_log_newest_of_loop ON audit.decision_log (loop, decided_at DESC, decision_id DESC)
    WHERE loop <> 'route';
CREATE INDEX decision_log_sequence ON audit.decision_log (loop, key, sequence);
CREATE INDEX decision_log_dial_events ON audit.decision_log (key, event_time) WHERE loop = 'dial';
ALTER TABLE audit.outcome_log ADD PRIMARY KEY (decision_id, verification);
-- They are few, and a planner that knows so reads all of them: it shall not read all outcomes for that.
CREATE INDEX outcome_log_verifications ON audit.outcome_log (decision_id) WHERE verification;
-- A unique index over all months would have to have the id in it: a place is taken once per month.
ALTER TABLE audit.decision_log_others ADD CONSTRAINT decision_log_others_place UNIQUE (topic_id, partition, "offset");
ALTER TABLE audit.outcome_log_others ADD CONSTRAINT outcome_log_others_place UNIQUE (topic_id, partition, "offset");

-- A trigger for statements is one of the table that they name, not of the months in it.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.decision_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.outcome_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.decision_log_others
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.outcome_log_others
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
GRANT INSERT, SELECT ON audit.decision_log, audit.outcome_log TO trunkline_app;

-- Makes the tables of the month that a time is in. `false` where some of it lies in another table already.
CREATE FUNCTION audit.make_month(at timestamptz) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    suffix CONSTANT text := to_char(at AT TIME ZONE 'UTC', '_YYYY_MM');
    log    text;
BEGIN
    IF to_regclass('audit.decision_log' || suffix) IS NOT NULL THEN
        RETURN true;
    END IF;
    FOREACH log IN ARRAY ARRAY['decision_log', 'outcome_log'] LOOP
        EXECUTE format('CREATE TABLE audit.%I (LIKE audit.%I INCLUDING ALL)', log || suffix, log);
        EXECUTE format('ALTER TABLE audit.%I ADD CONSTRAINT %I UNIQUE (topic_id, partition, "offset")',
                       log || suffix, log || suffix || '_place');
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', log || suffix);
        EXECUTE format('ALTER TABLE audit.%I ATTACH PARTITION audit.%I FOR VALUES FROM (%L) TO (%L)', log,
                       log || suffix, audit.first_id(audit.month_of(at)), audit.first_id(audit.month_after(at)));
    END LOOP;
    RETURN true;
EXCEPTION WHEN check_violation THEN
    RETURN false;
END
$$;
REVOKE ALL ON FUNCTION audit.make_month FROM PUBLIC;

-- For the application: opens this month or the next. `false` where that cannot be: what was recorded before there
-- were months is of it, or some of it lies among the others.
CREATE FUNCTION audit.open_month(at timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
BEGIN
    IF audit.month_of(at) NOT IN (audit.month_of(now()), audit.month_after(now())) THEN
        RAISE EXCEPTION 'only this month and the next can be opened, not that of %', at;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('audit.open_month'));
    RETURN audit.month_of(at) >= (SELECT since FROM trunkline.audit_months) AND audit.make_month(at);
END
$$;
REVOKE ALL ON FUNCTION audit.open_month FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.open_month TO trunkline_app;
SELECT audit.open_month(now()), audit.open_month(audit.month_after(now()));

-- Deletes the `most` oldest decisions of a table, of one loop where one is named, with their outcomes. Sequences begin
-- after what is gone.
CREATE FUNCTION audit.delete_decisions(suffix text, of_loop text, before timestamptz, most integer) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone bigint;
BEGIN
    SET LOCAL trunkline.pruning = 'on';
    EXECUTE format('
        WITH old AS (
            SELECT decision_id, loop, key, sequence FROM audit.%1$I
            WHERE decided_at < $1 AND ($2 IS NULL OR loop = $2) ORDER BY decided_at, sequence LIMIT $3
        ), outcomes AS (
            DELETE FROM audit.%2$I o USING old WHERE o.decision_id = old.decision_id
        ), ends AS (
            INSERT INTO trunkline.pruned_sequences AS known (loop, key, sequence)
            SELECT loop, key, max(sequence) FROM old GROUP BY 1, 2
            ON CONFLICT (loop, key) DO UPDATE SET sequence = greatest(known.sequence, excluded.sequence)
        )
        DELETE FROM audit.%1$I d USING old WHERE d.decision_id = old.decision_id',
        'decision_log' || suffix, 'outcome_log' || suffix) USING before, of_loop, most;
    GET DIAGNOSTICS gone = ROW_COUNT;
    SET LOCAL trunkline.pruning = 'off';
    RETURN gone;
END
$$;
REVOKE ALL ON FUNCTION audit.delete_decisions FROM PUBLIC;

-- Ends what is older: months whole, and `most` decisions at a time of each table that is no month.
CREATE FUNCTION audit.drop_months(kept_for interval, most integer, OUT months bigint, OUT decisions bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
    before CONSTANT timestamptz := now() - kept_for;
    suffix text;
BEGIN
    IF kept_for < interval '30 days' THEN
        RAISE EXCEPTION 'decisions are kept for 30 days at least, not %', kept_for;
    END IF;
    months := 0;
    decisions := 0;
    FOR suffix IN
        SELECT substr(m.relname, length('decision_log') + 1) FROM pg_inherits i JOIN pg_class m ON m.oid = i.inhrelid
        WHERE i.inhparent = 'audit.decision_log'::regclass
          AND substring(pg_get_expr(m.relpartbound, m.oid) FROM 'TO \(''([0-9a-f-]+)''\)')::uuid <= audit.first_id(before)
    LOOP
        EXECUTE format('INSERT INTO trunkline.pruned_sequences AS known (loop, key, sequence)
                        SELECT loop, key, max(sequence) FROM audit.%I GROUP BY 1, 2
                        ON CONFLICT (loop, key) DO UPDATE SET sequence = greatest(known.sequence, excluded.sequence)',
                       'decision_log' || suffix);
        EXECUTE format('DROP TABLE audit.%I, audit.%I', 'decision_log' || suffix, 'outcome_log' || suffix);
        months := months + 1;
    END LOOP;
    FOREACH suffix IN ARRAY ARRAY['_older', '_others'] LOOP
        IF to_regclass('audit.decision_log' || suffix) IS NOT NULL THEN
            decisions := decisions + audit.delete_decisions(suffix, NULL, before, most);
        END IF;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION audit.drop_months FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.drop_months TO trunkline_app;

-- Calls and figures alone, `most` of each.
CREATE FUNCTION audit.prune_calls(kept_for interval, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before  CONSTANT timestamptz := now() - kept_for;
    gone    bigint;
    deleted bigint;
BEGIN
    IF kept_for < interval '30 days' THEN
        RAISE EXCEPTION 'records of campaigns are kept for 30 days at least, not %', kept_for;
    END IF;
    SET LOCAL trunkline.pruning = 'on';
    DELETE FROM audit.call_log c USING (
        SELECT conversation_id, revision FROM audit.call_log WHERE recorded_at < before ORDER BY recorded_at LIMIT most
    ) AS old WHERE c.conversation_id = old.conversation_id AND c.revision = old.revision;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM audit.compliance_figure_log WHERE recorded_at < before AND ctid = ANY (ARRAY(
        SELECT ctid FROM audit.compliance_figure_log WHERE recorded_at < before LIMIT most));
    GET DIAGNOSTICS gone = ROW_COUNT;
    SET LOCAL trunkline.pruning = 'off';
    RETURN deleted + gone;
END
$$;
REVOKE ALL ON FUNCTION audit.prune_calls FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit.prune_calls TO trunkline_app;

-- And dial decisions with them.
CREATE OR REPLACE FUNCTION audit.prune_campaign_records(kept_for interval, most integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN audit.prune_calls(kept_for, most) + audit.delete_decisions('', 'dial', now() - kept_for, most);
END
$$;

-- What is left of a sequence may have been decided before what is gone.
CREATE OR REPLACE VIEW audit.gaps AS
SELECT loop, key, previous + 1 AS missing_from, sequence - 1 AS missing_to,
       sequence - 1 - previous AS missing
FROM (
    SELECT d.loop, d.key, d.sequence,
           greatest(coalesce(p.sequence, 0),
                    lag(d.sequence, 1, 0::bigint) OVER (PARTITION BY d.loop, d.key ORDER BY d.sequence)) AS previous
    FROM audit.decision_log d
    LEFT JOIN trunkline.pruned_sequences p ON p.loop = d.loop AND p.key = d.key
) AS steps
WHERE sequence > previous + 1;
