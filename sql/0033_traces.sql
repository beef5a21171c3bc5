-- The trace that a decision belongs to (W3C Trace Context), where its record does not carry it by itself: answers of routing until
-- they are recorded, alerts until they are delivered. What works beside release 28 works beside this.
INSERT INTO trunkline.compatibility VALUES (33, 28);

-- In both, and last in both: rows go from one to the other as they are.
ALTER TABLE trunkline.route_answers ADD COLUMN traceparent text;
ALTER TABLE trunkline.route_superseded ADD COLUMN traceparent text;

ALTER TABLE audit.alert_log ADD COLUMN traceparent text;
