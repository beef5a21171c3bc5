//! How this process is: alive, ready, and in numbers.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use schemars::JsonSchema;
use serde::Serialize;

use super::Shared;
use crate::metrics::{self, Kind};

/// Readiness with reasons.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// Parts that do not work; empty when ready.
    reasons: Vec<Reason>,
    /// Parts that work although something they need does not.
    impairments: Vec<Reason>,
}

/// Why a part does not work.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Reason {
    part: String,
    reason: String,
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(shared): State<Shared>) -> Response {
    let list = |parts: Vec<(String, String)>| -> Vec<Reason> {
        parts.into_iter().map(|(part, reason)| Reason { part, reason }).collect()
    };
    let (reasons, impairments) = (list(shared.health.reasons()), list(shared.health.impairments()));
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, reasons, impairments })).into_response()
}

pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render())
        .into_response()
}

/// The process's recorder of metrics. Install it before anything records: handles made
/// earlier record nothing.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// # Errors
    /// When the process has a recorder already.
    pub fn install() -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for metric in metrics::ALL {
            if let Kind::Histogram(bounds) = metric.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
            }
        }
        let handle = builder.install_recorder()?;
        for metric in metrics::ALL {
            match metric.kind {
                Kind::Counter => ::metrics::describe_counter!(metric.name, metric.help),
                Kind::Gauge => ::metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram(_) => ::metrics::describe_histogram!(metric.name, metric.help),
            }
        }
        Ok(Self(handle))
    }

    /// The page as Prometheus reads it.
    pub fn render(&self) -> String {
        let mut page = self.0.render();
        metrics::shown::render(&mut page);
        page
    }

    /// Moves what was recorded out of the recorder's buffers, which grow otherwise.
    pub(super) fn upkeep(&self) {
        self.0.run_upkeep();
    }
}
