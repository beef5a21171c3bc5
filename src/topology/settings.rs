//! From the configuration to what each room wants to know.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, RollbackPolicy, Webhook};
use crate::console::{self, ApiKey, ApiKeyError};
use crate::kafka::admin::TopicSettings;
use crate::kafka::settings::KafkaSettings;
use crate::routing;
use crate::runtime::StageSettings;
use crate::{genesys, postgres};

use crate::model::flow::MinuteSource;
use crate::replay::Numbers;
use crate::sinks::{actuator, alerts, analytics, audit, compliance, drift};
use crate::sources::{
    Names, analytics_poller, campaign_poller, events, flow_poller, lag_poller, queue_poller,
};
use crate::stages::delivery::canary::Plan;
use crate::stages::dialing::pacing::Pacing;
use crate::stages::dialing::proportional::Proportional;
use crate::stages::dialing::rules::Rules;
use crate::stages::lag::Intervals;
use crate::stages::lag::rules::Thresholds;
use crate::stages::rollback::Sources;
use crate::stages::rollback::rule::{Policy, Rule, WithoutBaseline};

use super::instance::Instance;
use super::roles::roles;
use super::{allowances, platforms};
use crate::role::Kind;

pub use super::platforms::{further_organizations, genesys};

pub fn kafka(config: &Config, instance: &Instance) -> KafkaSettings {
    KafkaSettings {
        brokers: config.kafka.brokers.clone(),
        topic_prefix: config.topic_prefix().to_owned(),
        instance: instance.name().to_owned(),
        properties: config.kafka_properties.clone(),
    }
}

pub fn stage(config: &Config) -> StageSettings {
    StageSettings { workers: config.kafka.workers, ..StageSettings::default() }
}

pub fn topics(config: &Config) -> TopicSettings {
    /// What the protocol calls "the broker's own default" (KIP-464).
    const BROKERS_DEFAULT: i32 = -1;
    TopicSettings {
        partitions: config.kafka.partitions,
        replication: config.kafka.replication_factor.unwrap_or(BROKERS_DEFAULT),
    }
}

pub fn postgres(config: &Config) -> postgres::Settings {
    postgres::Settings {
        url: config.postgres.url.clone(),
        max_connections: config.postgres.max_connections,
        ..postgres::Settings::default()
    }
}

/// Where the simulator's time runs faster, a pause must be as much shorter.
pub(super) fn at_pace(config: &Config, pause: Duration) -> Duration {
    pause.mul_f64(pace(config)).max(Duration::from_millis(100))
}

/// Our seconds for one of the platform's, 1 or less.
fn pace(config: &Config) -> f64 {
    (config.genesys.budget_window.as_secs_f64() / 60.0).min(1.0)
}

/// Campaigns that wait for one organisation's budget must not keep decisions about others unread.
pub fn actuator(config: &Config) -> actuator::Settings {
    let settings = actuator::settings(platforms::conditional_changes(config));
    let in_flight_limit = settings.in_flight_limit.max(2 * config.dial.campaigns.len());
    actuator::Settings { in_flight_limit, ..settings }
}

pub fn audit(config: &Config) -> audit::Settings {
    let organizations = config.genesys.organizations.iter().map(|other| other.name.clone()).collect();
    let retention = config.postgres.retention;
    audit::Settings { organizations, retention, ..audit::Settings::default() }
}

pub fn campaign_poller(config: &Config) -> campaign_poller::Settings {
    campaign_poller::Settings {
        campaigns: config.dial.campaigns.clone(),
        interval: config.dial.interval,
        ..campaign_poller::Settings::default()
    }
}

pub fn dial_rules(config: &Config) -> Rules {
    let dial = &config.dial;
    Rules {
        policy: dial.policy,
        shadow: dial.shadow_policy,
        pacing: Pacing {
            goal: dial.goal,
            cap: dial.cap,
            handle_seconds: dial.handle_time.as_secs_f64(),
            day_offset_minutes: dial.utc_offset_minutes,
            // A simulator that runs faster counts more seconds than we do.
            time_scale: 1.0 / pace(config),
        },
        proportional: Proportional { target: dial.target },
    }
}

/// The numbers of every loop's rule.
pub fn numbers(config: &Config) -> Numbers {
    Numbers {
        dial: dial_rules(config),
        dial_tick_ms: u64::try_from(config.dial.interval.as_millis()).unwrap_or(u64::MAX),
        rollback: rollback_rule(config),
        lag: lag_thresholds(config),
        delivery: Plan::default(),
    }
}

