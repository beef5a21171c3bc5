//! Judges a run of the rollback guard from what it left behind: topics, tables and the
//! simulator's own log, never trunkline's counters. Knows nothing of the code under test.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::{Violation, holes, repeated};

/// Everything a run left behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct RollbackRun {
    /// The topic of rollback decisions.
    pub decisions: Vec<Decided>,
    /// Outcomes as read_committed readers of the topic see them.
    pub outcomes: Vec<Ended>,
    /// What the audit has of both.
    pub audited_decisions: Vec<String>,
    pub audited_outcomes: Vec<Ended>,
    /// Decision ids of recorded intents, one per attempt.
    pub intents: Vec<String>,
    /// Versions the simulator activated at a request of ours.
    pub activations: Vec<Activation>,
}

#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub id: String,
    pub flow: String,
    pub sequence: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ended {
    pub decision_id: String,
    pub status: String,
}

impl Ended {
    /// A rollback has two ends: how it ended, and whether it helped.
    fn is_verification(&self) -> bool {
        ["recovered", "not_recovered"].contains(&self.status.as_str())
    }
}

/// One change of a flow's version. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub(crate) struct Activation {
    pub flow: String,
    pub from: String,
    pub to: String,
    /// The decision that its description names.
    pub decision: String,
    pub started_ms: i64,
    pub ended_ms: i64,
}

