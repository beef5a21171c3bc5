//! Every key, declared once: the loader, `docs/reference/configuration.md` and the example
//! file are made from this table.

use std::time::Duration;

use super::kind::Kind;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// `section.field`.
    pub name: &'static str,
    pub kind: Kind,
    /// As it would be written; `None`: no value unless given.
    pub default: Option<&'static str>,
    pub help: &'static str,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const LAG_TIME: Kind =
    Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR.saturating_mul(24) };
const HTTP: Kind = Kind::Url(&["http://", "https://"]);

macro_rules! keys {
    ($($constant:ident = $name:literal, $kind:expr, $default:expr, $help:literal;)*) => {
        $(pub(super) static $constant: Key =
            Key { name: $name, kind: $kind, default: $default, help: $help };)*
        /// All keys, section by section.
        pub static KEYS: &[&Key] = &[$(&$constant),*];
    };
}

keys! {
    INSTANCE_NAME = "instance.name", Kind::Text, None,
        "Tells instances apart and must stay the same over restarts. Without it: host name and the lowest number free on this host.";
    KAFKA_BROKERS = "kafka.brokers", Kind::Brokers, Some("127.0.0.1:9092"), "Where the brokers are.";
    KAFKA_TOPIC_PREFIX = "kafka.topic_prefix", Kind::Text, None,
        "Stands before every topic, consumer group and transactional id.";
    KAFKA_PARTITIONS = "kafka.partitions", Kind::Integer { least: 1, greatest: 1_000 }, Some("6"),
        "Partitions of the topics that `topics apply` creates: the most instances a stage can spread over.";
    KAFKA_REPLICATION_FACTOR = "kafka.replication_factor", Kind::Integer { least: 1, greatest: 9 }, None,
        "Replicas of the topics that `topics apply` creates. Without it the brokers' own default.";
    KAFKA_WORKERS = "kafka.workers", Kind::Integer { least: 1, greatest: 64 }, Some("1"),
        "Worker threads of each stage in this instance.";
    POSTGRES_URL = "postgres.url", Kind::PostgresUrl, None, "Where the database is. Required.";
    POSTGRES_MAX_CONNECTIONS = "postgres.max_connections", Kind::Integer { least: 2, greatest: 500 }, Some("10"),
        "Connections this instance opens at most.";
    HTTP_LISTEN = "http.listen", Kind::Address, Some("127.0.0.1:8080"),
        "Address of the HTTP interface. Anything but loopback needs `http.api_keys`.";
    HTTP_API_KEYS = "http.api_keys", Kind::ApiKeys, None,
        "Bearer keys by role. Make one with: openssl rand -hex 32; its digest with: printf %s KEY | sha256sum.";
    INGEST_MAX_BODY_BYTES = "ingest.max_body_bytes", Kind::Integer { least: 1_024, greatest: 8 * 1_048_576 }, Some("1048576"),
        "Largest body of a request that brings events.";
    INGEST_MAX_EVENTS = "ingest.max_events", Kind::Integer { least: 1, greatest: 100_000 }, Some("10000"),
        "Events one request may bring.";
    INGEST_MAX_REQUESTS = "ingest.max_requests", Kind::Integer { least: 1, greatest: 10_000 }, Some("128"),
        "Requests with events this instance works on at once; more are answered 503 with Retry-After.";
    INGEST_EVENTS_PER_SECOND = "ingest.events_per_second", Kind::Integer { least: 1, greatest: 10_000_000 }, None,
        "Events this instance takes per second; more are answered 503 with Retry-After. Without it no limit.";
    INGEST_READ_TIMEOUT = "ingest.read_timeout", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("10s"),
        "Longest time until the body of a request is complete.";
    INGEST_DELIVERY_TIMEOUT = "ingest.delivery_timeout", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("4s"),
        "Longest time until the brokers have acknowledged a request's events; 503 with Retry-After then. EventBridge waits 5 s.";
    GENESYS_DIALECT = "genesys.dialect", Kind::OneOf(&["seed", "platform"]), Some("seed"),
        "Which form of the platform's interface is spoken: `platform` is Genesys Cloud's own.";
    GENESYS_BASE_URL = "genesys.base_url", HTTP, None,
        "The platform's API host. Required, unless the dialect is `platform` and genesys.region is given.";
    GENESYS_LOGIN_URL = "genesys.login_url", HTTP, None,
        "Where tokens come from. Without it the API host; in the dialect `platform` the host login.… beside an API host that is called api.…";
    GENESYS_CLIENT_ID = "genesys.client_id", Kind::Text, None, "OAuth client of the client-credentials grant. Required.";
    GENESYS_CLIENT_SECRET = "genesys.client_secret", Kind::Secret, None, "Its secret. Required.";
    GENESYS_REQUESTS_PER_MINUTE = "genesys.requests_per_minute", Kind::Integer { least: 1, greatest: 100_000 }, Some("300"),
        "Requests all instances together send per budget window.";
    GENESYS_BUDGET_WINDOW = "genesys.budget_window", Kind::Duration { least: Duration::from_millis(100), greatest: HOUR }, Some("60s"),
        "The window that budget counts in. Shorter than 60s only for a simulator run faster than real time.";
    GENESYS_ORGANIZATION_ID = "genesys.organization_id", Kind::Text, None, "Named in facts about campaigns.";
    GENESYS_REGION = "genesys.region", Kind::Text, None,
        "Named in facts about campaigns and in drift points, such as eu_west_1. In the dialect `platform` it says where the platform is, unless genesys.base_url does.";
    GENESYS_CAMPAIGN_CHANGE = "genesys.campaign_change", Kind::OneOf(&["patch", "put"]), Some("patch"),
        "Dialect `platform`: `patch` sends a campaign's rate alone, and the last writer wins; `put` sends the whole campaign as it was read, and is refused where somebody changed it since.";
    DIAL_MODE = "dial.mode", Kind::OneOf(&["shadow", "live", "off"]), Some("shadow"),
        "`shadow` decides and records, `live` also acts, `off` does nothing.";
    DIAL_INTERVAL = "dial.interval", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("30s"),
        "Time between two observations of a campaign: one tick.";
    DIAL_POLICY = "dial.policy", Kind::OneOf(&["pacing", "proportional"]), Some("pacing"),
        "The rule. `pacing` keeps agents busy within a budget of abandoned calls. `proportional` has no fixed point: it walks to the greatest rate while the mean answer rate is below the target, and to the least while it is above.";
    DIAL_SHADOW_POLICY = "dial.shadow_policy", Kind::OneOf(&["pacing", "proportional"]), None,
        "A rule that decides beside it on the same inputs. Its answers stand in the decisions; nobody acts on them.";
    DIAL_GOAL = "dial.goal", Kind::Number { least: 0.001, greatest: 0.5 }, Some("0.02"),
        "Share of live answers that `pacing` lets be abandoned on average, as a fraction.";
    DIAL_CAP = "dial.cap", Kind::Number { least: 0.001, greatest: 0.5 }, Some("0.03"),
        "Share of live answers abandoned that `pacing` keeps below, as a fraction. At least `dial.goal`.";
    DIAL_HANDLE_TIME = "dial.handle_time", Kind::Duration { least: Duration::from_secs(1), greatest: DAY }, Some("180s"),
        "Mean time an agent spends on a call, before `pacing` has measured it.";
    DIAL_UTC_OFFSET_MINUTES = "dial.utc_offset_minutes", Kind::Integer { least: -840, greatest: 840 }, Some("0"),
        "The campaigns' local time minus UTC: the days that `pacing` keeps its budget over begin there.";
    DIAL_TARGET = "dial.target", Kind::Number { least: 0.01, greatest: 1.0 }, Some("0.85"),
        "Answer rate that `proportional` aims at, as a fraction.";
    DIAL_MIN_RATE = "dial.min_rate", Kind::Number { least: 1.0, greatest: 100.0 }, Some("1"),
        "Dialect `platform`: least calls per agent of a campaign; the platform's campaigns have no least rate of their own.";
    DIAL_MAX_RATE = "dial.max_rate", Kind::Number { least: 1.0, greatest: 100.0 }, Some("15"),
        "Dialect `platform`: greatest calls per agent of a campaign; the organisation's own greatest holds besides.";
    DIAL_CAMPAIGNS = "dial.campaigns", Kind::List, None, "Ids of the campaigns to watch.";
    EVENTS_WINDOW = "events.window", Kind::Duration { least: Duration::from_secs(1), greatest: HOUR }, Some("60s"),
        "Length of a minute of event time, over which interactions with flows are counted. Shorter than 60s only for a simulator run faster than real time.";
    EVENTS_LATENESS = "events.lateness", Kind::Duration { least: Duration::ZERO, greatest: HOUR }, Some("120s"),
        "How far behind the newest event of its partition an event may be and still count. Minutes stay open for so long.";
    ENRICHMENT_MODE = "enrichment.mode", Kind::OneOf(&["on", "off"]), Some("on"),
        "`on` asks the platform's analytics about every conversation that has events; nothing is changed there.";
    ENRICHMENT_QUIET = "enrichment.quiet", Kind::Duration { least: MILLISECOND, greatest: DAY }, Some("60s"),
        "A conversation that goes on is asked about once it had no event for so long; one whose agent has not finished the work after the call, five times as long; one that is in a flow, in a queue or with an agent, fifteen times as long.";
    ENRICHMENT_SETTLE = "enrichment.settle", Kind::Duration { least: Duration::ZERO, greatest: HOUR }, Some("5s"),
        "A conversation that is over is asked about once it had no event for so long: its last ones may be on their way.";
    ENRICHMENT_PATIENCE = "enrichment.patience", Kind::Duration { least: MILLISECOND.saturating_mul(120), greatest: DAY.saturating_mul(7) }, Some("2h"),
        "A conversation that analytics do not know is asked about six times over this time, then it is a dead letter.";
    ENRICHMENT_RETENTION = "enrichment.retention", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: DAY.saturating_mul(366) }, Some("168h"),
        "Enriched conversations are deleted so long after their last change, from Postgres and from their compacted topic.";
    LAG_MODE = "lag.mode", Kind::OneOf(&["shadow", "live", "off"]), Some("shadow"),
        "`shadow` watches and records, `live` also calls for help, `off` does nothing.";
    LAG_INTERVAL = "lag.interval", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("10s"),
        "Time between two polls of a cluster's consumer groups.";
    LAG_INCLUDE = "lag.include", Kind::List, None,
        "Consumer groups to watch, `*` for any text. Without it all, trunkline's own among them.";
    LAG_EXCLUDE = "lag.exclude", Kind::List, None, "Consumer groups not to watch, `*` for any text.";
    LAG_REQUIRED = "lag.required", Kind::List, None, "Consumer groups that must exist: MISSING_GROUP where they do not.";
    LAG_CLUSTERS = "lag.clusters", Kind::Clusters, None,
        "Other clusters to watch. Their groups are called `name:group`; patterns and required groups are their own.";
    LAG_STILL_AFTER = "lag.still_after", LAG_TIME, Some("60s"), "So long behind at one offset is STALLED, or STOPPED.";
    LAG_ERROR_AGE = "lag.error_age", LAG_TIME, Some("30s"), "Waiting time of the head of the line that is an ERROR, in two polls.";
    LAG_WARNING_AGE = "lag.warning_age", LAG_TIME, Some("15s"), "Waiting time of the head of the line that is a WARNING, in two polls.";
    LAG_TREND_AGE = "lag.trend_age", LAG_TIME, Some("5s"), "Waiting time above which it is a WARNING that it rises.";
    LAG_TREND_WINDOW = "lag.trend_window", LAG_TIME, Some("5m"), "Time over which it must rise.";
    LAG_HISTORY = "lag.history", LAG_TIME, Some("10m"), "How long a rewind and the rates are remembered.";
    LAG_COOLDOWN = "lag.cooldown", LAG_TIME, Some("5m"), "Time between two calls for help for one group.";
    LAG_CATCH_UP = "lag.catch_up", LAG_TIME, Some("5m"), "Time in which a group that is behind should have caught up.";
    LAG_ANALYTICS_GROUPS = "lag.analytics_groups", Kind::List, None,
        "Consumer groups of the platform's own that its event analytics are asked about. Without it they are not asked.";
    LAG_ANALYTICS_INTERVAL = "lag.analytics_interval", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("60s"),
        "Time between two such questions.";
    LAG_ANALYTICS_WINDOW = "lag.analytics_window", Kind::Duration { least: Duration::from_secs(1), greatest: HOUR.saturating_mul(24) }, Some("1h"),
        "The time up to now that is asked about; the platform refuses more than 24 h.";
    LAG_ANALYTICS_LIMIT = "lag.analytics_lag", LAG_TIME, Some("30s"), "Lag in analytics that exceeds the first threshold.";
    LAG_ANALYTICS_LATENCY = "lag.analytics_latency", LAG_TIME, Some("500ms"), "Processing latency in analytics that exceeds the second threshold.";
    ROLLBACK_MODE = "rollback.mode", Kind::OneOf(&["shadow", "live", "off"]), Some("shadow"),
        "`shadow` decides and records, `live` also acts, `off` does nothing.";
    ROLLBACK_POLICY = "rollback.policy", Kind::OneOf(&["attributed", "consecutive"]), Some("attributed"),
        "The rule. `consecutive` takes a version back after buckets in a row over the threshold, however bad the one before it was; `attributed` only when it is worse than that one.";
    ROLLBACK_WITHOUT_BASELINE = "rollback.without_baseline", Kind::OneOf(&["consecutive", "alert"]), Some("consecutive"),
        "What `attributed` does where the version before has had too few interactions: go by buckets in a row, or tell people only.";
    ROLLBACK_THRESHOLD = "rollback.threshold", Kind::Number { least: 0.001, greatest: 0.9 }, Some("0.05"),
        "Errors per interaction that must be exceeded, as a fraction.";
    ROLLBACK_ARMED_MINUTES = "rollback.armed_minutes", Kind::Integer { least: 1, greatest: 10_080 }, Some("60"),
        "Minutes after a publish during which `attributed` may take it back; after that people are told only. Minutes are of the length of events.window.";
    ROLLBACK_COOLDOWN_MINUTES = "rollback.cooldown_minutes", Kind::Integer { least: 1, greatest: 10_080 }, Some("15"),
        "Minutes after a rollback without another one of the same flow.";
    ROLLBACK_VERIFY_MINUTES = "rollback.verify_minutes", Kind::Integer { least: 1, greatest: 1_440 }, Some("10"),
        "Minutes after a rollback until it is recorded whether the flow has recovered.";
    ROLLBACK_SOURCE = "rollback.source", Kind::OneOf(&["events", "polled"]), Some("events"),
        "Where the minutes of flows come from: counted from conversation events, or polled from the platform's measures.";
    ROLLBACK_ERRORS = "rollback.errors", Kind::OneOf(&["exit_reason", "outcome"]), Some("exit_reason"),
        "Dialect `platform`: which polled interactions are errors: those that left the flow for an error, of all; or flow outcomes that failed, of all flow outcomes.";
    ROLLBACK_SETTLING = "rollback.settling", Kind::Duration { least: Duration::ZERO, greatest: HOUR }, None,
        "How long after its end a polled minute is measured. Without it a sixth of a minute; in the dialect `platform`, whose analytics take minutes, three minutes.";
    ROLLBACK_POLLED_FLOWS = "rollback.polled_flows", Kind::List, None,
        "Flows whose minutes are polled although rollback.source is events.";
    ROLLBACK_FLOWS = "rollback.flows", Kind::List, None,
        "Ids of the flows whose versions are observed. Without them versions are known from events alone.";
    ROLLBACK_INTERVAL = "rollback.interval", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("60s"),
        "Time between two observations of a flow's versions.";
    ALERTS_WEBHOOKS = "alerts.webhooks", Kind::Webhooks, None,
        "Who is told of incidents: each gets its own signed copies (Standard Webhooks). Make a secret with: echo whsec_$(openssl rand -base64 32).";
    ALERTS_GIVE_UP_AFTER = "alerts.give_up_after", Kind::Duration { least: Duration::from_secs(1), greatest: DAY.saturating_mul(90) }, Some("168h"),
        "How long a receiver that does not take an alert is tried; then the alert goes to the dead letters.";
    ALERTS_PRIVATE_RECEIVERS = "alerts.private_receivers", Kind::OneOf(&["refuse", "allow"]), Some("refuse"),
        "`allow` lets receivers be on this machine or in private networks, and speak plain http.";
    ROUTE_MODE = "route.mode", Kind::OneOf(&["shadow", "live", "off"]), Some("shadow"),
        "`shadow` answers requests for routing decisions and never asks the platform to publish, `live` also publishes where `route.platform_publish` says so, `off` answers nothing.";
    ROUTE_PLATFORM_PUBLISH = "route.platform_publish", Kind::OneOf(&["yes", "no"]), Some("no"),
        "Whether publishing a configuration also calls the platform's publish.";
    ROUTE_PATIENCE = "route.patience", Kind::Duration { least: MILLISECOND.saturating_mul(5), greatest: MILLISECOND.saturating_mul(190) }, Some("150ms"),
        "How long a request waits for the counters before it is answered from the last known state; the rest of 200 ms is for the way there and back.";
    ROUTE_BREAKER_PAUSE = "route.breaker_pause", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("1s"),
        "Time between two probes while the counters cannot be reached.";
    ROUTE_CONNECTIONS = "route.connections", Kind::Integer { least: 1, greatest: 50 }, Some("4"),
        "Connections to Postgres for routing decisions alone, beside `postgres.max_connections`.";
    ROUTE_RETENTION = "route.retention", Kind::Duration { least: Duration::from_secs(60), greatest: HOUR.saturating_mul(24 * 366) }, Some("168h"),
        "How long a conversation that is asked about again gets its answer again; later it counts as a new one.";
    ROUTE_JOURNAL = "route.journal", Kind::Text, None,
        "Folder for answers that cannot be recorded at once, so that they survive the process. Without it a folder below the system's for temporary files.";
    ROUTE_AVAILABILITY_INTERVAL = "route.availability_interval", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("10s"),
        "Time between two looks at how many agents of a queue are available.";
    ROUTE_AVAILABILITY_LIMIT = "route.availability_limit", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR.saturating_mul(24) }, Some("60s"),
        "Availability older than this is ignored: its queue counts as available.";
    ROUTE_QUEUES = "route.queues", Kind::List, None,
        "Ids of the queues whose availability is watched. Without it availability is not looked at.";
    COMPLIANCE_MODE = "compliance.mode", Kind::OneOf(&["on", "off"]), Some("on"),
        "`on` records what each call of a campaign counts as and makes figures of it; nothing is changed outside.";
    COMPLIANCE_INTERVAL = "compliance.interval", Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("60s"),
        "Time between two looks at open windows; periods of 30 days are looked at every fifteenth time.";
    COMPLIANCE_SETTLE = "compliance.settle", Kind::Duration { least: Duration::ZERO, greatest: DAY }, Some("1h"),
        "A window is stated as known so long after its end: its last calls are over and looked up then.";
    COMPLIANCE_RESTATE = "compliance.restate", Kind::OneOf(&["yes", "no"]), Some("yes"),
        "Whether calls are looked up again after four days, when the platform has gone over its analytics, and their windows restated: one query per 50 calls.";
    COMPLIANCE_TIME_ZONE = "compliance.time_zone", Kind::TimeZone, Some("UTC"),
        "Where days begin, unless a campaign has its own.";
    COMPLIANCE_CAP = "compliance.cap", Kind::Number { least: 0.0, greatest: 1.0 }, Some("0.03"),
        "Greatest share of abandoned calls that is allowed, as a fraction, unless a campaign has its own.";
    COMPLIANCE_GREETING_ALLOWANCE = "compliance.greeting_allowance", Kind::Duration { least: Duration::ZERO, greatest: MILLISECOND.saturating_mul(3_000) }, Some("0s"),
        "Time from the answer to the end of the called person's greeting; the two seconds in which an agent must be there begin after it.";
    COMPLIANCE_DENOMINATOR = "compliance.denominator", Kind::OneOf(&["calls_that_reached_queue", "all_calls"]), Some("calls_that_reached_queue"),
        "What the platform's own figure divides by: the organisation's setting complianceAbandonRateDenominator. With all_calls, 3 % at a connect rate of .15 is 20 % of live answers.";
    COMPLIANCE_WARN_AT = "compliance.warn_at", Kind::Number { least: 0.0, greatest: 1.0 }, Some("0.8"),
        "Share of the cap at which people are warned, once per campaign and window.";
    COMPLIANCE_WARN_ANSWERS = "compliance.warn_answers", Kind::Integer { least: 1, greatest: 1_000_000 }, Some("50"),
        "Answers a window must have before anybody is warned.";
    COMPLIANCE_RETENTION = "compliance.retention", Kind::Duration { least: DAY.saturating_mul(30), greatest: DAY.saturating_mul(1_827) }, Some("43848h"),
        "How long dial decisions, their outcomes, calls and figures are kept in the audit: 30 days to 5 years.";
    COMPLIANCE_CAMPAIGNS = "compliance.campaigns", Kind::Campaigns, None,
        "What is special about single campaigns: time zone, first day, cap, and the estimates of the UK form.";
    COMPLIANCE_ATTEMPTS_PER_MONTH = "compliance.attempts_per_month", Kind::Integer { least: 1, greatest: 1_000_000_000 }, None,
        "Call attempts of campaigns that the platform's licences cover in a month, such as 15000 per named licence; shown beside the attempts made.";
    COMPLIANCE_SIGNING_KEY = "compliance.signing_key", Kind::Secret, None,
        "Ed25519 private key, PKCS#8 as PEM, that evidence packs are signed with. Make one with: openssl genpkey -algorithm ed25519.";
    INFLUX_URL = "influx.url", HTTP, None,
        "InfluxDB v2 (or another line-protocol server) that gets a point per applied change. Without it none are sent.";
    INFLUX_ORG = "influx.org", Kind::Text, None, "Its organisation. Required with `influx.url`.";
    INFLUX_BUCKET = "influx.bucket", Kind::Text, None, "Its bucket. Required with `influx.url`.";
    INFLUX_TOKEN = "influx.token", Kind::Secret, None, "Its token. Required with `influx.url`.";
}