pub fn lag_thresholds(config: &Config) -> Thresholds {
    let lag = &config.lag;
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Thresholds {
        still_ms: ms(lag.still_after),
        error_age_ms: ms(lag.error_age),
        warning_age_ms: ms(lag.warning_age),
        trend_age_ms: ms(lag.trend_age),
        trend_window_ms: ms(lag.trend_window),
        analytics_lag_ms: lag.analytics_lag.as_secs_f64() * 1_000.0,
        analytics_latency_ms: lag.analytics_latency.as_secs_f64() * 1_000.0,
        history_ms: ms(lag.history),
        cooldown_ms: ms(lag.cooldown),
        catch_up_ms: ms(lag.catch_up),
        ..Thresholds::default()
    }
}

pub fn lag_intervals(config: &Config) -> Intervals {
    Intervals { broker: config.lag.interval, analytics: config.lag.analytics_interval }
}

pub fn lag_poller(config: &Config, kafka: &KafkaSettings) -> lag_poller::Settings {
    let lag = &config.lag;
    // Groups of sources share work out and read nothing: they are never behind.
    let of_sources = roles().filter(|role| role.kind == Kind::Source);
    let own = lag_poller::Choice {
        include: lag.include.clone(),
        exclude: lag.exclude.iter().cloned().chain(of_sources.map(|role| kafka.group(role.name))).collect(),
        required: lag.required.clone(),
    };
    let others = lag.clusters.iter().map(|cluster| {
        let reached = KafkaSettings {
            brokers: cluster.brokers.clone(),
            properties: cluster.properties.clone(),
            ..kafka.clone()
        };
        let choice = lag_poller::Choice {
            include: cluster.include.clone(),
            exclude: cluster.exclude.clone(),
            required: cluster.required.clone(),
        };
        (cluster.name.clone(), reached, choice)
    });
    lag_poller::Settings { own, others: others.collect(), interval: lag.interval }
}

pub fn rollback_rule(config: &Config) -> Rule {
    let rollback = &config.rollback;
    Rule {
        policy: match rollback.policy {
            RollbackPolicy::Attributed => Policy::Attributed,
            RollbackPolicy::Consecutive => Policy::Consecutive,
        },
        without_baseline: match rollback.without_baseline {
            config::WithoutBaseline::Alert => WithoutBaseline::Alert,
            config::WithoutBaseline::Consecutive => WithoutBaseline::Consecutive,
        },
        threshold: rollback.threshold,
        armed_minutes: rollback.armed_minutes,
        cooldown_minutes: rollback.cooldown_minutes,
        verify_minutes: rollback.verify_minutes,
        minute: config.events.window,
        ..Rule::default()
    }
}

pub fn rollback_sources(config: &Config) -> Sources {
    Sources { usual: config.rollback.source, polled: config.rollback.polled_flows.iter().cloned().collect() }
}

/// How long a rollback locks its flow.
pub fn rollback_lockout(config: &Config) -> Duration {
    let rule = rollback_rule(config);
    rule.minutes(rule.cooldown_minutes)
}

pub fn flow_poller(config: &Config) -> flow_poller::Settings {
    let rollback = &config.rollback;
    let mut flows = rollback.flows.clone();
    flows.extend(rollback.polled_flows.iter().filter(|flow| !rollback.flows.contains(flow)).cloned());
    let polled = match rollback.source {
        MinuteSource::Polled => flows.clone(),
        MinuteSource::Events => rollback.polled_flows.clone(),
    };
    flow_poller::Settings {
        flows,
        polled,
        interval: rollback.interval,
        minute: config.events.window,
        settling: rollback.settling,
        concurrency: 32,
        names: Names::default(),
    }
}

/// `None` where the platform's analytics are asked about no group.
pub fn analytics_poller(config: &Config) -> Option<analytics_poller::Settings> {
    let lag = &config.lag;
    (!lag.analytics_groups.is_empty()).then(|| analytics_poller::Settings {
        groups: lag.analytics_groups.clone(),
        interval: lag.analytics_interval,
        window: lag.analytics_window,
    })
}

/// # Errors
/// When a key's role or digest cannot be read, which a checked configuration rules out.
pub fn console<'s>(
    config: &Config,
    platforms: impl IntoIterator<Item = &'s genesys::Settings>,
) -> Result<console::Settings, ApiKeyError> {
    let api_keys = config
        .http
        .api_keys
        .iter()
        .map(|key| ApiKey::new(&key.name, key.role.parse()?, &key.sha256))
        .collect::<Result<_, _>>()?;
    let events = console::EventLimits {
        max_body_bytes: config.ingest.max_body_bytes,
        max_concurrent: config.ingest.max_requests,
        read_timeout: config.ingest.read_timeout,
        // The intake's own limits come first; this one is for what they do not cover.
        request_timeout: config.ingest.read_timeout + config.ingest.delivery_timeout + Duration::from_secs(5),
    };
    let ticks = console::Ticks { dial: config.dial.interval, lag: config.lag.interval };
    let listen = config.http.listen;
    let account = |platform: &genesys::Settings| {
        let credentials = platform.credentials.clone();
        console::Account {
            organization: platform.organization.name.clone(),
            calls: allowances::calls(config, platform),
            client: console::OauthClientId(Arc::new(move || credentials.account())),
        }
    };
    let covered = console::Covered {
        accounts: platforms.into_iter().map(account).collect(),
        attempts: config.compliance.attempts(),
    };
    Ok(console::Settings { listen, api_keys, events, ticks, covered, ..console::Settings::default() })
}

