//! A trace goes with a fact through the topics, as `traceparent` of W3C Trace Context: from the
//! observation or the request through each stage to the change at the platform and the row in the
//! audit. Work on many records at once is a span of its own with links to theirs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Links of one span at most; the collector's own default limit.
const MOST_LINKS: usize = 128;

static EXPORTED: AtomicBool = AtomicBool::new(false);

pub(super) fn set_exported() {
    EXPORTED.store(true, Ordering::Relaxed);
}

/// Whether spans go to a collector: where there is one span per record, nobody else wants them.
pub fn is_exported() -> bool {
    EXPORTED.load(Ordering::Relaxed)
}

/// The `traceparent` that makes others continue `span`'s trace; `None` while no
/// collector is configured.
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let known = context.span().span_context().clone();
    known.is_valid().then(|| {
        let (trace, span, flags) = (known.trace_id(), known.span_id(), known.trace_flags());
        format!("00-{trace}-{span}-{:02x}", flags.to_u8())
    })
}

/// A new trace, as W3C Trace Context spells it.
pub fn new_traceparent() -> String {
    use rand::RngExt as _;
    // Zero is not allowed for either.
    let mut random = rand::rng();
    let trace: u128 = random.random_range(1..=u128::MAX);
    let span: u64 = random.random_range(1..=u64::MAX);
    format!("00-{trace:032x}-{span:016x}-01")
}

/// Makes `span`, which nobody has entered yet, part of the trace that a record's `traceparent`
/// names; what is not one is ignored.
pub fn continue_trace(span: &Span, traceparent: &[u8]) {
    if let Some(context) = read(traceparent) {
        // Without a collector there is no layer that keeps parents, and nothing to do.
        let _ = span.set_parent(context);
    }
}

/// Whether a text is a `traceparent` of version 00 (W3C Trace Context): other
/// versions and all-zero ids are not handed on.
pub fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        parts.next().filter(|part| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let valid = hex(2) == Some("00")
        && hex(32).is_some_and(|id| !is_zero(id))
        && hex(16).is_some_and(|id| !is_zero(id))
        && hex(2).is_some();
    valid && parts.next().is_none()
}

fn read(traceparent: &[u8]) -> Option<opentelemetry::Context> {
    let text = std::str::from_utf8(traceparent).ok().filter(|text| is_traceparent(text))?;
    let carrier = HashMap::from([("traceparent".to_owned(), text.to_owned())]);
    Some(TraceContextPropagator::new().extract(&carrier))
}

/// Work on many records at once: a span with a link to each of their traces, up to 128.
#[derive(Debug)]
pub struct Merged {
    span: Option<Span>,
    links: usize,
}

impl Merged {
    /// `span` is only asked for where spans are exported. It must not be entered yet.
    pub fn new(span: impl FnOnce() -> Span) -> Self {
        Self { span: is_exported().then(span), links: 0 }
    }

    /// One of the records, by its `traceparent`.
    pub fn add(&mut self, traceparent: &[u8]) {
        if let Some(span) = self.span.as_ref().filter(|_| self.links < MOST_LINKS)
            && let Some(context) = read(traceparent)
        {
            span.add_link(context.span().span_context().clone());
            self.links += 1;
        }
    }

    /// For what all of the records together bring about.
    pub fn traceparent(&self) -> Option<String> {
        self.span.as_ref().and_then(traceparent)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_trace_goes_on_from_record_to_record() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let observed = traceparent(&tracing::info_span!("observe")).expect("a trace");
            let carried = tracing::info_span!("carry out");
            continue_trace(&carried, observed.as_bytes());
            let carried = traceparent(&carried).expect("a trace");
            let parts = |text: &str| text.split('-').map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(parts(&observed)[1], parts(&carried)[1], "the same trace");
            assert_ne!(parts(&observed)[2], parts(&carried)[2], "another span");
        });
    }

    #[test]
    fn without_a_collector_there_is_no_trace_and_nonsense_is_ignored() {
        let span = tracing::info_span!("observe");
        continue_trace(&span, b"\xff");
        continue_trace(&span, b"00-nonsense");
        assert_eq!(traceparent(&span), None);
        let mut merged = Merged::new(|| panic!("nobody wants it"));
        merged.add(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(merged.traceparent(), None);
    }

    #[test]
    fn only_valid_traces_are_handed_on() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(valid));
        for wrong in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
    }

    #[test]
    fn traces_are_spelled_as_the_standard_says() {
        let text = new_traceparent();
        let parts: Vec<_> = text.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{text}");
        assert!(text.chars().all(|c| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c)), "{text}");
        assert_ne!(text, new_traceparent());
    }
}
