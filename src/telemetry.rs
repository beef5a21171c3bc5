//! Logs to stderr and, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, spans to a collector.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Keeps the exporter alive; dropping it sends what is queued, bounded in time.
#[must_use]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

/// Starts logging. `RUST_LOG` chooses what; `quiet` is the level without it.
///
/// Lines are for people on a terminal and JSON elsewhere. Must be called outside
/// an async runtime: the exporter brings a blocking client of its own.
///
/// # Errors
/// When the collector's address cannot be used.
pub fn start(quiet: &str) -> anyhow::Result<Telemetry> {
    let filter = || EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let lines = if std::io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        fmt::layer().with_writer(std::io::stderr).with_ansi(colour).with_filter(filter()).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_filter(filter()).boxed()
    };
    let spans = collector_configured().then(spans_exporter).transpose()?;
    let exported = spans.as_ref().map(|provider| {
        let info = EnvFilter::new("trunkline=info");
        tracing_opentelemetry::layer().with_tracer(provider.tracer("trunkline")).with_filter(info)
    });
    tracing_subscriber::registry().with(lines).with(exported).init();
    Ok(Telemetry { spans })
}

fn collector_configured() -> bool {
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// A bounded queue beside the work: a dead collector costs dropped spans, nothing else.
fn spans_exporter() -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
    let resource = Resource::builder().with_service_name("trunkline").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(spans) = &self.spans
            && let Err(error) = spans.shutdown_with_timeout(std::time::Duration::from_secs(2))
        {
            eprintln!("spans that were still queued are lost: {error}");
        }
    }
}
