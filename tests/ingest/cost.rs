//! What an event costs the edge, counted instead of timed.

use axum::http::HeaderMap;
use serde_json::Value;
use trunkline::health::Health;
use trunkline::sources::events::{Edge, Settings};

use super::support::kafka::{self, create_topics};
use super::{TOPICS, allocations, envelope};

fn body(events: std::ops::Range<usize>) -> Vec<u8> {
    let event = |number: usize| envelope(&format!("e{number:09}"), &format!("c{:09}", number / 3));
    Value::from_iter(events.map(event)).to_string().into_bytes()
}

/// How often the edge asks for memory on this thread until it has answered.
async fn allocated(edge: &Edge, events: std::ops::Range<usize>) -> u64 {
    let (body, count, headers) = (body(events.clone()), events.len() as u64, HeaderMap::new());
    let before = allocations::so_far();
    let receipt = edge.take(&headers, &body).await;
    let allocated = allocations::so_far() - before;
    assert_eq!(receipt.expect("it is taken").accepted, count);
    allocated
}

/// One thread, so that all that the edge does for a request is counted.
#[tokio::test]
async fn an_event_costs_no_more_than_it_did() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 2).await;
    let edge = Edge::new(Settings::default(), &kafka, &Health::default()).expect("a producer");
    allocated(&edge, 0..100).await;
    let (hundred, thousand) = (allocated(&edge, 1_000..1_100).await, allocated(&edge, 2_000..3_000).await);
    let each = (thousand - hundred) as f64 / 900.0;
    println!("{hundred} and {thousand} allocations, {each} for an event");
    assert!(each < 6.05, "{each} allocations for an event");
}