/// `TRUNKLINE_<SECTION>__<FIELD>`.
pub fn environment_name(key: &str) -> String {
    format!("TRUNKLINE_{}", key.replacen('.', "__", 1).replace('.', "_").to_uppercase())
}

/// The example file: defaults stand as comments, what must be given stands empty.
pub(super) fn example() -> String {
    let mut text = String::from(
        "# Made from the declarations in src/config/keys.rs; `trunkline check` tests it.\n\
         # Each key can also be given as TRUNKLINE_<SECTION>__<FIELD>, and from a file as TRUNKLINE_<SECTION>__<FIELD>_FILE.\n\
         # In [kafka] every librdkafka property is welcome by its own name, such as security.protocol.\n",
    );
    let mut section = "";
    for key in KEYS {
        let (of, field) = key.name.split_once('.').expect("section.field");
        if of != section {
            section = of;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let written = match (key.default, key.kind) {
            (Some(default), Kind::Integer { .. } | Kind::Number { .. }) => default.to_owned(),
            (Some(default), _) => format!("\"{default}\""),
            (None, Kind::List | Kind::ApiKeys | Kind::Clusters | Kind::Webhooks | Kind::Campaigns) => {
                "[]".to_owned()
            }
            (None, _) => "\"\"".to_owned(),
        };
        text.push_str(&format!("# {} Allowed: {}.\n# {field} = {written}\n", key.help, key.kind.allowed()));
    }
    text
}
