//! Judges a run of the dial loop from what it left behind: topics, tables and the
//! simulator's own log, never trunkline's counters. Knows nothing of the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A record's place: topic, partition, offset.
pub(crate) type Place = (String, i32, i64);

/// Everything a run left behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// Campaign statistics, with the time they were observed at.
    pub stats: Vec<Fact>,
    pub windows: Vec<Fact>,
    pub decisions: Vec<Decided>,
    /// Outcomes as read_committed readers of the topic see them.
    pub outcomes: Vec<Ended>,
    /// Places that dead letters and late events name as their origin.
    pub set_aside: Vec<Place>,
    /// Decision ids in `audit.decisions` and `audit.outcomes`, one per row.
    pub audited_decisions: Vec<String>,
    pub audited_outcomes: Vec<String>,
    /// Decision ids of recorded intents, one per attempt.
    pub intents: Vec<String>,
    /// Changes the simulator made at a request of ours.
    pub effects: Vec<Effect>,
}

#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub place: Place,
    pub campaign: String,
    pub observed_at: String,
    /// That of a statistic; those that a window holds.
    pub answer_rates: Vec<f64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub id: String,
    pub campaign: String,
    pub sequence: u64,
    pub event_time: String,
    /// The record it names as its cause, `topic/partition/offset`; empty where it names none.
    pub cause: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub decision_id: String,
    pub status: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Effect {
    pub campaign: String,
    /// Entity tag before and after the change.
    pub before: String,
    pub after: String,
    pub dial_rate: f64,
}

/// One broken invariant, by its number in the list of what must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub invariant: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Everything that is wrong; empty when all holds.
pub(crate) fn violations(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut broken = |invariant, what: String| found.push(Violation { invariant, what });
    nothing_twice(evidence, &mut broken);
    every_fact_decided(evidence, &mut broken);
    every_decision_ended(evidence, &mut broken);
    changes_as_told(evidence, &mut broken);
    found.sort();
    found
}

/// What the checks below tell of: an invariant and what breaks it.
type Broken<'b> = dyn FnMut(&'static str, String) + 'b;

fn nothing_twice(evidence: &Evidence, broken: &mut Broken<'_>) {
    for (campaign, observed_at) in
        repeated(evidence.windows.iter().map(|window| (&window.campaign, &window.observed_at)))
    {
        broken("I2", format!("two windows of {campaign} at {observed_at}"));
    }
    for id in repeated(evidence.decisions.iter().map(|decision| &decision.id)) {
        broken("I2", format!("decision {id} twice on its topic"));
    }
    for id in repeated(evidence.outcomes.iter().map(|outcome| &outcome.decision_id)) {
        broken("I2", format!("outcome of {id} twice on its topic"));
    }
    for id in repeated(&evidence.audited_decisions).into_iter().chain(repeated(&evidence.audited_outcomes)) {
        broken("I2", format!("{id} twice in the audit"));
    }
}

fn every_fact_decided(evidence: &Evidence, broken: &mut Broken<'_>) {
    let set_aside: BTreeSet<&Place> = evidence.set_aside.iter().collect();
    let windows: BTreeSet<_> =
        evidence.windows.iter().map(|window| (&window.campaign, &window.observed_at)).collect();
    for fact in &evidence.stats {
        if set_aside.contains(&fact.place) || windows.contains(&(&fact.campaign, &fact.observed_at)) {
            continue;
        }
        if !is_older(fact, &evidence.stats) {
            broken("I1", format!("statistics at {:?} have no window", fact.place));
        } else if !counts_in_the_next(fact, evidence) {
            broken("I1", format!("statistics at {:?} came after newer ones and count nowhere", fact.place));
        }
    }
    let causes: BTreeMap<&str, &Decided> =
        evidence.decisions.iter().map(|decision| (decision.cause.as_str(), decision)).collect();
    for window in &evidence.windows {
        let (topic, partition, offset) = &window.place;
        match causes.get(format!("{topic}/{partition}/{offset}").as_str()) {
            None if set_aside.contains(&window.place) => {}
            None => broken("I1", format!("the window at {:?} has no decision", window.place)),
            Some(decision) if decision.event_time != window.observed_at => {
                broken("I1", format!("decision {} is not of the time of its window", decision.id));
            }
            Some(_) => {}
        }
    }
}

/// A newer observation of the campaign stands before it, as where an instance that stood still
/// wrote what it had in hand: it has no window of its own.
fn is_older(fact: &Fact, stats: &[Fact]) -> bool {
    earlier(fact, stats).any(|newer| newer.observed_at > fact.observed_at)
}

