//! Every metric, declared once: the `/metrics` page's help texts and
//! `docs/reference/metrics.md` are made from this file.

pub mod shown;

use metrics::{Counter, Gauge, Histogram, Label};

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// One metric. Label values come from a bounded set: topic, stage, status names
/// of the code's own, identifiers from the configuration, or a counted number of others.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

#[expect(clippy::disallowed_macros, reason = "this is the table")]
impl Metric {
    /// The values stand in the order of `labels`. Keep the handle where it is used often.
    pub fn counter(&self, values: &[&str]) -> Counter {
        debug_assert_eq!(self.kind, Kind::Counter, "{}", self.name);
        metrics::counter!(self.name, self.label_pairs(values))
    }

    /// See [`counter`](Self::counter).
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert_eq!(self.kind, Kind::Gauge, "{}", self.name);
        metrics::gauge!(self.name, self.label_pairs(values))
    }

    /// See [`counter`](Self::counter).
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        debug_assert!(matches!(self.kind, Kind::Histogram(_)), "{}", self.name);
        metrics::histogram!(self.name, self.label_pairs(values))
    }

    fn label_pairs(&self, values: &[&str]) -> Vec<Label> {
        assert_eq!(self.labels.len(), values.len(), "labels of {}", self.name);
        self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, value.to_string())).collect()
    }
}

