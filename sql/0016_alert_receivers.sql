-- How receivers of alerts are, apart from single deliveries: one that asks to be left alone is left
-- alone by every instance and for every alert; one that says it is gone is not asked again until
-- somebody says so.

CREATE TABLE trunkline.alert_receivers (
    receiver          text PRIMARY KEY,
    -- SHA-256 of the URL: what was found out about one address does not hold for another.
    url_digest        text NOT NULL,
    -- Set: one delivery at a time, the probe, once this has passed; NULL: as many as are due.
    paused_until      timestamptz,
    probe             uuid,
    switched_off_at   timestamptz,
    switched_off_why  text
);

CREATE VIEW audit.alert_receivers AS
SELECT r.receiver,
       CASE WHEN r.switched_off_at IS NOT NULL THEN 'off'
            WHEN r.paused_until IS NOT NULL THEN 'waiting'
            ELSE 'on' END AS status,
       (SELECT count(*) FROM trunkline.alert_deliveries d
        WHERE d.receiver = r.receiver AND d.delivered_at IS NULL AND d.given_up_at IS NULL) AS queued,
       r.paused_until, r.switched_off_at, r.switched_off_why
FROM trunkline.alert_receivers r;

GRANT INSERT, SELECT, UPDATE ON trunkline.alert_receivers TO trunkline_app;
GRANT SELECT ON audit.alert_receivers TO trunkline_app, trunkline_reader;
