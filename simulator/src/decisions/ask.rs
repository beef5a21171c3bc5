//! Asks the questions and waits for their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Answer, Decided, DecisionSettings, Question};
use crate::server::{Shared, wall_clock};

/// Asks one question after another until the load is over or stopped.
pub(crate) async fn work(
    shared: Arc<Shared>,
    settings: Arc<DecisionSettings>,
    began: Instant,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let Some(question) = shared.decisions().next() else { return };
        let due = began + question.due;
        let waited = stop.run_until_cancelled(tokio::time::sleep_until(due.into())).await;
        if waited.is_none() {
            return;
        }
        let (sent, sent_at) = (Instant::now(), wall_clock());
        let outcome = ask(&shared, &settings, &question).await;
        if settings.dispatch && !question.repeat {
            let answered = outcome.as_ref().ok().map(|decided| decided.destination_id.as_str());
            if let Some(flow_id) = answered.or(settings.default_flow_id.as_deref()) {
                shared.with(|organization, _| organization.dispatch(flow_id, question.conversation_id));
            }
        }
        shared.decisions().record(Answer {
            late: sent.saturating_duration_since(due),
            latency: sent.elapsed(),
            question,
            sent_at,
            outcome,
        });
    }
}

async fn ask(shared: &Shared, settings: &DecisionSettings, question: &Question) -> Result<Decided, String> {
    let base = settings.to.get(question.address).map_or("", |to| to.trim_end_matches('/'));
    let id = settings.configuration_ids.get(question.configuration).map_or("", String::as_str);
    let mut request = shared
        .http
        .post(format!("{base}/v1/routes/{id}/decisions"))
        .timeout(Duration::from_millis(settings.timeout_ms))
        .json(&json!({ "conversationId": question.conversation_id }));
    if let Some(key) = &settings.key {
        request = request.bearer_auth(key);
    }
    let reply = request.send().await.map_err(|error| error.without_url().to_string())?;
    let status = reply.status();
    if !status.is_success() {
        return Err(format!("status {}", status.as_u16()));
    }
    reply.json().await.map_err(|error| format!("status {}, but no decision: {error}", status.as_u16()))
}