pub fn ingest(config: &Config) -> events::Settings {
    events::Settings {
        max_events: config.ingest.max_events,
        max_body_bytes: config.ingest.max_body_bytes,
        events_per_second: config.ingest.events_per_second,
        delivery_timeout: config.ingest.delivery_timeout,
        organizations: config
            .genesys
            .organizations
            .iter()
            .filter_map(|other| Some((other.organization_id.clone()?, other.name.clone())))
            .collect(),
    }
}

pub fn alerts(config: &Config) -> alerts::Settings {
    let receiver = |webhook: &Webhook| alerts::Receiver {
        name: webhook.name.clone(),
        url: webhook.url.clone(),
        secrets: webhook.secrets.clone(),
        incident_types: webhook.incident_types.clone(),
    };
    alerts::Settings {
        receivers: config.alerts.webhooks.iter().map(receiver).collect(),
        private_receivers: config.alerts.private_receivers,
        give_up_after: config.alerts.give_up_after,
        ..alerts::Settings::default()
    }
}

/// `None` where no line-protocol server is configured.
pub fn drift(config: &Config) -> Option<drift::Settings> {
    let influx = &config.influx;
    Some(drift::Settings {
        url: influx.url.clone()?,
        org: influx.org.clone()?,
        bucket: influx.bucket.clone()?,
        token: influx.token.clone()?,
        region: config.genesys.region.clone(),
        regions: config
            .genesys
            .organizations
            .iter()
            .map(|other| (other.name.clone(), other.region.clone()))
            .collect(),
        ..drift::Settings::default()
    })
}

/// `None` where it is off.
pub fn enrichment(config: &Config) -> Option<analytics::Settings> {
    let enrichment = config.enrichment.mode.is_on().then_some(&config.enrichment)?;
    let defaults = analytics::Settings::default();
    Some(analytics::Settings {
        waits: analytics::Waits {
            quiet: enrichment.quiet,
            settle: enrichment.settle,
            patience: enrichment.patience,
        },
        retention: enrichment.retention,
        linger: at_pace(config, defaults.linger),
        pauses: (at_pace(config, defaults.pauses.0), at_pace(config, defaults.pauses.1)),
        ..defaults
    })
}

/// The platform goes over its analytics of days that are at least 48 hours old.
const RESTATE_AFTER: Duration = Duration::from_secs(4 * 86_400);

/// `None` where it is off.
pub fn compliance(config: &Config) -> Option<compliance::Settings> {
    let compliance = config.compliance.mode.is_on().then_some(&config.compliance)?;
    let campaigns = compliance.terms();
    Some(compliance::Settings {
        interval: compliance.interval,
        settle: compliance.settle,
        restate_after: RESTATE_AFTER,
        retention: compliance.retention,
        decisions_end: compliance.retention < config.postgres.retention,
        rules: compliance.rules(),
        warning: compliance.warning(),
        watched: config.dial.campaigns.iter().chain(campaigns.own.keys()).cloned().collect(),
        campaigns,
    })
}

pub fn queue_poller(config: &Config) -> queue_poller::Settings {
    queue_poller::Settings {
        queues: config.route.queues.clone(),
        interval: config.route.availability_interval,
        concurrency: 8,
        // What is older than the limit is ignored.
        longest_stretch: config.route.availability_limit.as_secs_f64()
            / config.route.availability_interval.as_secs_f64()
            / 2.0,
    }
}

pub fn routing(config: &Config, instance: &str) -> routing::Settings {
    let folder = config.route.journal.as_ref().map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    // Instances on one host must not take up each other's answers.
    let own: String = format!("{}{instance}", config.topic_prefix())
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
        .collect();
    routing::Settings {
        patience: config.route.patience,
        breaker_pause: config.route.breaker_pause,
        retention: config.route.retention,
        journal: Some(folder.join(format!("trunkline-routing-{own}"))),
        ..routing::Settings::default()
    }
}

/// How patient the connections are that routing decisions wait for.
pub const ROUTE_PATIENCE: postgres::routing::Patience = postgres::routing::Patience {
    statement: Duration::from_secs(2),
    idle_in_transaction: Duration::from_millis(500),
};
