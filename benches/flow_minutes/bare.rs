//! Flow minutes from a loop that does nothing else. Its threads count apart, so a minute comes once from each of
//! them: putting those together, as a second stage does, is left out.

use std::collections::HashMap;

use serde::Deserialize;
use trunkline::model::Timestamp;
use trunkline::model::flow::{FlowMinute, MinuteSource};
use trunkline::topics::{self, Topic};

use crate::harness::bare::Work;

const MINUTE_MS: i64 = 60_000;
/// How far behind the newest event one may be and still count.
const LATENESS_MS: i64 = 120_000;

/// What counts of an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    event_type: &'a str,
    occurred_at: Timestamp,
    flow_id: &'a str,
    flow_version: &'a str,
    outcome: &'a str,
}

#[derive(Default)]
struct Count {
    total: u64,
    errors: u64,
}

/// Counts by the minute's beginning, and in it by flow and version.
#[derive(Default)]
pub(crate) struct Minutes {
    open: HashMap<i64, HashMap<String, HashMap<String, Count>>>,
    /// The newest event's minute.
    newest: i64,
    buffer: Vec<u8>,
}

impl Work for Minutes {
    const INPUT: &'static Topic = &topics::CONVERSATION_EVENTS;
    const OUTPUT: &'static Topic = &topics::FLOW_MINUTES;

    fn take(&mut self, value: &[u8], mut send: impl FnMut(&str, &[u8])) {
        let event: Event<'_> = serde_json::from_slice(value).expect("an event");
        assert_eq!(event.event_type, "flow.end");
        let at = event.occurred_at.as_millis();
        let minute = at - at.rem_euclid(MINUTE_MS);
        let flows = self.open.entry(minute).or_default();
        if !flows.contains_key(event.flow_id) {
            flows.insert(event.flow_id.to_owned(), HashMap::new());
        }
        let versions = flows.get_mut(event.flow_id).expect("just made");
        if !versions.contains_key(event.flow_version) {
            versions.insert(event.flow_version.to_owned(), Count::default());
        }
        let count = versions.get_mut(event.flow_version).expect("just made");
        count.total += 1;
        count.errors += u64::from(event.outcome == "error");
        if minute > self.newest {
            self.newest = minute;
            let over: Vec<i64> =
                self.open.keys().copied().filter(|open| open + MINUTE_MS + LATENESS_MS <= at).collect();
            over.into_iter().for_each(|minute| self.tell(minute, &mut send));
        }
    }
}

impl Minutes {
    fn tell(&mut self, minute: i64, send: &mut impl FnMut(&str, &[u8])) {
        for (flow, versions) in self.open.remove(&minute).into_iter().flatten() {
            for (version, count) in versions {
                let told = FlowMinute {
                    flow_id: flow.as_str().into(),
                    flow_version: version.into(),
                    minute: Timestamp::from_millis(minute),
                    total: count.total,
                    errors: count.errors,
                    error_rate: count.errors as f64 / count.total as f64,
                    complete: true,
                    source: MinuteSource::Events,
                };
                self.buffer.clear();
                serde_json::to_writer(&mut self.buffer, &told).expect("JSON");
                send(&flow, &self.buffer);
            }
        }
    }
}
