//! What came of a replay, for people and programs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::compare::{Cause, Compared, Mismatch, Taken, asked};
use super::{Common, LISTED, Range};
use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::model::dry_run::{Actions, Said};

/// See the module. Decisions that could not be taken again are neither identical nor different.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub r#loop: Loop,
    pub from: Timestamp,
    pub to: Timestamp,
    /// Taken under other numbers or another policy: what differs is what was asked for.
    pub changed: bool,
    /// Decisions on record in the range.
    pub decisions: u64,
    /// The same, to the byte; under a change, in action, reason and value.
    pub identical: u64,
    pub different: u64,
    /// Not taken again, by why.
    pub not_taken: BTreeMap<String, u64>,
    /// Without a change: differences by cause.
    pub causes: BTreeMap<&'static str, u64>,
    /// Decisions by what was done and what would have been, the most frequent pair first.
    pub actions: Vec<Actions>,
    /// The first differences.
    pub items: Vec<Difference>,
    /// What was done, and what would have been, as far as the record tells.
    pub score: Vec<Figure>,
}

/// One decision that is different.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    pub decision_id: Value,
    pub key: String,
    pub sequence: u64,
    pub decided_at: Timestamp,
    pub recorded: Said,
    pub replayed: Said,
    /// How the recorded one ended, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Without a change: where both differ first, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<Mismatch>,
}

fn said(decision: &Value) -> Said {
    let text = |name: &str| decision[name].as_str().unwrap_or_default().to_owned();
    Said { action: text("action"), reason: text("reason"), value: asked(decision) }
}

/// One figure of both.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Figure {
    pub figure: String,
    pub recorded: f64,
    pub replayed: f64,
}

impl Report {
    pub(super) fn new(of: Loop, range: Range, changed: bool) -> Self {
        Self {
            r#loop: of,
            from: range.from,
            to: range.to,
            changed,
            decisions: 0,
            identical: 0,
            different: 0,
            not_taken: BTreeMap::new(),
            causes: BTreeMap::new(),
            actions: Vec::new(),
            items: Vec::new(),
            score: Vec::new(),
        }
    }

    /// Whether everything that could be taken again is as it was.
    pub fn is_identical(&self) -> bool {
        self.different == 0
    }

    pub(super) fn add(&mut self, common: &Common, compared: Compared, outcome: Option<&str>) {
        self.decisions += 1;
        let taken = match compared {
            Compared::NotTaken(why) => {
                *self.not_taken.entry(why).or_default() += 1;
                return;
            }
            Compared::Taken(taken) => taken,
        };
        let Taken { recorded, replayed, mismatch } = *taken;
        let said = (said(&recorded), said(&replayed));
        self.count(&said.0.action, &said.1.action);
        let is_same = if self.changed { said.0 == said.1 } else { mismatch.is_none() };
        if is_same {
            self.identical += 1;
            return;
        }
        self.different += 1;
        let mismatch = mismatch.filter(|_| !self.changed);
        if let Some(cause) = mismatch.as_ref().map(|mismatch| mismatch.cause).map(Cause::name) {
            *self.causes.entry(cause).or_default() += 1;
        }
        if self.items.len() < LISTED {
            self.items.push(Difference {
                decision_id: recorded["decisionId"].clone(),
                key: common.key.clone(),
                sequence: common.sequence,
                decided_at: common.decided_at,
                recorded: said.0,
                replayed: said.1,
                outcome: outcome.map(str::to_owned),
                mismatch,
            });
        }
    }

    /// There are few actions: a loop has four at most.
    fn count(&mut self, recorded: &str, replayed: &str) {
        let found = self.actions.iter_mut().find(|it| it.recorded == recorded && it.replayed == replayed);
        match found {
            Some(counted) => counted.decisions += 1,
            None => self.actions.push(Actions {
                recorded: recorded.to_owned(),
                replayed: replayed.to_owned(),
                decisions: 1,
            }),
        }
    }
}
