//! Logs to stderr, or to a file where stderr shows something else, and, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, spans to a collector.

mod repeats;
mod trace;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use repeats::Seldom;
pub use trace::{Merged, continue_trace, is_exported, is_traceparent, new_traceparent, traceparent};

/// Keeps the exporter alive; dropping it sends what is queued, bounded in time.
#[must_use]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

/// Starts logging. `RUST_LOG` chooses what; `quiet` is the level without it. Lines go to `file`
/// where there is one, which is made with the first of them, and to stderr elsewhere.
///
/// Lines are for people on a terminal and JSON elsewhere; one that repeats is said once a
/// minute. Must be called outside an async runtime: the exporter brings a blocking client of
/// its own.
///
/// # Errors
/// When the collector's address cannot be used.
pub fn start(quiet: &str, file: Option<&Path>) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let lines = if let Some(path) = file {
        let file = LogFile { path: path.to_owned(), file: None };
        let lines = fmt::layer().with_writer(Mutex::new(file)).with_ansi(false);
        Seldom::new(lines).with_filter(filter).boxed()
    } else if std::io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
        Seldom::new(lines).with_filter(filter).boxed()
    } else {
        let lines = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
        Seldom::new(lines).with_filter(filter).boxed()
    };
    let spans = collector_configured().then(spans_exporter).transpose()?;
    let exported = spans.as_ref().map(|provider| {
        // Asked anew for each span: an answer that tracing-subscriber remembers by callsite can leave what
        // another layer's filter said on this thread in force, and spans are then missing.
        let info = dynamic_filter_fn(|metadata, _| {
            metadata.target().starts_with("trunkline") && *metadata.level() <= Level::INFO
        })
        .with_max_level_hint(Level::INFO);
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("trunkline"));
        layer.with_location(false).with_threads(false).with_target(false).with_filter(info)
    });
    tracing_subscriber::registry().with(lines).with(exported).init();
    if spans.is_some() {
        trace::set_exported();
    }
    Ok(Telemetry { spans })
}

/// A file that is made with the first line written to it.
struct LogFile {
    path: PathBuf,
    file: Option<File>,
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.file.is_none() {
            self.file = Some(File::create(&self.path)?);
        }
        self.file.as_mut().map_or(Ok(line.len()), |file| file.write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
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