/// Statistics of the campaign that stand before this one in its partition.
fn earlier<'s>(fact: &'s Fact, stats: &'s [Fact]) -> impl Iterator<Item = &'s Fact> {
    stats.iter().filter(|other| {
        let (topic, partition, offset) = &other.place;
        (topic, partition) == (&fact.place.0, &fact.place.1)
            && *offset < fact.place.2
            && other.campaign == fact.campaign
    })
}

/// Whether the campaign's next window holds it. Where nothing came after it, it waits in the state.
fn counts_in_the_next(fact: &Fact, evidence: &Evidence) -> bool {
    let newest = earlier(fact, &evidence.stats).map(|other| &other.observed_at).max();
    let next = evidence
        .windows
        .iter()
        .filter(|window| window.campaign == fact.campaign && Some(&window.observed_at) > newest)
        .min_by(|one, other| one.observed_at.cmp(&other.observed_at));
    next.is_none_or(|window| fact.answer_rates.iter().all(|rate| window.answer_rates.contains(rate)))
}

fn every_decision_ended(evidence: &Evidence, broken: &mut Broken<'_>) {
    let sequences = evidence.decisions.iter().map(|decision| (decision.campaign.as_str(), decision.sequence));
    for (campaign, missing) in holes(sequences) {
        broken("I4", format!("{campaign} has no decision {missing}"));
    }
    let audited: BTreeSet<&String> = evidence.audited_decisions.iter().collect();
    let audited_outcomes: BTreeSet<&String> = evidence.audited_outcomes.iter().collect();
    let ended = ended(evidence);
    for decision in &evidence.decisions {
        if !audited.contains(&decision.id) {
            broken("I4", format!("decision {} is not in the audit", decision.id));
        }
        if !ended.contains_key(&decision.id) {
            broken("I1", format!("decision {} has no outcome", decision.id));
        }
    }
    let decided: BTreeSet<&String> = evidence.decisions.iter().map(|decision| &decision.id).collect();
    for outcome in &evidence.outcomes {
        if !decided.contains(&outcome.decision_id) {
            broken("I4", format!("an outcome of {}, which nobody decided", outcome.decision_id));
        }
        if !audited_outcomes.contains(&outcome.decision_id) {
            broken("I4", format!("the outcome of {} is not in the audit", outcome.decision_id));
        }
    }
}

fn changes_as_told(evidence: &Evidence, broken: &mut Broken<'_>) {
    let ended = ended(evidence);
    let intents: BTreeSet<&String> = evidence.intents.iter().collect();
    let mut applied: BTreeMap<&str, usize> = BTreeMap::new();
    for decision in &evidence.decisions {
        if ended.get(&decision.id) == Some(&"applied") {
            *applied.entry(&decision.campaign).or_default() += 1;
            if !intents.contains(&decision.id) {
                broken("I4", format!("{} was applied without an intent", decision.id));
            }
        }
    }
    let mut effects: BTreeMap<&str, usize> = BTreeMap::new();
    for effect in &evidence.effects {
        *effects.entry(&effect.campaign).or_default() += 1;
    }
    for campaign in applied.keys().chain(effects.keys()).collect::<BTreeSet<_>>() {
        let (said, seen) = (applied.get(campaign).unwrap_or(&0), effects.get(campaign).unwrap_or(&0));
        if said != seen {
            broken("I3", format!("{campaign}: {said} decisions applied, {seen} changes at the platform"));
        }
    }
    for (campaign, before) in
        repeated(evidence.effects.iter().map(|effect| (&effect.campaign, &effect.before)))
    {
        broken("I3", format!("{campaign}: two changes on the same version {before}"));
    }
}

/// Of each decision with an outcome, its status.
fn ended(evidence: &Evidence) -> BTreeMap<&String, &str> {
    evidence.outcomes.iter().map(|outcome| (&outcome.decision_id, outcome.status.as_str())).collect()
}

/// Numbers that a key's sequence leaves out: each begins at 1.
pub(crate) fn holes<'a>(sequences: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<(&'a str, u64)> {
    let mut by_key: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (key, number) in sequences {
        by_key.entry(key).or_default().insert(number);
    }
    let missing = |(key, numbers): (&'a str, BTreeSet<u64>)| {
        let expected = 1..=numbers.len() as u64;
        expected.filter(|number| !numbers.contains(number)).map(|number| (key, number)).collect::<Vec<_>>()
    };
    by_key.into_iter().flat_map(missing).collect()
}

