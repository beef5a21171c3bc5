//! Every key, declared once: the structs of the configuration, the loader, `docs/reference/configuration.md`
//! and the example file are made from this table.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;

use super::choice::{CampaignChange, Dialect, ErrorMeasure, RollbackPolicy, Switch, WithoutBaseline};
use super::kind::Kind;
use super::reader::Reader;
use super::{ApiKey, CampaignEntry, CredentialFiles, Organization, WatchedCluster, Webhook};
use crate::model::compliance::Denominator;
use crate::model::decision::Mode;
use crate::model::flow::MinuteSource;
use crate::model::settings::DialPolicy;

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
const MODE: Kind = Kind::OneOf(&["shadow", "live", "off"]);
const POLICY: Kind = Kind::OneOf(&["pacing", "proportional"]);

/// `field: type = kind, default, help;` by section. The type says what a key without a value is:
/// an `Option` is `None`, a list is empty, anything else is required unless it has a default.
macro_rules! keys {
    ($($(#[$about:meta])* $section:ident: $Section:ident {
        $($field:ident: $type:ty = $kind:expr, $default:expr, $help:literal;)*
    })*) => {
        $(
            $(#[$about])*
            #[derive(Debug)]
            pub struct $Section {
                $(#[doc = $help] pub $field: $type,)*
            }

            impl $Section {
                /// `None` after telling what is missing: all of it, at once.
                pub(super) fn read(reader: &mut Reader) -> Option<Self> {
                    $(let $field = reader.setting(&$section::$field);)*
                    Some(Self { $($field: $field?),* })
                }
            }

            #[expect(non_upper_case_globals, reason = "the name of a key is written once")]
            pub(super) mod $section {
                use super::*;
                $(pub(in crate::config) static $field: Key = Key {
                    name: concat!(stringify!($section), ".", stringify!($field)),
                    kind: $kind,
                    default: $default,
                    help: $help,
                };)*
            }
        )*

        /// A configuration in which every value is possible and all of them fit together.
        #[derive(Debug)]
        pub struct Config {
            $($(#[$about])* pub $section: $Section,)*
            /// librdkafka properties, by their own names.
            pub kafka_properties: BTreeMap<String, SecretString>,
            /// Where the OAuth client is read again; `None` where it does not change.
            pub credential_files: Option<CredentialFiles>,
        }

        impl Config {
            /// `None` after telling what is missing in any section.
            pub(super) fn read(reader: &mut Reader) -> Option<Self> {
                $(let $section = $Section::read(reader);)*
                let kafka_properties = std::mem::take(&mut reader.properties);
                Some(Self { $($section: $section?,)* kafka_properties, credential_files: None })
            }
        }

        /// All keys, section by section.
        pub static KEYS: &[&Key] = &[$($(&$section::$field),*),*];
    };
}

keys! {
    /// This instance among others.
    instance: Instance {
        name: Option<String> = Kind::Text, None,
            "Tells instances apart and must stay the same over restarts. Without it: host name and the lowest number free on this host.";
    }

    /// Brokers and topics. librdkafka's own properties stand beside it: [`Config::kafka_properties`].
    kafka: Kafka {
        brokers: String = Kind::Brokers, Some("127.0.0.1:9092"), "Where the brokers are.";
        topic_prefix: Option<String> = Kind::Text, None,
            "Stands before every topic, consumer group and transactional id.";
        partitions: i32 = Kind::Integer { least: 1, greatest: 1_000 }, Some("6"),
            "Partitions of the topics that `topics apply` creates: the most instances a stage can spread over.";
        replication_factor: Option<i32> = Kind::Integer { least: 1, greatest: 9 }, None,
            "Replicas of the topics that `topics apply` creates. Without it the brokers' own default.";
        workers: usize = Kind::Integer { least: 1, greatest: 64 }, Some("1"),
            "Worker threads of each stage in this instance.";
    }

    /// The database.
    postgres: Postgres {
        url: SecretString = Kind::PostgresUrl, None, "Where the database is. Required.";
        max_connections: u32 = Kind::Integer { least: 2, greatest: 500 }, Some("10"),
            "Connections this instance opens at most.";
        retention: Duration = Kind::Duration { least: DAY.saturating_mul(30), greatest: DAY.saturating_mul(36_525) }, Some("43848h"),
            "How long decisions and their outcomes are kept in the audit: a month (UTC) is dropped whole so long after its end. 30 days to 100 years.";
    }

    /// The HTTP interface.
    http: Http {
        listen: SocketAddr = Kind::Address, Some("127.0.0.1:8080"),
            "Address of the HTTP interface. Anything but loopback needs `http.api_keys`.";
        api_keys: Vec<ApiKey> = Kind::ApiKeys, None,
            "Bearer keys by role. Make one with: openssl rand -hex 32; its digest with: printf %s KEY | sha256sum.";
    }

    /// Limits of `POST /v1/events`.
    ingest: Ingest {
        max_body_bytes: usize = Kind::Integer { least: 1_024, greatest: 8 * 1_048_576 }, Some("1048576"),
            "Largest body of a request that brings events.";
        max_events: usize = Kind::Integer { least: 1, greatest: 100_000 }, Some("10000"),
            "Events one request may bring.";
        max_requests: usize = Kind::Integer { least: 1, greatest: 10_000 }, Some("128"),
            "Requests with events this instance works on at once; more are answered 503 with Retry-After.";
        events_per_second: Option<u32> = Kind::Integer { least: 1, greatest: 10_000_000 }, None,
            "Events this instance takes per second; more are answered 503 with Retry-After. Without it no limit.";
        read_timeout: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("10s"),
            "Longest time until the body of a request is complete.";
        delivery_timeout: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("4s"),
            "Longest time until the brokers have acknowledged a request's events; 503 with Retry-After then. EventBridge waits 5 s.";
    }

    /// The platform.
    genesys: Genesys {
        dialect: Dialect = Dialect::KIND, Some("seed"),
            "Which form of the platform's interface is spoken: `platform` is Genesys Cloud's own.";
        base_url: String = HTTP, None,
            "The platform's API host. Required, unless the dialect is `platform` and genesys.region is given.";
        login_url: Option<String> = HTTP, None,
            "Where tokens come from. Without it the API host; in the dialect `platform` the host login.… beside an API host that is called api.…";
        client_id: String = Kind::Text, None, "OAuth client of the client-credentials grant. Required.";
        client_secret: SecretString = Kind::Secret, None, "Its secret. Required.";
        requests_per_minute: u32 = Kind::Integer { least: 1, greatest: 100_000 }, Some("300"),
            "Requests all instances together send per budget window.";
        budget_window: Duration = Kind::Duration { least: Duration::from_millis(100), greatest: HOUR }, Some("60s"),
            "The window that budget counts in. Shorter than 60s only for a simulator run faster than real time.";
        calls_per_month: Option<u64> = Kind::Integer { least: 1, greatest: 1_000_000_000_000 }, None,
            "API calls that the platform's licences cover in a month for the whole organisation, such as 75000 per named user. Where they would not last, polls slow down. Without it calls are counted and nobody is slowed.";
        price_per_call: Option<f64> = Kind::Number { least: 0.0, greatest: 1_000.0 }, None,
            "What an API call beyond them costs, to forecast the month's cost. Without it no cost is shown.";
        organization_id: Option<String> = Kind::Text, None, "Named in facts about campaigns.";
        region: Option<String> = Kind::Text, None,
            "Named in facts about campaigns and in drift points, such as eu_west_1. In the dialect `platform` it says where the platform is, unless genesys.base_url does.";
        campaign_change: CampaignChange = CampaignChange::KIND, Some("patch"),
            "Dialect `platform`: `patch` sends a campaign's rate alone, and the last writer wins; `put` sends the whole campaign as it was read, and is refused where somebody changed it since.";
        organizations: Vec<Organization> = Kind::Organizations, None,
            "Further organisations of the platform, each with a client, tokens and budgets of its own. Ids of their campaigns, flows and queues are called name:id here and everywhere.";
    }

    /// Dial rates of campaigns.
    dial: Dial {
        mode: Option<Mode> = MODE, Some("shadow"),
            "`shadow` decides and records, `live` also acts, `off` does nothing.";
        interval: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("30s"),
            "Time between two observations of a campaign: one tick.";
        policy: DialPolicy = POLICY, Some("pacing"),
            "The rule. `pacing` keeps agents busy within a budget of abandoned calls. `proportional` has no fixed point: it walks to the greatest rate while the mean answer rate is below the target, and to the least while it is above.";
        shadow_policy: Option<DialPolicy> = POLICY, None,
            "A rule that decides beside it on the same inputs. Its answers stand in the decisions; nobody acts on them.";
        goal: f64 = Kind::Number { least: 0.001, greatest: 0.5 }, Some("0.02"),
            "Share of live answers that `pacing` lets be abandoned on average, as a fraction.";
        cap: f64 = Kind::Number { least: 0.001, greatest: 0.5 }, Some("0.03"),
            "Share of live answers abandoned that `pacing` keeps below, as a fraction. At least `dial.goal`.";
        handle_time: Duration = Kind::Duration { least: Duration::from_secs(1), greatest: DAY }, Some("180s"),
            "Mean time an agent spends on a call, before `pacing` has measured it.";
        utc_offset_minutes: i32 = Kind::Integer { least: -840, greatest: 840 }, Some("0"),
            "The campaigns' local time minus UTC: the days that `pacing` keeps its budget over begin there.";
        target: f64 = Kind::Number { least: 0.01, greatest: 1.0 }, Some("0.85"),
            "Answer rate that `proportional` aims at, as a fraction.";
        min_rate: f64 = Kind::Number { least: 1.0, greatest: 100.0 }, Some("1"),
            "Dialect `platform`: least calls per agent of a campaign; the platform's campaigns have no least rate of their own.";
        max_rate: f64 = Kind::Number { least: 1.0, greatest: 100.0 }, Some("15"),
            "Dialect `platform`: greatest calls per agent of a campaign; the organisation's own greatest holds besides.";
        campaigns: Vec<String> = Kind::List, None, "Ids of the campaigns to watch.";
    }

    /// How conversation events are counted.
    events: Events {
        window: Duration = Kind::Duration { least: Duration::from_secs(1), greatest: HOUR }, Some("60s"),
            "Length of a minute of event time, over which interactions with flows are counted. Shorter than 60s only for a simulator run faster than real time.";
        lateness: Duration = Kind::Duration { least: Duration::ZERO, greatest: HOUR }, Some("120s"),
            "How far behind the newest event of its partition an event may be and still count. Minutes stay open for so long.";
    }

    /// How long conversations wait for this and that.
    enrichment: Enrichment {
        mode: Switch = Switch::KIND, Some("on"),
            "`on` asks the platform's analytics about every conversation that has events; nothing is changed there.";
        quiet: Duration = Kind::Duration { least: MILLISECOND, greatest: DAY }, Some("60s"),
            "A conversation that goes on is asked about once it had no event for so long; one whose agent has not finished the work after the call, five times as long; one that is in a flow, in a queue or with an agent, fifteen times as long.";
        settle: Duration = Kind::Duration { least: Duration::ZERO, greatest: HOUR }, Some("5s"),
            "A conversation that is over is asked about once it had no event for so long: its last ones may be on their way.";
        patience: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(120), greatest: DAY.saturating_mul(7) }, Some("2h"),
            "A conversation that analytics do not know is asked about six times over this time, then it is a dead letter.";
        retention: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: DAY.saturating_mul(366) }, Some("168h"),
            "Enriched conversations are deleted so long after their last change, from Postgres and from their compacted topic.";
    }

    /// What of consumer groups is watched, and where the lines are drawn.
    lag: Lag {
        mode: Option<Mode> = MODE, Some("shadow"),
            "`shadow` watches and records, `live` also calls for help, `off` does nothing.";
        interval: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("10s"),
            "Time between two polls of a cluster's consumer groups.";
        include: Vec<String> = Kind::List, None,
            "Consumer groups to watch, `*` for any text. Without it all, trunkline's own among them.";
        exclude: Vec<String> = Kind::List, None, "Consumer groups not to watch, `*` for any text.";
        required: Vec<String> = Kind::List, None, "Consumer groups that must exist: MISSING_GROUP where they do not.";
        clusters: Vec<WatchedCluster> = Kind::Clusters, None,
            "Other clusters to watch. Their groups are called `name:group`; patterns and required groups are their own.";
        still_after: Duration = LAG_TIME, Some("60s"), "So long behind at one offset is STALLED, or STOPPED.";
        error_age: Duration = LAG_TIME, Some("30s"),
            "Waiting time of the head of the line that is an ERROR, in two polls.";
        warning_age: Duration = LAG_TIME, Some("15s"),
            "Waiting time of the head of the line that is a WARNING, in two polls.";
        trend_age: Duration = LAG_TIME, Some("5s"), "Waiting time above which it is a WARNING that it rises.";
        trend_window: Duration = LAG_TIME, Some("5m"), "Time over which it must rise.";
        history: Duration = LAG_TIME, Some("10m"), "How long a rewind and the rates are remembered.";
        cooldown: Duration = LAG_TIME, Some("5m"), "Time between two calls for help for one group.";
        catch_up: Duration = LAG_TIME, Some("5m"), "Time in which a group that is behind should have caught up.";
        analytics_groups: Vec<String> = Kind::List, None,
            "Consumer groups of the platform's own that its event analytics are asked about. Without it they are not asked.";
        analytics_interval: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("60s"),
            "Time between two such questions.";
        analytics_window: Duration = Kind::Duration { least: Duration::from_secs(1), greatest: HOUR.saturating_mul(24) }, Some("1h"),
            "The time up to now that is asked about; the platform refuses more than 24 h.";
        analytics_lag: Duration = LAG_TIME, Some("30s"), "Lag in analytics that exceeds the first threshold.";
        analytics_latency: Duration = LAG_TIME, Some("500ms"),
            "Processing latency in analytics that exceeds the second threshold.";
    }

    /// The rollback guard.
    rollback: Rollback {
        mode: Option<Mode> = MODE, Some("shadow"),
            "`shadow` decides and records, `live` also acts, `off` does nothing.";
        policy: RollbackPolicy = RollbackPolicy::KIND, Some("attributed"),
            "The rule. `consecutive` takes a version back after buckets in a row over the threshold, however bad the one before it was; `attributed` only when it is worse than that one.";
        without_baseline: WithoutBaseline = WithoutBaseline::KIND, Some("consecutive"),
            "What `attributed` does where the version before has had too few interactions: go by buckets in a row, or tell people only.";
        threshold: f64 = Kind::Number { least: 0.001, greatest: 0.9 }, Some("0.05"),
            "Errors per interaction that must be exceeded, as a fraction.";
        armed_minutes: u32 = Kind::Integer { least: 1, greatest: 10_080 }, Some("60"),
            "Minutes after a publish during which `attributed` may take it back; after that people are told only. Minutes are of the length of events.window.";
        cooldown_minutes: u32 = Kind::Integer { least: 1, greatest: 10_080 }, Some("15"),
            "Minutes after a rollback without another one of the same flow.";
        verify_minutes: u32 = Kind::Integer { least: 1, greatest: 1_440 }, Some("10"),
            "Minutes after a rollback until it is recorded whether the flow has recovered.";
        source: MinuteSource = Kind::OneOf(&["events", "polled"]), Some("events"),
            "Where the minutes of flows come from: counted from conversation events, or polled from the platform's measures.";
        errors: ErrorMeasure = ErrorMeasure::KIND, Some("exit_reason"),
            "Dialect `platform`: which polled interactions are errors: those that left the flow for an error, of all; or flow outcomes that failed, of all flow outcomes.";
        settling: Duration = Kind::Duration { least: Duration::ZERO, greatest: HOUR }, None,
            "How long after its end a polled minute is measured. Without it a sixth of a minute; in the dialect `platform`, whose analytics take minutes, three minutes.";
        polled_flows: Vec<String> = Kind::List, None,
            "Flows whose minutes are polled although rollback.source is events.";
        flows: Vec<String> = Kind::List, None,
            "Ids of the flows whose versions are observed. Without them versions are known from events alone.";
        interval: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("60s"),
            "Time between two observations of a flow's versions.";
    }

    /// Who is told of incidents.
    alerts: Alerts {
        webhooks: Vec<Webhook> = Kind::Webhooks, None,
            "Who is told of incidents: each gets its own signed copies (Standard Webhooks). Make a secret with: echo whsec_$(openssl rand -base64 32).";
        give_up_after: Duration = Kind::Duration { least: Duration::from_secs(1), greatest: DAY.saturating_mul(90) }, Some("168h"),
            "How long a receiver that does not take an alert is tried; then the alert goes to the dead letters.";
        private_receivers: bool = Kind::OneOf(&["refuse", "allow"]), Some("refuse"),
            "`allow` lets receivers be on this machine or in private networks, and speak plain http.";
    }

    /// Canaries of flows.
    delivery: Delivery {
        mode: Option<Mode> = MODE, Some("shadow"),
            "Canaries of flows: `shadow` decides and records, `live` also gives the candidate its share, `off` does nothing. Their minutes are counted as those of the rollback loop are.";
    }

    /// How weighted distribution answers.
    route: Route {
        mode: Option<Mode> = MODE, Some("shadow"),
            "`shadow` answers requests for routing decisions and never asks the platform to publish, `live` also publishes where `route.platform_publish` says so, `off` answers nothing.";
        platform_publish: bool = Kind::OneOf(&["yes", "no"]), Some("no"),
            "Whether publishing a configuration also calls the platform's publish.";
        patience: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(5), greatest: MILLISECOND.saturating_mul(190) }, Some("150ms"),
            "How long a request waits for the counters before it is answered from the last known state; the rest of 200 ms is for the way there and back.";
        breaker_pause: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("1s"),
            "Time between two probes while the counters cannot be reached.";
        connections: u32 = Kind::Integer { least: 1, greatest: 50 }, Some("4"),
            "Connections to Postgres for routing decisions alone, beside `postgres.max_connections`.";
        retention: Duration = Kind::Duration { least: Duration::from_secs(60), greatest: HOUR.saturating_mul(24 * 366) }, Some("168h"),
            "How long a conversation that is asked about again gets its answer again; later it counts as a new one.";
        journal: Option<String> = Kind::Text, None,
            "Folder for answers that cannot be recorded at once, so that they survive the process. Without it a folder below the system's for temporary files.";
        availability_interval: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("10s"),
            "Time between two looks at how many agents of a queue are available.";
        availability_limit: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR.saturating_mul(24) }, Some("60s"),
            "Availability older than this is ignored: its queue counts as available.";
        queues: Vec<String> = Kind::List, None,
            "Ids of the queues whose availability is watched. Without it availability is not looked at.";
    }

    /// How campaigns are counted for an auditor.
    compliance: Compliance {
        mode: Switch = Switch::KIND, Some("on"),
            "`on` records what each call of a campaign counts as and makes figures of it; nothing is changed outside.";
        interval: Duration = Kind::Duration { least: MILLISECOND.saturating_mul(100), greatest: HOUR }, Some("60s"),
            "Time between two looks at open windows; periods of 30 days are looked at every fifteenth time.";
        settle: Duration = Kind::Duration { least: Duration::ZERO, greatest: DAY }, Some("1h"),
            "A window is stated as known so long after its end: its last calls are over and looked up then.";
        restate: bool = Kind::OneOf(&["yes", "no"]), Some("yes"),
            "Whether calls are looked up again after four days, when the platform has gone over its analytics, and their windows restated: one query per 50 calls.";
        time_zone: String = Kind::TimeZone, Some("UTC"), "Where days begin, unless a campaign has its own.";
        cap: f64 = Kind::Number { least: 0.0, greatest: 1.0 }, Some("0.03"),
            "Greatest share of abandoned calls that is allowed, as a fraction, unless a campaign has its own.";
        greeting_allowance: Duration = Kind::Duration { least: Duration::ZERO, greatest: MILLISECOND.saturating_mul(3_000) }, Some("0s"),
            "Time from the answer to the end of the called person's greeting; the two seconds in which an agent must be there begin after it.";
        denominator: Denominator = Kind::OneOf(&["calls_that_reached_queue", "all_calls"]), Some("calls_that_reached_queue"),
            "What the platform's own figure divides by: the organisation's setting complianceAbandonRateDenominator. With all_calls, 3 % at a connect rate of .15 is 20 % of live answers.";
        warn_at: f64 = Kind::Number { least: 0.0, greatest: 1.0 }, Some("0.8"),
            "Share of the cap at which people are warned, once per campaign and window.";
        warn_answers: u64 = Kind::Integer { least: 1, greatest: 1_000_000 }, Some("50"),
            "Answers a window must have before anybody is warned.";
        retention: Duration = Kind::Duration { least: DAY.saturating_mul(30), greatest: DAY.saturating_mul(1_827) }, Some("43848h"),
            "How long calls and figures are kept in the audit, and dial decisions where this is shorter than postgres.retention: 30 days to 5 years.";
        campaigns: Vec<CampaignEntry> = Kind::Campaigns, None,
            "What is special about single campaigns: time zone, first day, cap, the estimates of the UK form, and attempts_per_month, beyond which a campaign dials at its least rate until the month (UTC) ends.";
        attempts_per_month: Option<u64> = Kind::Integer { least: 1, greatest: 1_000_000_000 }, None,
            "Call attempts of campaigns that the platform's licences cover in a month, such as 15000 per named licence; shown beside the attempts made, and people are told before they are used up.";
        price_per_attempt: f64 = Kind::Number { least: 0.0, greatest: 1_000.0 }, Some("0.005"),
            "What a call attempt beyond `compliance.attempts_per_month` costs, to forecast the month's cost.";
        signing_key: Option<SecretString> = Kind::Secret, None,
            "Ed25519 private key, PKCS#8 as PEM, that evidence packs are signed with. Make one with: openssl genpkey -algorithm ed25519.";
    }

    /// Changes at run time.
    settings: AtRunTime {
        require_replay: bool = Kind::OneOf(&["yes", "no"]), Some("no"),
            "`yes` refuses a change of how campaigns are dialled when the last day, played again under it by the model of each campaign, abandons more than the campaign's cap; or when that cannot be found out.";
    }

    /// Where points of applied changes go.
    influx: Influx {
        url: Option<String> = HTTP, None,
            "InfluxDB v2 (or another line-protocol server) that gets a point per applied change. Without it none are sent.";
        org: Option<String> = Kind::Text, None, "Its organisation. Required with `influx.url`.";
        bucket: Option<String> = Kind::Text, None, "Its bucket. Required with `influx.url`.";
        token: Option<SecretString> = Kind::Secret, None, "Its token. Required with `influx.url`.";
    }
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
            (None, kind) if kind.is_list() => "[]".to_owned(),
            (None, _) => "\"\"".to_owned(),
        };
        text.push_str(&format!("# {} Allowed: {}.\n# {field} = {written}\n", key.help, key.kind.allowed()));
    }
    text
}
