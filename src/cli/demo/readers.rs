//! A consumer group of the demo's own that is too slow for what it reads, and an
//! autoscaler that starts as many readers as the HTTP interface says.
//!
//! The readers are real consumers of the conversation events; only their work is
//! pretended, a pause per record. What is found out about them, and the number of
//! readers that would be right, comes from the lag watch like for any other group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::kafka::{BaseConsumer, Consumer};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::kafka::settings::KafkaSettings;
use crate::topics;

/// The group under watch.
pub(super) const GROUP: &str = "demo-readers";

/// One reader manages fewer records a second than the simulated platform sends.
const WORK: Duration = Duration::from_millis(10);
const MOST_READERS: usize = 6;
/// How often the autoscaler asks.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// The group at work.
pub(super) struct Readers {
    standing: watch::Receiver<String>,
    autoscaler: tokio::task::JoinHandle<()>,
}

impl Readers {
    /// How the group is, as the HTTP interface says, in a line.
    pub(super) fn standing(&self) -> String {
        self.standing.borrow().clone()
    }

    /// Once it was stopped: all have left.
    pub(super) async fn ended(self) {
        // A panic was told of where it happened.
        let _ = self.autoscaler.await;
    }
}

/// Starts one reader and the autoscaler, until `stop`.
pub(super) fn start(kafka: &KafkaSettings, http: std::net::SocketAddr, stop: CancellationToken) -> Readers {
    let (told, standing) = watch::channel(format!("consumer group {GROUP}: not observed yet"));
    let kafka = kafka.clone();
    let autoscaler = tokio::spawn(async move {
        let mut readers = vec![Reader::start(&kafka)];
        let client = reqwest::Client::new();
        let url = format!("http://{http}/v1/lag/{GROUP}");
        loop {
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = stop.cancelled() => break,
            }
            // What cannot be asked now is asked at the next turn.
            let Some(found) = ask(&client, &url).await else { continue };
            let wanted = ask(&client, &format!("{url}/replicas")).await;
            if let Some(wanted) = wanted.and_then(|wanted| wanted["replicas"].as_u64()) {
                let wanted = usize::try_from(wanted).unwrap_or(MOST_READERS).clamp(1, MOST_READERS);
                // Those that go leave their group first, which takes a moment.
                tokio::task::block_in_place(|| readers.truncate(wanted));
                readers.resize_with(wanted, || Reader::start(&kafka));
            }
            told.send_replace(line(&found, readers.len()));
        }
        // All at once, and their threads are not the runtime's to wait for.
        readers.iter().for_each(Reader::stop);
        let _ = tokio::task::spawn_blocking(move || drop(readers)).await;
    });
    Readers { standing, autoscaler }
}

async fn ask(client: &reqwest::Client, url: &str) -> Option<Value> {
    client.get(url).send().await.ok()?.error_for_status().ok()?.json().await.ok()
}

fn line(found: &Value, readers: usize) -> String {
    let number =
        |value: &Value| value.as_f64().map_or_else(|| "–".to_owned(), |number| format!("{number:.0}"));
    let evaluation = &found["evaluation"];
    format!(
        "{GROUP}: {}, {} behind, {:.1} s old, {}/s in, {}/s out, {readers} reader{}",
        found["status"].as_str().unwrap_or("?"),
        number(&found["lag"]),
        found["age_seconds"].as_f64().unwrap_or_default(),
        number(&evaluation["arrivalPerSecond"]),
        number(&evaluation["drainPerSecond"]),
        if readers == 1 { "" } else { "s" }
    )
}

/// A member of the group with a thread of its own.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(kafka: &KafkaSettings) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut config = kafka.client(GROUP);
        config
            .set("group.id", format!("{}{GROUP}", kafka.topic_prefix))
            .set("auto.offset.reset", "latest")
            .set("auto.commit.interval.ms", "500")
            .set("isolation.level", "read_committed")
            // A little from every partition, not much from one.
            .set("queued.min.messages", "1")
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.message.max.bytes", "4096");
        let topic = kafka.topic(&topics::CONVERSATION_EVENTS);
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || match config.create::<BaseConsumer>() {
                Ok(consumer) => read(&consumer, &topic, &stop),
                Err(error) => tracing::error!(%error, "a reader of the demo cannot start"),
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn read(consumer: &BaseConsumer, topic: &str, stop: &AtomicBool) {
    if let Err(error) = consumer.subscribe(&[topic]) {
        tracing::error!(%error, "a reader of the demo cannot subscribe");
        return;
    }
    while !stop.load(Ordering::Acquire) {
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            std::thread::sleep(WORK);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_line_says_how_the_group_is() {
        let found = json!({"status": "ERROR", "lag": 512, "age_seconds": 7.26,
            "evaluation": {"arrivalPerSecond": 103.2, "drainPerSecond": null}});
        assert_eq!(
            line(&found, 1),
            "demo-readers: ERROR, 512 behind, 7.3 s old, 103/s in, –/s out, 1 reader"
        );
    }
}
