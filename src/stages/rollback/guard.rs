//! One flow: which version is in force, what speaks against it, and what was decided.

use serde::{Deserialize, Serialize};

use super::history::{History, InteractionCounts, Past};
use super::rule::{Answer, BREACHES_IN_A_ROW, Rule};
use super::timeline::{active_version, is_older, published_before};
use super::watch::{Minute, Watch};
use crate::model::Timestamp;
use crate::model::decision::Action;
use crate::model::flow::{FlowMinute, FlowVersions};
use crate::model::rollback::{Baseline, CANDIDATES_LIMIT, Candidate, CandidateReason, RollbackInputs};

/// A version that was in force before is so again once the present one has been silent
/// for so many minutes: while a version drains, both have interactions.
const SILENT_MINUTES: u32 = 3;

/// What surrounds a minute: read from tables, and recorded where it was used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The flow's publish timeline, where it is known.
    pub versions: Option<&'a FlowVersions<'a>>,
    /// Scopes of the maintenance windows that are open for the flow.
    pub maintenance: &'a [String],
}

/// What is kept per flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    watch: Option<Watch>,
    history: History,
    cooldown_until: Option<Timestamp>,
    /// What was answered last, and about which version.
    standing: Option<(String, String)>,
}

/// An evaluation that changed something.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub answer: Answer,
    pub inputs: RollbackInputs,
    pub error_rate: f64,
    /// Versions to go back to, where that is the answer.
    pub candidates: Vec<Candidate>,
}

/// What a minute led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// Evaluated; nothing is different from before.
    Same,
    Changed(Box<Judgement>),
    /// About a version that is not in force: counted for its baseline only.
    Aside,
    /// Not counted, and why.
    Ignored(&'static str),
}

impl Guard {
    /// The version in force and since when, as far as known.
    pub fn in_force(&self) -> Option<(&str, Timestamp)> {
        self.watch.as_ref().map(|watch| (watch.version.as_str(), watch.since))
    }

    /// One complete minute of one of the flow's versions.
    pub fn observe(&mut self, rule: &Rule, minute: &FlowMinute<'_>, around: Surroundings<'_>) -> Observation {
        let active = around.versions.and_then(active_version);
        let version: &str = match &*minute.flow_version {
            "" => active.unwrap_or_default(),
            version => version,
        };
        if let Some(aside) = self.choose(rule, version, minute, around.versions) {
            return aside;
        }
        let watch = self.watch.as_mut().expect("one has been chosen");
        let until = minute.minute.plus(rule.minute);
        let baseline = self.history.baseline(watch.since, until, rule.baseline_interactions);
        let read = Minute { from: minute.minute, total: minute.total, errors: minute.errors };
        watch.feed(rule, read, baseline.as_ref(), !around.maintenance.is_empty());
        let inputs = self.inputs(rule, minute, around, baseline);
        self.conclude(rule, inputs, around)
    }

    /// Whether this minute, which is not complete, is so far after the last one that was that
    /// [`miss`](Self::miss) has something to say.
    pub fn misses(&self, rule: &Rule, minute: &FlowMinute<'_>) -> bool {
        let patience = rule.minutes(rule.bucket_minutes);
        self.watch.as_ref().is_some_and(|watch| minute.minute >= watch.minute.plus(patience))
    }

    /// From when on the flow is silent if nothing more is heard of it.
    pub fn silent_from(&self, rule: &Rule) -> Option<Timestamp> {
        let newest = self.watch.as_ref()?.minute;
        Some(newest.plus(rule.minutes(rule.bucket_minutes)).plus(rule.minute))
    }

    /// The newest minute that should have been heard of at `time`.
    pub fn missed(&self, rule: &Rule, time: Timestamp) -> Option<Timestamp> {
        let newest = self.watch.as_ref()?.minute;
        let minute_ms = i64::try_from(rule.minute.as_millis()).unwrap_or(i64::MAX).max(1);
        let minutes = time.millis_since(newest) / minute_ms - 1;
        Some(Timestamp::from_millis(newest.as_millis().saturating_add(minutes.max(0) * minute_ms)))
    }

