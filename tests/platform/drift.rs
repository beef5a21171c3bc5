//! Drift points into a real server that takes line protocol, read back from it; and
//! into one that misbehaves.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::sinks::drift::{self, DriftError, Settings};
use trunkline::topics::OUTCOMES;

use crate::support::{kafka, until};

const AT_MS: i64 = 1_767_323_045_678;

/// A VictoriaMetrics of the test's own.
struct Server {
    url: String,
    process: Child,
    _data: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let binary =
            std::env::var("TRUNKLINE_TEST_VICTORIA").unwrap_or_else(|_| "victoria-metrics".to_owned());
        let data = tempfile::tempdir().expect("a folder");
        let address =
            StdListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let process = Command::new(&binary)
            .arg(format!("-httpListenAddr={address}"))
            .arg(format!("-storageDataPath={}", data.path().display()))
            .args(["-search.latencyOffset=0s", "-retentionPeriod=100y", "-loggerLevel=ERROR"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error: io::Error| {
                panic!("{binary} does not start ({error}): run `make test`, which installs victoria-metrics")
            });
        let server = Self { url: format!("http://{address}"), process, _data: data };
        until("VictoriaMetrics to answer", || async {
            let reply = reqwest::get(format!("{}/health", server.url)).await.ok()?;
            reply.status().is_success().then_some(())
        })
        .await;
        server
    }

    /// Every series of the measurement: labels, values and times.
    async fn series(&self) -> Vec<Value> {
        reqwest::get(format!("{}/internal/force_flush", self.url)).await.expect("flushes");
        let query = "match[]=%7B__name__%3D~%22campaign_drift.*%22%7D";
        let reply = reqwest::get(format!("{}/api/v1/export?{query}", self.url)).await.expect("answers");
        let text = reply.text().await.expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn outcome(campaign: &str, sequence: u64, status: &str, effect: Option<(f64, f64)>) -> Value {
    let effect = effect.map(|(old, new)| json!({"previousDialRate": old, "dialRate": new}));
    let mut outcome = json!({
        "decisionId": uuid::Uuid::now_v7(), "loop": "dial", "key": campaign, "sequence": sequence,
        "status": status, "reason": "confirmed", "attempts": 1,
        "finishedAt": Timestamp::from_millis(AT_MS + sequence as i64)
    });
    if let Some(effect) = effect {
        outcome["effect"] = effect;
    }
    outcome
}

async fn publish(kafka: &KafkaSettings, outcomes: &[Value]) {
    let texts: Vec<(String, Vec<u8>)> = outcomes
        .iter()
        .map(|outcome| {
            let key = outcome["key"].as_str().unwrap_or("poison").to_owned();
            (key, serde_json::to_vec(outcome).expect("JSON"))
        })
        .collect();
    let records: Vec<(&str, &[u8])> = texts.iter().map(|(key, value)| (&**key, &**value)).collect();
    kafka::produce(kafka, &OUTCOMES, None, &records).await;
}

fn settings(url: &str) -> Settings {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Settings {
        url: url.to_owned(),
        org: "an org".to_owned(),
        bucket: "drift&more".to_owned(),
        token: "canary-token".into(),
        region: Some("eu west=1".to_owned()),
        retry: (Duration::from_millis(20), Duration::from_millis(200)),
        ..Settings::default()
    }
}

async fn kafka() -> KafkaSettings {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&OUTCOMES], 1).await;
    kafka
}

struct Running {
    task: JoinHandle<Result<(), DriftError>>,
    stop: CancellationToken,
    health: Health,
}

impl Running {
    fn start(kafka: &KafkaSettings, settings: Settings) -> Self {
        let (kafka, stop, health) = (kafka.clone(), CancellationToken::new(), Health::default());
        let task = tokio::spawn({
            let (stop, health) = (stop.clone(), health.clone());
            async move { drift::run(&kafka, settings, &health, stop).await }
        });
        Self { task, stop, health }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("does not panic").expect("ends well");
    }
}

