//! Posts the events: several requests at once, each sent again until it is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use serde::Deserialize;

use super::Batch;
use super::settings::MAX_CONNECTIONS;
use crate::server::Shared;

/// Between two looks for due events.
const IDLE: Duration = Duration::from_millis(25);
/// Between two looks where there is nobody to post to.
const UNHEARD: Duration = Duration::from_millis(500);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Without `Retry-After` the first pause after a failure, doubled up to the last.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);
/// No receiver may ask for more.
const LONGEST_HOLD_SECONDS: f64 = 300.0;

/// Works until the simulator ends. Worker `number` rests while fewer connections are set.
pub(crate) async fn work(shared: Arc<Shared>, number: usize) {
    let ending = shared.ending.clone();
    ending.run_until_cancelled(work_for_ever(shared, number)).await;
}

/// How many workers there are.
pub(crate) const WORKERS: usize = MAX_CONNECTIONS;

async fn work_for_ever(shared: Arc<Shared>, number: usize) {
    loop {
        let next = shared.with(|organization, moment| {
            let events = &mut organization.events;
            let resting = events.settings().to.is_none() || number >= events.settings().connections;
            if resting { Err(UNHEARD) } else { events.next_batch(moment.elapsed).ok_or(IDLE) }
        });
        match next {
            Ok(batch) => deliver(&shared, batch).await,
            Err(pause) => tokio::time::sleep(pause).await,
        }
    }
}

/// Posts the batch until it is settled.
async fn deliver(shared: &Shared, batch: Batch) {
    let body = batch.body();
    let mut pause = *PAUSES.start();
    loop {
        let target = shared.with(|organization, moment| {
            let wait = organization.events.wait(moment.elapsed)?;
            let settings = organization.events.settings();
            Some((wait, settings.to.clone()?, settings.key.clone()))
        });
        let (to, key) = match target {
            Some((wait, to, key)) if wait.is_zero() => (to, key),
            Some((wait, ..)) => {
                tokio::time::sleep(wait).await;
                continue;
            }
            None => {
                tokio::time::sleep(UNHEARD).await;
                continue;
            }
        };
        match post(&shared.http, &to, key.as_deref(), body.clone()).await {
            Verdict::Acknowledged { rejected } => {
                return shared.with(|organization, moment| {
                    organization.events.acknowledged(batch, &rejected, moment.wall);
                });
            }
            Verdict::Refused(problem) => {
                return shared.with(|organization, _| organization.events.refused(batch, problem));
            }
            Verdict::Failed { problem, hold } => {
                let hold = hold.unwrap_or(pause);
                pause = (pause * 2).min(*PAUSES.end());
                shared.with(|organization, moment| {
                    organization.events.failed(problem, hold, moment.elapsed);
                });
            }
        }
    }
}

enum Verdict {
    Acknowledged {
        rejected: Vec<usize>,
    },
    /// To send it again would change nothing.
    Refused(String),
    Failed {
        problem: String,
        hold: Option<Duration>,
    },
}

#[derive(Deserialize)]
struct Receipt {
    #[serde(default)]
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Rejected {
    index: usize,
}

async fn post(http: &reqwest::Client, to: &str, key: Option<&str>, body: Vec<u8>) -> Verdict {
    let failed = |problem: String| Verdict::Failed { problem, hold: None };
    let mut request = http.post(to).timeout(REQUEST_TIMEOUT);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
    let reply = match request.send().await {
        Ok(reply) => reply,
        Err(error) => return failed(format!("{to} cannot be reached: {error}")),
    };
    let status = reply.status();
    if status.is_success() {
        return match reply.json::<Receipt>().await {
            Ok(receipt) => {
                Verdict::Acknowledged { rejected: receipt.rejected.iter().map(|item| item.index).collect() }
            }
            Err(error) => failed(format!("{to} answered {status}, but no receipt: {error}")),
        };
    }
    let hold = reply.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let hold = hold.filter(|seconds| (0.0..=LONGEST_HOLD_SECONDS).contains(seconds));
    let told = reply.text().await.unwrap_or_default();
    let told: String = told.chars().take(300).collect();
    let problem = format!("{to} answered {status}: {told}");
    match status {
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Verdict::Refused(problem),
        _ => Verdict::Failed { problem, hold: hold.map(Duration::from_secs_f64) },
    }
}
