//! The platform's analytics are away for longer than anybody waits for one conversation.
//! The world and all of enrichment's waits run alike, `SPEED` times as fast as a clock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trunkline::genesys;
use trunkline::health::Health;
use trunkline::model::Timestamp;
use trunkline::sinks::analytics::{self, Waits};
use trunkline::sources::events::{self, Edge};

use crate::support::enrichment::{PATH, Stand, began, id};
use crate::support::simulated::settings;
use crate::support::within;

const SPEED: u32 = 200;
const MINUTE: Duration = Duration::from_secs(60);
/// Longer than six attempts take.
const OUTAGE_MINUTES: usize = 125;
const CONVERSATIONS_PER_MINUTE: usize = 72;
/// What analytics may be asked; some eight times what comes in.
const QUERIES_PER_MINUTE: u32 = 12;

/// All waits of the defaults, in the world's time.
fn hastened() -> analytics::Settings {
    let usual = analytics::Settings::default();
    let both = |(shortest, longest): (Duration, Duration)| (shortest / SPEED, longest / SPEED);
    analytics::Settings {
        waits: Waits {
            quiet: usual.waits.quiet / SPEED,
            settle: usual.waits.settle / SPEED,
            patience: usual.waits.patience / SPEED,
        },
        linger: usual.linger / SPEED,
        pauses: both(usual.pauses),
        ..usual
    }
}

fn envelopes(numbers: Range<usize>) -> String {
    let event = |number, kind: &str, after_ms| {
        json!({
            "version": "0", "id": format!("{number}-{kind}"), "time": "2026-01-02T03:04:05Z",
            "detail-type": format!("v2.detail.events.conversation.{{id}}.{kind}"),
            "detail": {
                "topicName": format!("v2.detail.events.conversation.{}.{kind}", id(number)),
                "eventBody": {"eventTime": began() + after_ms, "conversationId": id(number)},
            },
        })
    };
    let of = |number| [event(number, "customer.start", 0), event(number, "customer.end", 4_000)];
    Value::Array(numbers.flat_map(of).collect()).to_string()
}

fn at(entry: &Value) -> i64 {
    entry["at"].as_str().unwrap().parse::<Timestamp>().unwrap().as_millis()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hours_without_analytics_cost_nothing_but_two_hours() {
    let stand = Stand::at(simulator::Settings { speed: f64::from(SPEED), ..settings() }).await;
    stand.organization.fault("POST", PATH, json!({"type": "status", "code": 503})).await;
    let usual = genesys::Settings::default();
    let client = genesys::Settings {
        requests_per_minute: QUERIES_PER_MINUTE,
        budget_window: MINUTE / SPEED,
        breaker_pause: usual.breaker_pause / SPEED,
        ..stand.client_settings()
    };
    let instance = stand.start_as("one", hastened(), &stand.own.options(), &client);
    let edge = Arc::new(Edge::new(events::Settings::default(), &stand.kafka, &Health::default()).unwrap());
    let stop = CancellationToken::new();
    let edge_running = tokio::spawn(Arc::clone(&edge).run(stop.clone()));

    let is_json = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);

    let simulated = || stand.organization.running.overview().simulated_seconds;
    let began = simulated();
    for minute in 0..OUTAGE_MINUTES {
        let numbers = minute * CONVERSATIONS_PER_MINUTE..(minute + 1) * CONVERSATIONS_PER_MINUTE;
        stand.register(numbers.clone()).await;
        let events = 2 * numbers.len() as u64;
        let receipt = edge.take(&is_json, envelopes(numbers).as_bytes()).await;
        assert_eq!(receipt.expect("the edge takes events").accepted, events, "minute {minute}");
        within(MINUTE, "a simulated minute", async || {
            (simulated() >= began + 60 * (minute as u64 + 1)).then_some(())
        })
        .await;
    }
    let all = (OUTAGE_MINUTES * CONVERSATIONS_PER_MINUTE) as i64;
    within(MINUTE, "all to be pending", async || {
        (stand.states().await == BTreeMap::from([("pending".to_owned(), all)])).then_some(())
    })
    .await;
    let attempts: i64 = sqlx::query_scalar("SELECT sum(attempts)::bigint FROM audit.conversations")
        .fetch_one(stand.database.pool())
        .await
        .unwrap();
    assert_eq!(attempts, 0, "an API that is away says nothing about a conversation");
    assert_eq!(stand.asked("POST", true).await, 0);

    stand.organization.faults(json!([])).await;
    stand.all_done(all).await;
    instance.stop().await;
    stop.cancel();
    edge_running.await.unwrap();

    let asked = stand.organization.requests_of("POST", PATH).await;
    let (good, failed): (Vec<&Value>, Vec<&Value>) = asked.iter().partition(|entry| entry["status"] == 200);
    let second = |entry: &Value| entry["simulatedSeconds"].as_u64().unwrap();
    let away = second(failed.last().unwrap()) - second(failed[0]);
    let drained_ms = at(good.last().unwrap()) - at(good[0]);
    println!("{} failed in {away} s of the world, {} queries in {drained_ms} ms", failed.len(), good.len());
    assert!(away > 7_200, "analytics were away for {away} s of the world only");
    assert!(failed.len() > 6, "an outage of {} attempts", failed.len());
    assert!(
        failed.len() <= 2 * OUTAGE_MINUTES,
        "{} queries to an API that is away: one a minute probes it",
        failed.len()
    );
    let needed = (all as usize).div_ceil(50);
    assert!(good.len() <= needed + needed / 10, "{} queries for {needed} times 50", good.len());
    let minutes = drained_ms as f64 / 1e3 * f64::from(SPEED) / 60.0;
    let allowed = (minutes + 1.0) * f64::from(QUERIES_PER_MINUTE);
    assert!(good.len() as f64 <= allowed, "{} queries in {minutes} minutes", good.len());
}
