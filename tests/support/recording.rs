//! The demo's recording in this repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use trunkline::model::settings::Setting;
use trunkline::replay::{Header, Line, Recorded, read_lines};

/// What it holds, in its order.
pub(crate) struct Lines {
    pub header: Header,
    pub settings: Vec<Setting<'static>>,
    pub decisions: Vec<Recorded>,
}

pub(crate) fn read() -> Lines {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/demo.jsonl.gz");
    let (header, lines) = read_lines(BufReader::new(MultiGzDecoder::new(File::open(path).unwrap()))).unwrap();
    let (mut settings, mut decisions) = (Vec::new(), Vec::new());
    for line in lines {
        match line.unwrap() {
            Line::Setting(setting) => settings.push(setting),
            Line::Decision(recorded) => decisions.push(recorded),
        }
    }
    Lines { header, settings, decisions }
}

/// Ids of those decisions about rollback that stand on the rule's limit `severe_limit` alone, and of
/// those that only remember them: what was decided already, and is to come down again.
pub(crate) fn stand_on_the_severe_limit<'d>(
    decisions: impl IntoIterator<Item = &'d Value>,
) -> BTreeSet<String> {
    let mut acted_for: BTreeMap<&str, bool> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for decision in decisions.into_iter().filter(|decision| decision["loop"] == "rollback") {
        let (acts, reason) = (decision["action"] != "hold", decision["reason"].as_str().unwrap());
        let is_severe = acted_for.entry(decision["key"].as_str().unwrap()).or_default();
        if acts {
            *is_severe = reason == "severe";
        }
        if *is_severe && (acts || ["already_decided", "awaiting_recovery"].contains(&reason)) {
            found.insert(decision["decisionId"].as_str().unwrap().to_owned());
        }
    }
    assert!(!found.is_empty(), "the recording has no severe breach");
    found
}