/// What stands there more than once.
pub(crate) fn repeated<T: Ord + Clone>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().filter(|item| !seen.insert(item.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three ticks of one campaign, the second of which changed the rate.
    fn sound() -> Evidence {
        let fact = |topic: &str, tick: i64| Fact {
            place: (topic.into(), 0, tick),
            campaign: "c".into(),
            observed_at: format!("t{tick}"),
            answer_rates: (0..=tick).map(|tick| tick as f64).collect(),
        };
        let ids: Vec<String> = (0..3).map(|tick| format!("d{tick}")).collect();
        Evidence {
            stats: (0..3).map(|tick| fact("stats", tick)).collect(),
            windows: (0..3).map(|tick| fact("windows", tick)).collect(),
            decisions: (0..3)
                .map(|tick| Decided {
                    id: format!("d{tick}"),
                    campaign: "c".into(),
                    sequence: tick as u64 + 1,
                    event_time: format!("t{tick}"),
                    cause: format!("windows/0/{tick}"),
                })
                .collect(),
            outcomes: ids
                .iter()
                .map(|id| Ended {
                    decision_id: id.clone(),
                    status: if id == "d1" { "applied" } else { "unchanged" }.into(),
                })
                .collect(),
            set_aside: Vec::new(),
            audited_decisions: ids.clone(),
            audited_outcomes: ids,
            intents: vec!["d1".into()],
            effects: vec![Effect {
                campaign: "c".into(),
                before: "\"1\"".into(),
                after: "\"2\"".into(),
                dial_rate: 1.7,
            }],
        }
    }

    fn broken_by(doctor: impl FnOnce(&mut Evidence)) -> BTreeSet<&'static str> {
        let mut evidence = sound();
        doctor(&mut evidence);
        violations(&evidence).into_iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn a_sound_run_passes() {
        assert_eq!(violations(&sound()), []);
    }

    #[test]
    fn planted_losses_are_found() {
        assert!(broken_by(|run| drop(run.windows.remove(1))).contains("I1"));
        assert!(broken_by(|run| drop(run.decisions.remove(1))).contains("I1"));
        assert!(broken_by(|run| drop(run.decisions.pop())).contains("I1"), "the last one too");
        assert!(broken_by(|run| drop(run.outcomes.remove(0))).contains("I1"));
        assert!(broken_by(|run| drop(run.audited_decisions.remove(0))).contains("I4"));
        assert!(broken_by(|run| drop(run.audited_outcomes.remove(0))).contains("I4"));
    }

    #[test]
    fn planted_duplicates_are_found() {
        assert!(broken_by(|run| run.windows.push(run.windows[0].clone())).contains("I2"));
        assert!(broken_by(|run| run.decisions.push(run.decisions[0].clone())).contains("I2"));
        assert!(broken_by(|run| run.outcomes.push(run.outcomes[0].clone())).contains("I2"));
        assert!(broken_by(|run| run.audited_decisions.push("d0".into())).contains("I2"));
        assert!(broken_by(|run| run.effects.push(run.effects[0].clone())).contains("I3"));
    }

    #[test]
    fn planted_gaps_and_unrecorded_effects_are_found() {
        assert!(broken_by(|run| run.decisions[1].sequence = 7).contains("I4"));
        assert!(broken_by(|run| run.intents.clear()).contains("I4"));
        assert!(broken_by(|run| run.effects.clear()).contains("I3"));
        assert!(broken_by(|run| run.outcomes[1].status = "failed".into()).contains("I3"));
    }

    #[test]
    fn what_came_after_newer_statistics_must_count_in_the_next_window() {
        let late = |place, observed_at: &str, rate| Fact {
            place: ("stats".into(), 0, place),
            campaign: "c".into(),
            observed_at: observed_at.into(),
            answer_rates: vec![rate],
        };
        // After the second tick, whose number it takes; the third's window has it or has it not.
        let between = |run: &mut Evidence, rate| {
            run.stats[2].place.2 = 3;
            run.stats.insert(2, late(2, "t0.5", rate));
        };
        assert!(broken_by(|run| between(run, 1.0)).is_empty());
        assert!(broken_by(|run| between(run, 0.3)).contains("I1"));
        assert!(broken_by(|run| run.stats.push(late(3, "t1.5", 0.3))).is_empty(), "no window came after it");
        assert!(
            broken_by(|run| run.stats.push(late(3, "t3", 3.0))).contains("I1"),
            "nothing newer before it"
        );
    }

    #[test]
    fn what_was_set_aside_is_not_lost() {
        let evidence = broken_by(|run| {
            run.stats.push(Fact {
                place: ("stats".into(), 1, 9),
                campaign: "c".into(),
                observed_at: "?".into(),
                answer_rates: Vec::new(),
            });
            run.set_aside.push(("stats".into(), 1, 9));
        });
        assert!(evidence.is_empty());
    }
}