/// Seconds, from a millisecond to a minute.
const SECONDS: Kind = Kind::Histogram(&[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
]);

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub static $constant: Metric =
            Metric { name: $name, kind: $kind, help: $help, labels: &[$($label),*] };)*
        /// All metrics, in the order of the dataflow.
        pub static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics_table! {
    INGEST_EVENTS = "trunkline_ingest_events_total", Kind::Counter, ["result"],
        "Events brought over HTTP in requests that were answered with 200: accepted, duplicate (within a request), rejected, skipped.";
    INGEST_SKIPPED = "trunkline_ingest_skipped_total", Kind::Counter, ["event_type"],
        "Events of the platform that are about something else than conversations, by type, ids left out; beyond a hundred types as other.";
    INGEST_REQUESTS = "trunkline_ingest_requests_total", Kind::Counter, ["result"],
        "Requests that bring events, by how they ended: taken, refused (4xx), busy, not_delivered.";
    INGEST_SECONDS = "trunkline_ingest_request_seconds", SECONDS, [],
        "Time from a request's complete body to its answer, the brokers' acknowledgement included.";
    STAGE_RECORDS = "trunkline_stage_records_total", Kind::Counter, ["stage", "result"],
        "Records a stage has committed, by what became of them: applied, no_op, rejected, dead_letter, late.";
    STAGE_TRANSACTION_SECONDS = "trunkline_stage_transaction_seconds", SECONDS, ["stage"],
        "Time from the first record of a transaction to its commit.";
    STAGE_TRANSACTIONS = "trunkline_stage_transactions_total", Kind::Counter, ["stage", "result"],
        "Transactions by how they ended: committed, aborted, fenced.";
    STAGE_WATERMARK_SECONDS = "trunkline_stage_watermark_seconds", Kind::Gauge, ["stage"],
        "Event time up to which all partitions that are not idle have been read, as Unix time.";
    STAGE_FROM_THE_FUTURE = "trunkline_stage_from_the_future_total", Kind::Counter, ["stage"],
        "Records set aside because their time is ahead of their own record's or of this instance's clock.";
    STAGE_WATERMARKS_HEALED = "trunkline_stage_watermarks_healed_total", Kind::Counter, ["stage"],
        "Watermarks that a wrong clock had put ahead of this instance's, taken back to it.";
    STAGE_RESTORE_SECONDS = "trunkline_stage_restore_seconds", SECONDS, ["stage"],
        "Time to rebuild the state of newly assigned partitions from the changelog.";
    STAGE_KEYS = "trunkline_stage_keys", Kind::Gauge, ["stage"],
        "Keys whose state is held in memory.";
    STAGE_LINKED = "trunkline_stage_linked_partitions", Kind::Gauge, ["stage"],
        "Partitions whose records the stage before hands on within its transaction, without a way over the brokers.";
    GLOBAL_TABLE_RECORDS = "trunkline_global_table_records_total", Kind::Counter, ["topic", "result"],
        "Records of topics that every instance holds whole: applied, removed, unreadable, too_many.";
    GLOBAL_TABLE_ENTRIES = "trunkline_global_table_entries", Kind::Gauge, ["topic"],
        "Keys held of such a topic.";
    GENESYS_CALLS = "trunkline_genesys_calls_total", Kind::Counter, ["endpoints", "result"],
        "Calls of the platform by how they ended: ok, conflict, rate_limited, not_found, no_reply and so on.";
    GENESYS_CALL_SECONDS = "trunkline_genesys_call_seconds", SECONDS, ["endpoints"],
        "Time from sending a request to the end of its reply.";
    GENESYS_BUDGET_WAIT_SECONDS = "trunkline_genesys_budget_wait_seconds", SECONDS, ["priority"],
        "Time a call waited for a permit of the shared budget.";
    GENESYS_BREAKER_OPEN = "trunkline_genesys_breaker_open", Kind::Gauge, ["endpoints"],
        "1 while calls are paused after repeated failures.";
    GENESYS_TOKENS = "trunkline_genesys_tokens_total", Kind::Counter, ["result"],
        "Attempts to get an access token: ok, failed.";
    GENESYS_POLL_STRETCH = "trunkline_genesys_poll_stretch", Kind::Gauge, [],
        "How many times as far apart as configured polls come at most, so that the month's allowance of calls lasts: 1 to 10.";
    ALLOWANCE_USED = "trunkline_allowance_used", Kind::Gauge, ["of"],
        "Used since the month began (UTC): api_calls of the organisation, call_attempts of all campaigns.";
    ALLOWANCE_FORECAST = "trunkline_allowance_forecast", Kind::Gauge, ["of"],
        "What will be used by the month's end as it goes on now.";
    ALLOWANCE = "trunkline_allowance", Kind::Gauge, ["of"],
        "What the month covers, where it is configured.";
    ALLOWANCE_COST = "trunkline_allowance_forecast_cost", Kind::Gauge, ["of"],
        "What use beyond the allowance will have cost by the month's end, where a price is configured.";
    SINK_SET_ASIDE = "trunkline_sink_set_aside_total", Kind::Counter, ["role", "reason"],
        "Records a sink could not keep, by the reason's code: they are dead letters.";
    AUDIT_ROWS = "trunkline_audit_rows_total", Kind::Counter, ["kind", "result"],
        "Records the audit has dealt with, by kind (decision, outcome, dead_letter, other) and result: stored, duplicate, dead_letter.";
    AUDIT_SECONDS = "trunkline_audit_write_seconds", SECONDS, [],
        "Time to bring a batch into the ledger, waits for Postgres included.";
    AUDIT_RETRIES = "trunkline_audit_retries_total", Kind::Counter, ["reason"],
        "Attempts of the audit that wrote nothing: moved (another writer), refused (bad values), unavailable.";
    CAMPAIGN_POLLS = "trunkline_campaign_polls_total", Kind::Counter, ["result"],
        "Observations of campaigns by how they ended: ok, not_delivered, or how the call failed.";
    CAMPAIGNS_WATCHED = "trunkline_campaigns_watched", Kind::Gauge, [],
        "Campaigns that this instance observes.";
    LAG_POLLS = "trunkline_lag_polls_total", Kind::Counter, ["result"],
        "Polls of consumer groups by how they ended: ok, no_answer, not_delivered, or how the call of analytics failed.";
    LAG_POLL_SECONDS = "trunkline_lag_poll_seconds", SECONDS, [],
        "Time to ask a cluster's brokers about its consumer groups.";
    LAG_GROUP_STATUS = "trunkline_lag_group_status", Kind::Gauge, ["group"],
        "Status of a consumer group: 0 OK, 1 UNCOMMITTED, 2 UNKNOWN, 3 MISSING_GROUP, 4 WARNING, 5 ERROR, 6 REWIND, 7 STALLED, 8 STOPPED, 9 ABANDONED, 10 BEYOND_END, 11 DATA_LOSS. Groups of the worst 500 have series.";
    LAG_GROUP_RECORDS = "trunkline_lag_group_records", Kind::Gauge, ["group"],
        "Records a consumer group has yet to read.";
    LAG_GROUP_AGE_SECONDS = "trunkline_lag_group_age_seconds", Kind::Gauge, ["group"],
        "How long the head of a consumer group's longest line has waited.";
    LAG_GROUP_REPLICAS = "trunkline_lag_group_replicas", Kind::Gauge, ["group"],
        "Consumers that would be right for a consumer group.";
    LAG_GROUP_OPEN_TRANSACTION_SECONDS = "trunkline_lag_group_open_transaction_seconds", Kind::Gauge, ["group"],
        "For so long at least the oldest transaction has been open that holds records back from a consumer group; only while one is.";
    FLOW_POLLS = "trunkline_flow_polls_total", Kind::Counter, ["what", "result"],
        "Observations of flows (versions, measures) by how they ended: ok, not_delivered, or how the call failed.";
    FLOWS_WATCHED = "trunkline_flows_watched", Kind::Gauge, [],
        "Flows that this instance observes.";
    ACTUATOR_OUTCOMES = "trunkline_actuator_outcomes_total", Kind::Counter, ["status"],
        "Outcomes published, by status; dead_letter where a decision could not be read.";
    ACTUATOR_ATTEMPTS = "trunkline_actuator_attempts_total", Kind::Counter, ["result"],
        "Changes tried on the platform by how the call ended: ok, conflict, no_reply, not_sent and so on.";
    ACTUATOR_READ_BACKS = "trunkline_actuator_read_backs_total", Kind::Counter, ["result"],
        "Attempts with unknown effect by what the platform, read back, says: applied, not_applied, overwritten.";
    ACTUATOR_IN_FLIGHT = "trunkline_actuator_in_flight", Kind::Gauge, [],
        "Decisions read whose outcomes are not published yet.";
    ROLLBACK_OUTCOMES = "trunkline_rollback_outcomes_total", Kind::Counter, ["status"],
        "Outcomes of rollback decisions published, by status; dead_letter where a decision could not be read.";
    ROLLBACK_ATTEMPTS = "trunkline_rollback_attempts_total", Kind::Counter, ["result"],
        "Activations of flow versions tried on the platform, by how the call ended.";
    ROLLBACK_READ_BACKS = "trunkline_rollback_read_backs_total", Kind::Counter, ["result"],
        "Activations by what the flow, read back, says: applied, not_applied, overwritten.";
    PROMOTION_OUTCOMES = "trunkline_promotion_outcomes_total", Kind::Counter, ["status"],
        "Outcomes of promotions published, by status; dead_letter where a decision could not be read.";
    PROMOTION_ATTEMPTS = "trunkline_promotion_attempts_total", Kind::Counter, ["result"],
        "Publications of promoted flows tried on the platform, by how the call ended.";
    PROMOTION_READ_BACKS = "trunkline_promotion_read_backs_total", Kind::Counter, ["result"],
        "Publications of promoted flows by what the flow, read back, says: applied, not_applied, overwritten.";
    ALERTS_RAISED = "trunkline_alerts_raised_total", Kind::Counter, ["incident_type"],
        "Alerts taken in, by incident type, told again or not.";
    ALERT_DELIVERIES = "trunkline_alert_deliveries_total", Kind::Counter, ["receiver", "result"],
        "Attempts to deliver an alert, by receiver and result: delivered, failed, given_up.";
    ALERTS_WAITING = "trunkline_alerts_waiting", Kind::Gauge, ["receiver"],
        "Alerts queued for a receiver that has not taken them yet, over all instances.";
    ALERT_RECEIVER_OFF = "trunkline_alert_receiver_off", Kind::Gauge, ["receiver"],
        "1 while a receiver of alerts is switched off because it answered 410 Gone.";
    COMPLIANCE_CALLS = "trunkline_compliance_calls_total", Kind::Counter, ["result"],
        "Calls of campaigns by what was recorded of them: recorded (new, or a new revision), unchanged, looked_up_again, restated (a new revision by that); and pruned records.";
    COMPLIANCE_FIGURES = "trunkline_compliance_figures_total", Kind::Counter, ["statement"],
        "Figures of settled windows stated, as known or as restated.";
    COMPLIANCE_WARNINGS = "trunkline_compliance_warnings_total", Kind::Counter, [],
        "Windows of campaigns in which abandonment came near its cap.";
    OUTBOX_MESSAGES = "trunkline_outbox_messages_total", Kind::Counter, ["result"],
        "Messages of the outbox that left it, by result: published, dead_letter where no topic takes them.";
    OUTBOX_BACKLOG = "trunkline_outbox_backlog", Kind::Gauge, [],
        "Messages waiting in the outbox, counted up to 100 000 by the instance that publishes.";
    OUTBOX_OLDEST_SECONDS = "trunkline_outbox_oldest_seconds", Kind::Gauge, [],
        "Age of the oldest message waiting in the outbox, by the instance that publishes.";
    ENRICHMENT_EVENTS = "trunkline_enrichment_events_total", Kind::Counter, ["result"],
        "Conversation events by what they brought: told (something new), known (duplicates and older ones), unreadable (set aside elsewhere), refused (by Postgres: dead letters).";
    ENRICHMENT_CONVERSATIONS = "trunkline_enrichment_conversations_total", Kind::Counter, ["result"],
        "Conversations asked about by the answer: enriched, missing (asked about again later), not_available (given up), outdated (answered elsewhere); and pruned ones.";
    ENRICHMENT_BATCH = "trunkline_enrichment_batch_conversations", Kind::Histogram(&[1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 49.0, 50.0]), [],
        "Conversations per query of the platform's analytics.";
    ENRICHMENT_PENDING = "trunkline_enrichment_pending", Kind::Gauge, [],
        "Conversations waiting to be asked about, told by the instance that asks.";
    ENRICHMENT_OLDEST_SECONDS = "trunkline_enrichment_oldest_seconds", Kind::Gauge, [],
        "How long the conversation that is due for longest has been due.";
    QUEUE_POLLS = "trunkline_queue_polls_total", Kind::Counter, ["result"],
        "Observations of queues by how they ended: ok, not_delivered, or how the call failed.";
    ROUTE_ANSWERS = "trunkline_route_answers_total", Kind::Counter, ["configuration", "source"],
        "Routing decisions answered, by where they came from: exact, cached, fallback. Repeats from memory are not counted.";
    ROUTE_ANSWER_SECONDS = "trunkline_route_answer_seconds", SECONDS, [],
        "Time from a request for a routing decision to its answer.";
    ROUTE_BLOCKS = "trunkline_route_blocks_total", Kind::Counter, ["result"],
        "Blocks of routing decisions by what became of them: written, lost_turn (another instance was first), overdue, failed.";
    ROUTE_BLOCK_SIZE = "trunkline_route_block_size", Kind::Histogram(&[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]), [],
        "Routing decisions written with one transaction.";
    ROUTE_BREAKER_OPEN = "trunkline_route_breaker_open", Kind::Gauge, ["configuration"],
        "1 while a configuration is answered by its fallback.";
    ROUTE_LATE = "trunkline_route_late_total", Kind::Counter, ["result"],
        "Answers given without the counters by what became of them: recorded, conflict (another instance's stands), lost (more than can be kept).";
    ROUTE_UNSEEN = "trunkline_route_unseen_total", Kind::Counter, ["configuration"],
        "Answers given without the counters before it could be read whether another one is recorded: no more than these can contradict the record.";
    ROUTE_FOLLOWED = "trunkline_route_followed_total", Kind::Counter, ["result"],
        "Routing decisions of all instances read from their topic, to be repeated when asked again.";
    ROUTE_ALARM = "trunkline_route_alarm", Kind::Gauge, ["configuration", "alarm"],
        "1 while people should look: nobody_available, all_weights_zero.";
    LOOP_PAUSED = "trunkline_loop_paused", Kind::Gauge, ["loop"],
        "1 while people have paused a loop, or all, as this instance knows it.";
    DRIFT_POINTS = "trunkline_drift_points_total", Kind::Counter, ["result"],
        "Drift points by what became of them: written, refused, given_up, or unreadable outcomes.";
}
