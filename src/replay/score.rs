//! What was done and what would have been, summed up as far as the record tells.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Compared, Taken, acts, asked};
use super::{Common, Figure};
use crate::model::Timestamp;
use crate::model::decision::{Action, Loop};

/// Destinations that are counted one by one at most.
const DESTINATIONS: usize = 1_000;

/// Of what was recorded and of what was taken again.
type Both = [f64; 2];

pub(super) struct Scores {
    of: Loop,
    sums: BTreeMap<String, Both>,
    decisions: f64,
    flow: Flow,
}

/// Errors on the version in force until it is taken back.
#[derive(Default)]
struct Flow {
    /// Flow and version.
    judged: (String, String),
    errors: u64,
    taken_back: [bool; 2],
}

impl Scores {
    pub(super) fn new(of: Loop) -> Self {
        Self { of, sums: BTreeMap::new(), decisions: 0.0, flow: Flow::default() }
    }

    pub(super) fn add(&mut self, common: &Common, compared: &Compared) {
        let Compared::Taken(taken) = compared else { return };
        let both = [&taken.recorded, &taken.replayed];
        self.decisions += 1.0;
        match self.of {
            Loop::Dial => {
                self.count("changes", both.map(acts));
                self.sum("dialRateMean", both.map(|decision| asked(decision).as_f64().unwrap_or(0.0)));
            }
            Loop::Rollback => self.rollback(common, taken),
            Loop::Lag => {
                self.count("calls", both.map(acts));
                self.sum("secondsBehindBeforeCalls", both.map(seconds_to_call));
            }
            Loop::Route => {
                for (nth, decision) in both.into_iter().enumerate() {
                    let name = format!("{} to {}", common.key, asked(decision).as_str().unwrap_or_default());
                    if self.sums.contains_key(&name) || self.sums.len() < DESTINATIONS {
                        self.sums.entry(name).or_default()[nth] += 1.0;
                    }
                }
            }
            Loop::Delivery => {
                for (name, action) in [("steps", Action::SetShare), ("aborts", Action::Abort)] {
                    self.count(name, both.map(|decision| decision["action"] == action.name()));
                }
            }
        }
    }

    fn rollback(&mut self, common: &Common, taken: &Taken) {
        let both = [&taken.recorded, &taken.replayed];
        let is = |action: Action| both.map(|decision| decision["action"] == action.name());
        self.count("rollbacks", is(Action::Rollback));
        self.count("alerts", is(Action::Alert));
        let inputs = &taken.recorded["inputs"];
        let version = inputs["flowVersion"].as_str().unwrap_or_default();
        let judged = (common.key.clone(), version.to_owned());
        if self.flow.judged != judged {
            self.flow = Flow { judged, ..Flow::default() };
        }
        // Counted since the statistics began; they begin anew once the rate is low again.
        let errors = inputs["statistics"]["errors"].as_u64().unwrap_or(0);
        let more = errors.checked_sub(self.flow.errors).unwrap_or(errors) as f64;
        self.flow.errors = errors;
        let met = self.flow.taken_back.map(|taken_back| if taken_back { 0.0 } else { more });
        self.sum("errorsBeforeRollback", met);
        for (taken_back, now) in self.flow.taken_back.iter_mut().zip(is(Action::Rollback)) {
            *taken_back |= now;
        }
    }

    fn count(&mut self, figure: &str, both: [bool; 2]) {
        self.sum(figure, both.map(|is| f64::from(u8::from(is))));
    }

    fn sum(&mut self, figure: &str, both: Both) {
        let sums = self.sums.entry(figure.to_owned()).or_default();
        sums.iter_mut().zip(both).for_each(|(sum, value)| *sum += value);
    }

    pub(super) fn figures(self) -> Vec<Figure> {
        let decisions = self.decisions.max(1.0);
        let figure = |(figure, [recorded, replayed]): (String, Both)| match figure.ends_with("Mean") {
            true => Figure { figure, recorded: recorded / decisions, replayed: replayed / decisions },
            false => Figure { figure, recorded, replayed },
        };
        self.sums.into_iter().map(figure).collect()
    }
}

/// How long a group had been behind when help was asked for; 0 where it was not.
fn seconds_to_call(decision: &Value) -> f64 {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    match (acts(decision), time(&decision["eventTime"]), time(&decision["inputs"]["episodeSince"])) {
        (true, Some(at), Some(since)) => at.millis_since(since) as f64 / 1_000.0,
        _ => 0.0,
    }
}
