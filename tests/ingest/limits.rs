//! Too much, too fast, too slow: refused with a remedy, and the rest goes on.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline::console::EventLimits;
use trunkline::sources::events::Settings;
use trunkline::topics::{CONVERSATION_EVENTS, DEAD_LETTERS};

use super::support::kafka::{self, create_topics, read_all};
use super::{Running, TOPICS, envelope, problem};

/// Sends a head and some of a body in chunks; answers the status of the reply.
pub(crate) async fn chunked(edge: &Running, chunks: &[Vec<u8>], end: bool) -> u16 {
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        edge.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for chunk in chunks {
        let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
        // The edge hangs up on what is too large.
        if stream.write_all(&framed).await.is_err() {
            break;
        }
    }
    if end {
        let _ = stream.write_all(b"0\r\n\r\n").await;
    }
    let mut reply = [0; 12];
    tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut reply))
        .await
        .expect("a reply")
        .unwrap();
    std::str::from_utf8(&reply[9..]).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_a_length_have_the_same_limits() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let limits = EventLimits {
        max_body_bytes: 64 * 1_024,
        read_timeout: Duration::from_millis(300),
        ..EventLimits::default()
    };
    let edge = Running::with(&kafka, Settings::default(), limits).await;
    let body = envelope("e", "c").to_string().into_bytes();
    let (first, second) = body.split_at(40);
    assert_eq!(chunked(&edge, &[first.to_vec(), second.to_vec()], true).await, 200);
    assert_eq!(chunked(&edge, &vec![vec![b' '; 16 * 1_024]; 5], true).await, 413);
    assert_eq!(chunked(&edge, &[first.to_vec()], false).await, 408, "a body that never ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_events_than_a_request_may_bring_are_refused_whole() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let settings = Settings { max_events: 3, ..Settings::default() };
    let edge = Running::with(&kafka, settings, EventLimits::default()).await;
    let event = json!({"conversationId": "c"});
    let many = json!([envelope("1", "c"), envelope("2", "c"), envelope("3", "c"), envelope("4", "c")]);
    problem(edge.send(many.to_string()).await, 413, "body-too-large").await;
    let list = json!({"detail": [event, 1, {"conversationId": "d"}, {"conversationId": "e"}]});
    problem(edge.send(list.to_string()).await, 413, "body-too-large").await;
    assert!(read_all(&kafka, &CONVERSATION_EVENTS).is_empty());
    assert!(read_all(&kafka, &DEAD_LETTERS).is_empty());
    let three = json!({"detail": [event, 1, {"conversationId": "d"}]});
    assert_eq!(edge.take(three.to_string()).await["accepted"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_above_the_rate_is_told_when_to_come_again() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let settings = Settings { events_per_second: Some(2), ..Settings::default() };
    let edge = Running::with(&kafka, settings, EventLimits::default()).await;
    let six: Vec<_> = (0..6).map(|number| envelope(&number.to_string(), "c")).collect();
    assert_eq!(edge.take(json!(six).to_string()).await["accepted"], 6);
    let refused = problem(edge.send(envelope("7", "c").to_string()).await, 503, "overloaded").await;
    assert!(refused["detail"].as_str().unwrap().contains("ingest.events_per_second"), "{refused}");
    super::support::until("the rate to be worked off", async || {
        (edge.send(envelope("7", "c").to_string()).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(read_all(&kafka, &CONVERSATION_EVENTS).len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_beyond_the_places_come_again_and_crowd_nobody_else_out() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let limits = EventLimits { max_concurrent: 1, ..EventLimits::default() };
    let edge = Running::with(&kafka, Settings::default(), limits).await;
    // A body that is announced and does not come holds the only place.
    let mut slow = TcpStream::connect(edge.address).await.unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n",
        edge.address
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let send = || edge.send(envelope("e", "c").to_string());
    super::support::until("the place to be taken", async || (send().await.status() == 503).then_some(()))
        .await;
    problem(send().await, 503, "overloaded").await;
    let alive = edge.client.get(format!("http://{}/healthz", edge.address)).send().await.unwrap();
    assert_eq!(alive.status(), 200);
    drop(slow);
    super::support::until("the place to be free", async || (send().await.status() == 200).then_some(()))
        .await;
}
