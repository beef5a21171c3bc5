//! Lines that repeat are said once, again when they change, and else once a minute: brokers
//! that are away make every client report every attempt to reach them.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// After this the same line is said again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Different lines remembered at most; beyond that some are said more often.
const MOST_LINES: usize = 2_000;
/// Target of librdkafka's own lines.
const LIBRDKAFKA: &str = "librdkafka";
/// Numbers that make another line of it; others count attempts or measure time.
const TELLING_NUMBERS: [&str; 3] = ["partition", "offset", "sequence"];
/// What librdkafka appends to lines that it has itself said less often.
const SUPPRESSED: &str = " identical error(s) suppressed";

/// Hands what is to be said to another layer: of warnings, errors and librdkafka's lines those
/// that were not said just now. (A filter of one event at a time would do, but for an assertion
/// in tracing-subscriber that such filters fail.)
pub(super) struct Seldom<L> {
    layer: L,
    said: Said,
}

impl<L> Seldom<L> {
    pub(super) fn new(layer: L) -> Self {
        Self { layer, said: Said::default() }
    }
}

/// What was said, and when.
#[derive(Default)]
struct Said(Mutex<HashMap<u64, Instant>>);

impl Said {
    fn lets_through(&self, line: u64, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&line).is_some_and(|at| now.duration_since(*at) < AGAIN_AFTER) {
            return false;
        }
        if said.len() >= MOST_LINES {
            said.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
            if said.len() >= MOST_LINES {
                said.clear();
            }
        }
        said.insert(line, now);
        true
    }
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Seldom<L> {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.layer.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.layer.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.layer.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.layer.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.layer.on_close(id, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() <= Level::WARN || metadata.target() == LIBRDKAFKA {
            let mut line = Line { hasher: DefaultHasher::new(), text: String::new() };
            metadata.callsite().hash(&mut line.hasher);
            event.record(&mut line);
            if !self.said.lets_through(line.hasher.finish(), Instant::now()) {
                return;
            }
        }
        self.layer.on_event(event, context);
    }
}

/// What a line says, without what differs each time it is said.
struct Line {
    hasher: DefaultHasher,
    text: String,
}

impl Line {
    fn number(&mut self, field: &Field, number: impl Hash) {
        if TELLING_NUMBERS.contains(&field.name()) {
            number.hash(&mut self.hasher);
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text.clear();
        let _ = write!(self.text, "{value:?}");
        field.name().hash(&mut self.hasher);
        steady(&self.text).hash(&mut self.hasher);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        field.name().hash(&mut self.hasher);
        steady(value).hash(&mut self.hasher);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_f64(&mut self, _: &Field, _: f64) {}
}

/// A text without its durations, which differ each time, and without how often it was held back.
fn steady(text: &str) -> String {
    let held_back =
        text.find(SUPPRESSED).and_then(|end| Some((text[..end].rfind(", ")?, end + SUPPRESSED.len())));
    let (head, tail) = held_back.map_or((text, ""), |(from, to)| (&text[..from], &text[to..]));
    let mut steady = String::with_capacity(text.len());
    for part in [head, tail] {
        let mut rest = part;
        while let Some(at) = rest.find(|letter: char| letter.is_ascii_digit()) {
            let (before, number) = rest.split_at(at);
            let length = number.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(number.len());
            let (digits, after) = number.split_at(length);
            steady.push_str(before);
            let unit = after.trim_start();
            let is_duration = ["ms", "us", "s "].iter().any(|name| unit.starts_with(name));
            steady.push_str(if is_duration { "#" } else { digits });
            rest = after;
        }
        steady.push_str(rest);
    }
    steady
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::fmt;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(work: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let to = lines.clone();
        let layer = fmt::layer().with_writer(move || to.clone()).with_ansi(false).without_time();
        let subscriber = tracing_subscriber::registry()
            .with(Seldom::new(layer).with_filter(tracing::level_filters::LevelFilter::INFO));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn brokers_that_are_away_are_told_once_however_many_clients_try() {
        let said = said(|| {
            for attempt in 0..200u64 {
                let held_back = if attempt % 7 == 0 {
                    format!(", {attempt} identical error(s) suppressed")
                } else {
                    String::new()
                };
                let reason = format!(
                    "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: \
                     Connection refused (after {attempt}ms in state CONNECT{held_back})"
                );
                tracing::error!(target: "librdkafka", "librdkafka: FAIL {reason}");
                tracing::warn!(error = "BrokerTransportFailure", reason, "consumer");
                tracing::warn!(failures = attempt, pause_ms = attempt * 2, "trying on");
            }
            tracing::warn!(error = "Resolve", "consumer");
            tracing::debug!("nobody asked for this");
        });
        assert_eq!(said.len(), 4, "{said:#?}");
    }

    #[test]
    fn what_differs_is_said_and_what_is_no_complaint_too() {
        let said = said(|| {
            for offset in 0..3u64 {
                tracing::warn!(topic = "t", partition = 0, offset, "a record is passed over");
                tracing::info!("assigned");
            }
            for campaign in ["c1", "c2"] {
                tracing::warn!("campaign {campaign} is not observed");
            }
        });
        assert_eq!(said.len(), 8, "{said:#?}");
    }

    #[test]
    fn a_minute_later_it_is_said_again_and_memory_is_bounded() {
        let said = Said::default();
        let start = Instant::now();
        assert!(said.lets_through(1, start));
        assert!(!said.lets_through(1, start + Duration::from_secs(59)));
        assert!(said.lets_through(1, start + Duration::from_secs(60)));
        for line in 0..10_000 {
            said.lets_through(line, start);
        }
        assert!(said.0.lock().unwrap().len() <= MOST_LINES);
    }
}