/// Everything that is wrong; empty when all holds.
pub(crate) fn violations(run: &RollbackRun) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broken = |invariant, what: String| found.push(Violation { invariant, what });

    for id in repeated(run.decisions.iter().map(|decision| &decision.id)) {
        broken("I2", format!("decision {id} twice on its topic"));
    }
    for (id, verification) in
        repeated(run.outcomes.iter().map(|outcome| (&outcome.decision_id, outcome.is_verification())))
    {
        broken("I2", format!("outcome of {id} twice on its topic, verification: {verification}"));
    }
    for id in repeated(&run.audited_decisions) {
        broken("I2", format!("decision {id} twice in the audit"));
    }

    let sequences = run.decisions.iter().map(|decision| (decision.flow.as_str(), decision.sequence));
    for (flow, missing) in holes(sequences) {
        broken("I4", format!("{flow} has no decision {missing}"));
    }
    let decided: BTreeSet<&String> = run.decisions.iter().map(|decision| &decision.id).collect();
    let audited: BTreeSet<&String> = run.audited_decisions.iter().collect();
    let audited_outcomes: BTreeSet<&Ended> = run.audited_outcomes.iter().collect();
    let ended: BTreeMap<&String, &str> = run
        .outcomes
        .iter()
        .filter(|outcome| !outcome.is_verification())
        .map(|outcome| (&outcome.decision_id, outcome.status.as_str()))
        .collect();
    for id in &decided {
        if !audited.contains(id) {
            broken("I4", format!("decision {id} is not in the audit"));
        }
        if !ended.contains_key(id) {
            broken("I1", format!("decision {id} has no outcome"));
        }
    }
    for outcome in &run.outcomes {
        if !decided.contains(&outcome.decision_id) {
            broken("I4", format!("an outcome of {}, which nobody decided", outcome.decision_id));
        }
        if !audited_outcomes.contains(outcome) {
            broken("I4", format!("{outcome:?} is not in the audit"));
        }
    }

    let intents: BTreeSet<&String> = run.intents.iter().collect();
    let mut done: BTreeMap<&String, usize> = BTreeMap::new();
    for activation in &run.activations {
        *done.entry(&activation.decision).or_default() += 1;
        if !intents.contains(&activation.decision) {
            broken("I4", format!("{activation:?} without an intent"));
        }
    }
    for (id, times) in &done {
        if *times > 1 {
            broken("I3", format!("decision {id} was carried out {times} times"));
        }
        match ended.get(id) {
            Some(&"applied") => {}
            other => broken("I3", format!("decision {id} was carried out, and its end is {other:?}")),
        }
    }
    for (id, status) in &ended {
        if *status == "applied" && !done.contains_key(id) {
            broken("I3", format!("decision {id} is said to be applied, and nothing was"));
        }
    }
    let mut in_order: Vec<&Activation> = run.activations.iter().collect();
    in_order.sort_by_key(|activation| activation.started_ms);
    for pair in in_order.windows(2) {
        if pair[1].started_ms < pair[0].ended_ms {
            broken("I3", format!("two at a time: {:?} and {:?}", pair[0], pair[1]));
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two flows, each of which was held and then taken back.
    fn sound() -> RollbackRun {
        let ended = |id: &str, status: &str| Ended { decision_id: id.to_owned(), status: status.to_owned() };
        let decided = |id: &str, flow: &str, sequence| Decided { id: id.into(), flow: flow.into(), sequence };
        let activation = |decision: &str, flow: &str, started_ms| Activation {
            flow: flow.into(),
            from: "13.0".into(),
            to: "12.0".into(),
            decision: decision.into(),
            started_ms,
            ended_ms: started_ms + 100,
        };
        let outcomes = vec![
            ended("a1", "unchanged"),
            ended("a2", "applied"),
            ended("b1", "unchanged"),
            ended("b2", "applied"),
            ended("a2", "recovered"),
        ];
        RollbackRun {
            decisions: vec![
                decided("a1", "a", 1),
                decided("a2", "a", 2),
                decided("b1", "b", 1),
                decided("b2", "b", 2),
            ],
            audited_outcomes: outcomes.clone(),
            outcomes,
            audited_decisions: ["a1", "a2", "b1", "b2"].map(str::to_owned).into(),
            intents: ["a2", "b2", "b2"].map(str::to_owned).into(),
            activations: vec![activation("a2", "a", 1_000), activation("b2", "b", 1_100)],
        }
    }

    fn broken_by(doctor: impl FnOnce(&mut RollbackRun)) -> Vec<&'static str> {
        let mut run = sound();
        doctor(&mut run);
        violations(&run).into_iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn a_sound_run_passes() {
        assert_eq!(violations(&sound()), []);
    }

    #[test]
    fn planted_losses_and_gaps_are_found() {
        assert_eq!(broken_by(|run| drop(run.outcomes.remove(0))), ["I1"]);
        assert_eq!(broken_by(|run| run.decisions[1].sequence = 3), ["I4"]);
        assert_eq!(broken_by(|run| drop(run.audited_decisions.remove(1))), ["I4"]);
        assert_eq!(broken_by(|run| drop(run.audited_outcomes.remove(4))), ["I4"]);
        assert_eq!(broken_by(|run| drop(run.intents.remove(0))), ["I4"]);
    }

    #[test]
    fn planted_duplicates_are_found() {
        assert_eq!(broken_by(|run| run.decisions.push(run.decisions[0].clone())), ["I2"]);
        assert_eq!(broken_by(|run| run.outcomes.push(run.outcomes[1].clone())), ["I2"]);
        assert_eq!(broken_by(|run| run.outcomes.push(run.outcomes[4].clone())), ["I2"]);
        assert_eq!(broken_by(|run| run.audited_decisions.push("a1".into())), ["I2"]);
    }

    #[test]
    fn what_was_done_twice_at_once_or_against_the_record_is_found() {
        let twice = |run: &mut RollbackRun| {
            let again = Activation { started_ms: 5_000, ended_ms: 5_100, ..run.activations[0].clone() };
            run.activations.push(again);
        };
        assert_eq!(broken_by(twice), ["I3"]);
        assert_eq!(broken_by(|run| run.activations[1].started_ms = 1_099), ["I3"]);
        assert_eq!(broken_by(|run| drop(run.activations.remove(0))), ["I3"]);
        let failed = |run: &mut RollbackRun| {
            run.outcomes[1].status = "failed".into();
            run.audited_outcomes[1].status = "failed".into();
        };
        assert_eq!(broken_by(failed), ["I3"]);
    }
}
