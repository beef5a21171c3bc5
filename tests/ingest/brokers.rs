//! Brokers that are away: nothing is acknowledged that is not there afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use trunkline::console::EventLimits;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::sources::events::Settings;
use trunkline::topics::CONVERSATION_EVENTS;

use super::support::kafka::{self, create_topics, read_all};
use super::support::services::{Service, Services};
use super::support::within;
use super::{BROKER_WAIT, Running, TOPICS, envelope, problem, value};

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_do_not_exist_are_named_by_readiness_and_nothing_is_acknowledged() {
    let kafka = kafka::settings();
    let settings = Settings { delivery_timeout: Duration::from_millis(500), ..Settings::default() };
    let edge = Running::with(&kafka, settings, EventLimits::default()).await;
    problem(edge.send(envelope("e", "c").to_string()).await, 503, "unavailable").await;
    within(BROKER_WAIT, "readiness to name the topic", async || {
        let reasons = edge.health.reasons();
        reasons.iter().any(|(_, reason)| reason.contains("topics apply")).then_some(())
    })
    .await;
    create_topics(&kafka, TOPICS, 1).await;
    within(BROKER_WAIT, "events to be taken", async || {
        (edge.send(envelope("e", "c").to_string()).await.status() == 200).then_some(())
    })
    .await;
    within(BROKER_WAIT, "readiness", async || edge.health.reasons().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_costs_no_acknowledged_event() {
    let services = Arc::new(tokio::task::spawn_blocking(Services::start).await.unwrap());
    let kafka = KafkaSettings { brokers: services.kafka.clone(), ..kafka::settings() };
    create_topics(&kafka, TOPICS, 2).await;
    let settings = Settings { delivery_timeout: Duration::from_secs(2), ..Settings::default() };
    let edge = Arc::new(Running::with(&kafka, settings, EventLimits::default()).await);

    let stop = Arc::new(AtomicBool::new(false));
    let [taken, refused] = [const { AtomicU64::new(0) }; 2].map(Arc::new);
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (edge, stop) = (edge.clone(), stop.clone());
            let (taken, refused) = (taken.clone(), refused.clone());
            tokio::spawn(async move {
                let mut acknowledged = BTreeSet::new();
                for number in 0_u64.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let id = format!("{sender}-{number}");
                    let answer = edge.send(envelope(&id, &id).to_string()).await;
                    if answer.status() == 200 {
                        acknowledged.insert(id);
                        taken.fetch_add(1, Ordering::AcqRel);
                    } else {
                        assert_eq!(answer.status(), 503);
                        let wait = answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap();
                        assert!(wait > 0);
                        refused.fetch_add(1, Ordering::AcqRel);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                acknowledged
            })
        })
        .collect();

    let control = {
        let services = services.clone();
        move |again: bool| {
            let services = services.clone();
            tokio::task::spawn_blocking(move || match again {
                true => services.start_again(Service::Kafka),
                false => services.kill(Service::Kafka),
            })
        }
    };
    within(BROKER_WAIT, "events to be taken", async || (taken.load(Ordering::Acquire) > 10).then_some(()))
        .await;
    control(false).await.unwrap();
    within(BROKER_WAIT, "refusals while the broker is away", async || {
        (refused.load(Ordering::Acquire) > 8).then_some(())
    })
    .await;
    assert!(!edge.health.reasons().is_empty(), "readiness says so");
    control(true).await.unwrap();
    within(BROKER_WAIT, "events to be taken again", async || {
        (edge.send(envelope("last", "last").to_string()).await.status() == 200).then_some(())
    })
    .await;
    stop.store(true, Ordering::Release);
    let mut acknowledged = BTreeSet::from(["last".to_owned()]);
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    let there: BTreeSet<String> = read_all(&kafka, &CONVERSATION_EVENTS)
        .iter()
        .map(|record| value(record)["eventId"].as_str().unwrap().to_owned())
        .collect();
    let missing: Vec<_> = acknowledged.difference(&there).collect();
    assert!(missing.is_empty(), "acknowledged and gone: {missing:?}");
}