    /// What a clock that was ahead has told must not stand against what is told in its time:
    /// minutes after `anew` are new again.
    pub fn forget_after(&mut self, rule: &Rule, latest: Timestamp, anew: Timestamp) {
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.minute > latest) {
            watch.minute = anew;
            watch.since = watch.since.min(latest);
            // Who published when is not known any more: it is not taken back by itself.
            watch.armed_until = watch.armed_until.min(latest);
            let longest = latest.plus(rule.minutes(rule.cooldown_minutes));
            self.cooldown_until = self.cooldown_until.map(|until| until.min(longest));
        }
        self.history.forget_after(latest, anew);
    }

    /// A minute that is not complete although [so many](Self::misses) should have been: no
    /// evidence, neither for nor against the version, and what was seen before is too old.
    pub fn miss(&mut self, rule: &Rule, minute: &FlowMinute<'_>, around: Surroundings<'_>) -> Observation {
        let Some(watch) = &mut self.watch else { return Observation::Ignored("minute_not_complete") };
        watch.inconclusive = true;
        let until = minute.minute.plus(rule.minute);
        let baseline = self.history.baseline(watch.since, until, rule.baseline_interactions);
        let inputs = RollbackInputs { unmeasured: true, ..self.inputs(rule, minute, around, baseline) };
        self.conclude(rule, inputs, around)
    }

    /// What the rule is asked with about the version in force.
    fn inputs(
        &self,
        rule: &Rule,
        minute: &FlowMinute<'_>,
        around: Surroundings<'_>,
        baseline: Option<Baseline>,
    ) -> RollbackInputs {
        let watch = self.watch.as_ref().expect("one has been chosen");
        RollbackInputs {
            flow_id: minute.flow_id.clone().into_owned(),
            flow_version: watch.version.clone(),
            source: minute.source,
            minute: minute.minute,
            minute_ms: u64::try_from(rule.minute.as_millis()).unwrap_or(u64::MAX),
            in_force_since: watch.since,
            armed_until: watch.armed_until,
            buckets: watch.closed.clone(),
            inconclusive: watch.inconclusive,
            unmeasured: false,
            breaches: watch.breaches,
            recoveries: watch.recoveries,
            baseline,
            statistics: watch.statistics(),
            cooldown_until: self.cooldown_until,
            fired: watch.fired,
            maintenance: around.maintenance.to_vec(),
            versions_observed_at: around.versions.map(|versions| versions.observed_at),
        }
    }

    /// Asks the rule and remembers what it said.
    fn conclude(&mut self, rule: &Rule, inputs: RollbackInputs, around: Surroundings<'_>) -> Observation {
        let answer = rule.judge(&inputs);
        let Some(watch) = &mut self.watch else { return Observation::Same };
        if answer.action != Action::Hold {
            watch.fired = true;
        }
        if answer.action == Action::Rollback {
            watch.bad = true;
            watch.proven_worse = answer.reason != BREACHES_IN_A_ROW;
            let closed = inputs.minute.plus(rule.minute);
            self.cooldown_until = Some(closed.plus(rule.minutes(rule.cooldown_minutes)));
        }
        let standing = (watch.version.clone(), answer.reason.to_owned());
        if answer.action == Action::Hold && self.standing.as_ref() == Some(&standing) {
            return Observation::Same;
        }
        self.standing = Some(standing);
        let error_rate = watch.error_rate();
        let candidates = match answer.action {
            Action::Rollback => self.candidates(&inputs, around.versions),
            _ => Vec::new(),
        };
        Observation::Changed(Box::new(Judgement { answer, inputs, error_rate, candidates }))
    }

    /// Versions to go back to, best first; doubtful ones come after those of which the timeline
    /// alone knows.
    fn candidates(&self, inputs: &RollbackInputs, versions: Option<&FlowVersions<'_>>) -> Vec<Candidate> {
        let mut candidates = self.history.candidates(inputs.baseline.as_ref());
        let told =
            versions.map(|versions| published_before(versions, &inputs.flow_version)).unwrap_or_default();
        let told = told.into_iter().filter(|version| !self.history.knows(version));
        let reason = CandidateReason::PublishedBefore;
        candidates.extend(told.map(|version| Candidate { flow_version: version.to_owned(), reason }));
        candidates.sort_by_key(|candidate| candidate.reason);
        candidates.retain(|candidate| candidate.flow_version != inputs.flow_version);
        candidates.truncate(CANDIDATES_LIMIT);
        candidates
    }

    /// The decision to take `version` back was refused: what stands against it is decided on
    /// again, not before `not_before` where it was told, or before the lockout of that decision
    /// is over where that is `kept`.
    pub fn refused(&mut self, version: &str, not_before: Option<Timestamp>, kept: bool) {
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.version == version) {
            watch.refused();
            self.cooldown_until = not_before.or(self.cooldown_until.filter(|_| kept));
        }
    }

    /// Makes `version` the one in force if this minute says that it is. Returns what the
    /// minute is where it is not a new one of that version.
    fn choose(
        &mut self,
        rule: &Rule,
        version: &str,
        minute: &FlowMinute<'_>,
        versions: Option<&FlowVersions<'_>>,
    ) -> Option<Observation> {
        let at = minute.minute;
        let Some(watch) = &self.watch else {
            self.enter(rule, version, minute, versions);
            return None;
        };
        if watch.version == version {
            return (at <= watch.minute).then_some(Observation::Ignored("minute_not_newer"));
        }
        let (silent, newest) = (watch.is_silent(SILENT_MINUTES, at, rule.minute), watch.minute);
        // What was observed while the minute lasted may be from before a publish within it.
        let ended = at.plus(rule.minute);
        let told = versions.filter(|versions| versions.observed_at >= ended).and_then(active_version);
        if let Some(past) = self.history.get_mut(version) {
            if at <= past.minute {
                return Some(Observation::Ignored("minute_not_newer"));
            }
            past.minute = at;
            past.counts.add(at, minute.total, minute.errors);
            let returns = match told {
                Some(active) => active == version,
                None => minute.total > 0 && silent,
            };
            if !returns || at <= newest {
                return Some(Observation::Aside);
            }
        } else if minute.total == 0 {
            return Some(Observation::Ignored("version_not_in_force"));
        } else if at < newest
            || told.map_or_else(|| is_older(version, &watch.version), |active| active != version)
        {
            // Not a publish: it was in force before anything was heard of the flow.
            let mut counts = InteractionCounts::default();
            counts.add(at, minute.total, minute.errors);
            self.history.push_older(Past::unproven(version, counts, at));
            return Some(Observation::Aside);
        }
        self.enter(rule, version, minute, versions);
        None
    }

    fn enter(
        &mut self,
        rule: &Rule,
        version: &str,
        minute: &FlowMinute<'_>,
        versions: Option<&FlowVersions<'_>>,
    ) {
        let at = minute.minute;
        let published = versions.and_then(|versions| {
            versions.versions.iter().find(|known| known.version == version)?.published_at
        });
        // One that was in force before was not published now: it is watched, and not
        // taken back. So a rollback is not followed by another one down the line.
        let before = self.history.take(version);
        if let Some(gone) = self.watch.take() {
            // Unless it was worse than its own baseline, it is that of a publish that came
            // instead of the rollback.
            let bad = gone.proven_worse || gone.bad && before.is_some();
            let older = before.is_some() || is_older(version, &gone.version);
            // Where minutes do not tell versions apart, its last one may have interactions with this one.
            let mixed_from = published.filter(|_| minute.flow_version.is_empty());
            self.history.push(gone.into_past(rule, older, bad, mixed_from));
        }
        self.watch = Some(match before {
            Some(past) => {
                let mut watch = Watch::new(version.to_owned(), at, at, past.counts.clone());
                watch.remember(&past);
                watch
            }
            None => {
                let armed_until = published.unwrap_or(at).plus(rule.minutes(rule.armed_minutes));
                Watch::new(version.to_owned(), at, armed_until, InteractionCounts::default())
            }
        });
    }
}