async fn committed(kafka: &KafkaSettings, offset: i64) {
    until("the offset to be committed", || async {
        let kafka = kafka.clone();
        let found =
            tokio::task::spawn_blocking(move || kafka::committed(&kafka, drift::ROLE.name, &OUTCOMES, 0));
        (found.await.expect("looks") == Some(offset)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_read_back_as_they_were_sent() {
    let (kafka, server) = (kafka().await, Server::start().await);
    let awkward = r#"a "b", c=d\"#;
    publish(
        &kafka,
        &[
            outcome("plain", 1, "applied", Some((2.0, 2.5))),
            outcome("plain", 2, "unchanged", None),
            outcome(awkward, 3, "applied", Some((3.0, 1.75))),
            json!("no outcome"),
            outcome("plain", 4, "shadowed", Some((1.0, 9.0))),
            outcome("plain", 5, "applied", Some((2.5, 2.51))),
        ],
    )
    .await;
    let running = Running::start(&kafka, settings(&server.url));
    committed(&kafka, 6).await;
    let series = until("all series", || async {
        let series = server.series().await;
        (series.len() == 8).then_some(series)
    })
    .await;
    let found = |campaign: &str, field: &str| {
        let name = format!("campaign_drift_{field}");
        let one = series
            .iter()
            .find(|one| one["metric"]["campaign_id"] == campaign && one["metric"]["__name__"] == *name)
            .unwrap_or_else(|| panic!("{campaign} {field} in {series:#?}"));
        assert_eq!(one["metric"]["region"], "eu west=1");
        (one["values"].clone(), one["timestamps"].clone())
    };
    assert_eq!(found("plain", "old_rate"), (json!([2, 2.5]), json!([AT_MS + 1, AT_MS + 5])));
    assert_eq!(found("plain", "new_rate").0, json!([2.5, 2.51]));
    assert_eq!(found("plain", "drift").0, json!([0.5, 0.01]));
    assert_eq!(found(awkward, "new_rate"), (json!([1.75]), json!([AT_MS + 3])));
    assert_eq!(found(awkward, "drift").0, json!([1.25]), "without a sign, as it was asked for");
    assert_eq!(found(awkward, "change").0, json!([-1.25]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_wait_for_a_server_that_is_away_and_arrive_once_it_is_there() {
    let kafka = kafka().await;
    publish(&kafka, &[outcome("c", 1, "applied", Some((2.0, 2.5)))]).await;
    let (down, seen) = picky(|_, _| StatusCode::BAD_GATEWAY).await;
    let running = Running::start(&kafka, settings(&format!("http://{down}")));
    until("the point to be tried again and again", || async {
        (seen.lock().expect("not poisoned").len() >= 3).then_some(())
    })
    .await;
    running.stop().await;
    assert_eq!(kafka::committed(&kafka, drift::ROLE.name, &OUTCOMES, 0), None);

    let server = Server::start().await;
    let running = Running::start(&kafka, settings(&server.url));
    committed(&kafka, 1).await;
    until("the point", || async { (server.series().await.len() == 4).then_some(()) }).await;
    running.stop().await;
}

/// Requests a server has seen: query, headers, body.
type Seen = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;

/// A server that answers with what `answer` says to the body's lines.
async fn picky(answer: fn(usize, &[&str]) -> StatusCode) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let service = axum::Router::new()
        .fallback(move |State(seen): State<Seen>, uri: Uri, headers: HeaderMap, body: String| async move {
            let mut seen = seen.lock().expect("not poisoned");
            let status = answer(seen.len(), &body.lines().collect::<Vec<_>>());
            seen.push((uri.to_string(), headers, body));
            (status, "for this reason")
        })
        .with_state(Arc::clone(&seen));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, service).await });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_poisoned_point_does_not_hold_up_its_neighbours() {
    let kafka = kafka().await;
    let outcomes: Vec<Value> = (1..=9)
        .map(|n| outcome(if n == 6 { "poison" } else { "good" }, n, "applied", Some((2.0, 2.5))))
        .collect();
    publish(&kafka, &outcomes).await;
    let (address, seen) = picky(|_, lines| {
        let poisoned = lines.iter().any(|line| line.contains("poison"));
        if poisoned { StatusCode::BAD_REQUEST } else { StatusCode::NO_CONTENT }
    })
    .await;
    let running = Running::start(&kafka, settings(&format!("http://{address}/")));
    committed(&kafka, 9).await;
    running.stop().await;
    let seen = seen.lock().unwrap();
    let accepted: Vec<&str> = seen
        .iter()
        .filter(|(_, _, body)| !body.contains("poison"))
        .flat_map(|(_, _, body)| body.lines())
        .collect();
    assert_eq!(accepted.len(), 8, "each once: {accepted:#?}");
    let times: Vec<&str> = accepted.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert!(times.is_sorted(), "in order: {times:?}");
    let (query, headers, _) = &seen[0];
    assert_eq!(query, "/api/v2/write?org=an+org&bucket=drift%26more");
    assert_eq!(headers["authorization"], "Token canary-token");
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_204_is_success_and_what_may_pass_is_tried_again() {
    let kafka = kafka().await;
    publish(&kafka, &[outcome("c", 1, "applied", Some((2.0, 2.5)))]).await;
    let (address, seen) = picky(|request, _| match request {
        0 => StatusCode::OK,
        1 => StatusCode::TOO_MANY_REQUESTS,
        2 => StatusCode::SERVICE_UNAVAILABLE,
        3 => StatusCode::FOUND,
        _ => StatusCode::NO_CONTENT,
    })
    .await;
    let running = Running::start(&kafka, settings(&format!("http://{address}")));
    committed(&kafka, 1).await;
    running.stop().await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|(_, _, body)| *body == seen[0].2), "the same point each time");
}

/// Points that were sent, of each request the campaigns in order.
fn campaigns(seen: &Seen) -> Vec<Vec<String>> {
    let campaign = |line: &str| {
        let (_, rest) = line.split_once("campaign_id=").expect("a tag");
        rest.split([',', ' ']).next().expect("a value").to_owned()
    };
    let seen = seen.lock().expect("not poisoned");
    seen.iter().map(|(_, _, body)| body.lines().map(campaign).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_everything_is_skipped_and_what_follows_is_sent() {
    let kafka = kafka().await;
    publish(&kafka, &[outcome("first", 1, "applied", Some((2.0, 2.5)))]).await;
    let (address, seen) = picky(|request, _| match request {
        0 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::NO_CONTENT,
    })
    .await;
    let running = Running::start(&kafka, settings(&format!("http://{address}")));
    committed(&kafka, 1).await;
    publish(&kafka, &[outcome("second", 2, "applied", Some((2.0, 2.5)))]).await;
    committed(&kafka, 2).await;
    running.stop().await;
    assert_eq!(campaigns(&seen), [["first"], ["second"]], "tried once, and passed over");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absence_without_end_is_given_up_after_its_time_and_what_follows_is_sent() {
    let kafka = kafka().await;
    publish(&kafka, &[outcome("first", 1, "applied", Some((2.0, 2.5)))]).await;
    let (address, seen) = picky(|_, lines| match lines.iter().any(|line| line.contains("first")) {
        true => StatusCode::INTERNAL_SERVER_ERROR,
        false => StatusCode::NO_CONTENT,
    })
    .await;
    let patience = Duration::from_millis(300);
    let url = format!("http://{address}");
    let running = Running::start(&kafka, Settings { give_up_after: patience, ..settings(&url) });
    committed(&kafka, 1).await;
    publish(&kafka, &[outcome("second", 2, "applied", Some((2.0, 2.5)))]).await;
    committed(&kafka, 2).await;
    running.stop().await;
    let campaigns = campaigns(&seen);
    let tries = campaigns.iter().filter(|request| *request == &["first"]).count();
    assert!(tries >= 2, "it was tried again before it was given up: {campaigns:?}");
    assert_eq!(campaigns.last().expect("requests"), &["second"], "{campaigns:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_lost_is_told_with_a_remedy_that_works() {
    let kafka = kafka().await;
    let (address, seen) = picky(|_, _| StatusCode::NO_CONTENT).await;
    let settings = || settings(&format!("http://{address}"));
    publish(&kafka, &[outcome("first", 1, "applied", Some((2.0, 2.5)))]).await;
    let running = Running::start(&kafka, settings());
    committed(&kafka, 1).await;
    running.stop().await;
    let more = ["second", "third"].map(|name| outcome(name, 2, "applied", Some((2.0, 2.5))));
    publish(&kafka, &more).await;
    kafka::remove_before(&kafka, &OUTCOMES, 2).await;

    let running = Running::start(&kafka, settings());
    let told = until("the lost place to be told", || async {
        let reasons = running.health.reasons();
        reasons.into_iter().find(|(_, reason)| reason.contains("no longer exists"))
    })
    .await;
    assert!(told.1.contains("stop the role") && told.1.contains("--to-earliest"), "{told:?}");
    assert!(!running.task.is_finished(), "it is for a person to decide, and no reason to end the process");
    running.stop().await;
    tokio::task::block_in_place(|| kafka::move_group(&kafka, drift::ROLE.name, &OUTCOMES, 2));
    let running = Running::start(&kafka, settings());
    committed(&kafka, 3).await;
    running.stop().await;
    assert_eq!(campaigns(&seen), [["first"], ["third"]]);
}
