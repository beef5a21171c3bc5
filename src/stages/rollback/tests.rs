//! The rule, minute by minute.

use super::guard::{Guard, Observation, Surroundings};
use super::rule::{Policy, Rule, WithoutBaseline};
use crate::model::Timestamp;
use crate::model::decision::Action;
use crate::model::flow::{FlowMinute, FlowVersion, FlowVersions, MinuteSource};
use crate::model::rollback::{Candidate, CandidateReason};

const START: i64 = 1_767_323_040_000;

/// One flow, and what was answered so far.
struct Play {
    rule: Rule,
    guard: Guard,
    minute: i64,
    answers: Vec<(i64, Action, &'static str)>,
    candidates: Vec<Candidate>,
    maintenance: Vec<String>,
}

impl Play {
    fn new(policy: Policy) -> Self {
        Self::with(Rule { policy, ..Rule::default() })
    }

    fn with(rule: Rule) -> Self {
        Self {
            rule,
            guard: Guard::default(),
            minute: 0,
            answers: Vec::new(),
            candidates: Vec::new(),
            maintenance: Vec::new(),
        }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(START + minute * 60_000)
    }

    /// A minute of `version` at the present time; time stands still.
    fn tell(
        &mut self,
        version: &str,
        errors: u64,
        total: u64,
        known: Option<&FlowVersions<'_>>,
    ) -> Observation {
        self.observe(version, errors, total, known, true)
    }

    fn observe(
        &mut self,
        version: &str,
        errors: u64,
        total: u64,
        known: Option<&FlowVersions<'_>>,
        complete: bool,
    ) -> Observation {
        let minute = FlowMinute {
            flow_id: "f".into(),
            flow_version: version.into(),
            minute: Self::at(self.minute),
            total,
            errors,
            error_rate: if total == 0 { 0.0 } else { errors as f64 / total as f64 },
            complete,
            source: MinuteSource::Events,
        };
        let around = Surroundings { versions: known, maintenance: &self.maintenance };
        // What is kept survives being written and read at every step.
        let written = serde_json::to_vec(&self.guard).unwrap();
        self.guard = serde_json::from_slice(&written).unwrap();
        let observation = if complete {
            self.guard.observe(&self.rule, &minute, around)
        } else if self.guard.misses(&self.rule, &minute) {
            self.guard.miss(&self.rule, &minute, around)
        } else {
            Observation::Ignored("minute_not_complete")
        };
        if let Observation::Changed(judgement) = &observation {
            assert_eq!(self.rule.judge(&judgement.inputs), judgement.answer, "asked again on its record");
            self.answers.push((self.minute, judgement.answer.action, judgement.answer.reason));
            if judgement.answer.action == Action::Rollback {
                self.candidates = judgement.candidates.clone();
            }
        }
        observation
    }

    fn minute(&mut self, version: &str, errors: u64, total: u64) {
        self.tell(version, errors, total, None);
        self.minute += 1;
    }

    fn minutes(&mut self, count: u32, version: &str, errors: u64, total: u64) {
        (0..count).for_each(|_| self.minute(version, errors, total));
    }

    /// Minutes that nobody could measure.
    fn unmeasured(&mut self, count: u32) {
        for _ in 0..count {
            self.observe("", 0, 0, None, false);
            self.minute += 1;
        }
    }

    /// Of the last rollback.
    fn candidates(&self) -> Vec<(&str, CandidateReason)> {
        self.candidates.iter().map(|it| (&*it.flow_version, it.reason)).collect()
    }

    fn acts(&self) -> Vec<(i64, Action, &'static str)> {
        self.answers.iter().filter(|(_, action, _)| *action != Action::Hold).copied().collect()
    }

    fn last_reason(&self) -> &'static str {
        self.answers.last().expect("an answer").2
    }
}

#[test]
fn six_of_a_hundred_for_three_minutes_on_the_third_and_not_before() {
    for policy in [Policy::Consecutive, Policy::Attributed] {
        let mut play = Play::new(policy);
        play.minutes(2, "2", 6, 100);
        assert_eq!(play.acts(), []);
        play.minutes(1, "2", 6, 100);
        assert_eq!(play.acts(), [(2, Action::Rollback, "breaches_in_a_row")], "{policy:?}");
        play.minutes(10, "2", 6, 100);
        assert_eq!(play.acts().len(), 1, "once");
    }
}

#[test]
fn five_of_a_hundred_never() {
    for policy in [Policy::Consecutive, Policy::Attributed] {
        let mut play = Play::new(policy);
        play.minutes(500, "2", 5, 100);
        assert_eq!(play.answers, [(0, Action::Hold, "within_threshold")]);
    }
}

#[test]
fn one_of_one_three_times_is_nothing() {
    for policy in [Policy::Consecutive, Policy::Attributed] {
        let mut play = Play::new(policy);
        play.minutes(3, "2", 1, 1);
        assert_eq!(play.acts(), []);
        assert_eq!(play.last_reason(), "inconclusive");
    }
}

#[test]
fn half_an_hour_of_nothing_is_inconclusive_throughout() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(30, "2", 0, 0);
    assert_eq!(play.answers, [(0, Action::Hold, "inconclusive")]);
}

#[test]
fn minutes_nobody_could_measure_are_inconclusive_and_no_evidence() {
    let mut play = Play::new(Policy::Consecutive);
    play.minutes(2, "2", 6, 100);
    play.unmeasured(14);
    assert_eq!(play.last_reason(), "over_threshold", "it may still be late");
    play.unmeasured(30);
    assert_eq!(play.last_reason(), "inconclusive");
    let told = play.answers.len();
    play.unmeasured(30);
    assert_eq!((play.answers.len(), play.acts()), (told, vec![]), "told once");
    // The row was neither extended nor reset.
    play.minute("2", 6, 100);
    assert_eq!(play.acts(), [(76, Action::Rollback, "breaches_in_a_row")]);
}

#[test]
fn what_was_suppressed_is_not_done_while_nothing_is_measured() {
    let mut play = Play::new(Policy::Consecutive);
    play.maintenance.push("maintenance/1".to_owned());
    play.minutes(3, "2", 6, 100);
    assert_eq!(play.last_reason(), "suppressed_by_maintenance_window");
    play.maintenance.clear();
    play.unmeasured(60);
    assert_eq!((play.last_reason(), play.acts()), ("inconclusive", vec![]));
}

#[test]
fn nothing_heard_neither_extends_nor_resets_a_streak() {
    let mut play = Play::new(Policy::Consecutive);
    play.minutes(2, "2", 6, 100);
    play.minutes(30, "2", 0, 0);
    assert_eq!(play.acts(), []);
    assert_eq!(play.last_reason(), "inconclusive");
    play.minutes(1, "2", 6, 100);
    assert_eq!(play.acts(), [(32, Action::Rollback, "breaches_in_a_row")]);
}

#[test]
fn rates_swinging_around_the_threshold_do_nothing() {
    for policy in [Policy::Consecutive, Policy::Attributed] {
        let mut play = Play::new(policy);
        for round in 0..200 {
            play.minute("2", if round % 3 == 2 { 4 } else { 6 }, 100);
        }
        assert_eq!(play.acts(), []);
    }
}

#[test]
fn a_missing_or_late_minute_neither_counts_nor_resets() {
    let mut play = Play::new(Policy::Consecutive);
    play.minutes(2, "2", 6, 100);
    play.minute += 7;
    play.minute("2", 6, 100);
    assert_eq!(play.acts(), [(9, Action::Rollback, "breaches_in_a_row")], "missing");
    let mut play = Play::new(Policy::Consecutive);
    play.minutes(2, "2", 6, 100);
    play.minute -= 1;
    assert_eq!(play.tell("2", 90, 100, None), Observation::Ignored("minute_not_newer"), "late");
    assert_eq!(play.tell("2", 0, 100, None), Observation::Ignored("minute_not_newer"), "late");
    play.minute += 1;
    play.minute("2", 6, 100);
    assert_eq!(play.acts().len(), 1);
}

#[test]
fn below_twenty_a_minute_buckets_stretch() {
    let mut play = Play::new(Policy::Consecutive);
    // 7 a minute: a bucket of 21 closes every third minute.
    play.minutes(8, "2", 1, 7);
    assert_eq!(play.acts(), []);
    play.minutes(1, "2", 1, 7);
    assert_eq!(play.acts(), [(8, Action::Rollback, "breaches_in_a_row")]);
}

#[test]
fn as_bad_as_before_is_not_this_versions_fault() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(60, "1", 8, 100);
    let before = play.acts().len();
    play.minutes(60, "2", 8, 100);
    assert_eq!(play.acts().len(), before);
    assert_eq!(play.last_reason(), "over_threshold_as_before");
}

#[test]
fn worse_than_before_is_taken_back_and_watched_after_that() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(60, "1", 1, 100);
    play.minutes(4, "2", 15, 100);
    assert_eq!(play.acts(), [(62, Action::Rollback, "worse_than_before")]);
    // The old version is back and fails as well: people are told, nothing is taken back.
    play.minutes(3, "2", 0, 0);
    play.minutes(30, "1", 15, 100);
    assert_eq!(play.acts()[1..], [(69, Action::Alert, "not_armed")]);
}

#[test]
fn without_a_baseline_it_can_be_left_at_telling() {
    let rule = Rule { without_baseline: WithoutBaseline::Alert, ..Rule::default() };
    let mut play = Play::with(rule);
    play.minutes(3, "2", 50, 100);
    assert_eq!(play.acts(), [(2, Action::Alert, "no_baseline")]);
}

#[test]
fn an_hour_after_the_publish_people_are_told_only() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(60, "1", 1, 100);
    play.minutes(60, "2", 1, 100);
    play.minutes(10, "2", 20, 100);
    let acts = play.acts();
    assert!(matches!(acts[..], [(_, Action::Alert, "not_armed")]), "{acts:?}");
}

#[test]
fn the_timeline_says_when_a_version_was_published_and_which_is_active() {
    let mut play = Play::new(Policy::Attributed);
    let known = |active: &str, minute: i64| FlowVersions {
        flow_id: "f".into(),
        observed_at: Play::at(minute),
        versions: ["1", "2"]
            .map(|version| FlowVersion {
                version: version.to_owned().into(),
                status: Some(if version == active { "active" } else { "published" }.into()),
                published_at: Some(Play::at(-500)),
                replaced_at: None,
            })
            .into(),
    };
    // Long in force when it was first seen.
    for _ in 0..3 {
        play.tell("2", 20, 100, Some(&known("2", play.minute + 1)));
        play.minute += 1;
    }
    assert_eq!(play.acts(), [(2, Action::Alert, "not_armed")]);
    // Interactions of a version that is not active change nothing; once it is, it counts.
    assert_eq!(play.tell("1", 0, 100, Some(&known("2", play.minute + 1))), Observation::Aside);
    play.minute += 1;
    play.tell("1", 0, 100, Some(&known("1", play.minute + 1)));
    assert_eq!(play.guard.in_force().unwrap().0, "1");
    // A source that does not tell versions apart means the active one.
    play.minute += 1;
    play.tell("", 0, 100, Some(&known("2", play.minute + 1)));
    assert_eq!(play.guard.in_force().unwrap().0, "2");
}

#[test]
fn a_timeline_from_before_the_publish_does_not_hide_it() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(60, "1", 1, 100);
    let before = FlowVersions {
        flow_id: "f".into(),
        observed_at: Play::at(60).plus(std::time::Duration::from_secs(30)),
        versions: vec![FlowVersion {
            version: "1".into(),
            status: Some("active".into()),
            published_at: Some(Play::at(-500)),
            replaced_at: None,
        }],
    };
    for _ in 0..3 {
        play.tell("2", 20, 100, Some(&before));
        play.minute += 1;
    }
    assert_eq!(play.acts(), [(62, Action::Rollback, "worse_than_before")], "armed by its publish");
}

#[test]
fn a_version_that_drains_does_not_come_back_into_force() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(60, "1", 1, 100);
    for left in [80, 50, 20, 5] {
        play.tell("2", 0, 100 - left, None);
        assert_eq!(play.tell("1", 1, left, None), Observation::Aside);
        play.minute += 1;
        assert_eq!(play.guard.in_force().unwrap().0, "2");
    }
    // And one from before anything was heard of the flow is no publish.
    assert_eq!(play.tell("0", 1, 50, None), Observation::Aside);
}

#[test]
fn hysteresis_rearms_after_three_low_buckets() {
    let mut play = Play::new(Policy::Consecutive);
    play.minutes(3, "2", 10, 100);
    play.minutes(20, "2", 5, 100);
    play.minutes(10, "2", 10, 100);
    assert_eq!(play.acts().len(), 1, "5 % is not low enough");
    play.minutes(3, "2", 4, 100);
    assert_eq!(play.last_reason(), "within_threshold");
    play.minutes(3, "2", 10, 100);
    assert_eq!(play.acts().len(), 2, "re-armed");
}

#[test]
fn after_a_rollback_the_next_one_of_the_flow_waits_out_the_cooldown() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(60, "1", 1, 100);
    play.minutes(3, "2", 20, 100);
    assert_eq!(play.acts(), [(62, Action::Rollback, "worse_than_before")]);
    play.minutes(30, "3", 20, 100);
    // Decided at the end of minute 62; 15 minutes later minute 77 ends first.
    assert_eq!(play.acts()[1..], [(77, Action::Rollback, "worse_than_before")]);
    assert!(play.answers.contains(&(65, Action::Hold, "cooldown")));
}

#[test]
fn maintenance_suppresses_and_the_streak_starts_again_after_it() {
    let mut play = Play::new(Policy::Consecutive);
    play.minutes(2, "2", 10, 100);
    play.maintenance = vec!["maintenance/1".to_owned()];
    play.minutes(5, "2", 10, 100);
    assert_eq!(play.acts(), []);
    assert_eq!(play.last_reason(), "suppressed_by_maintenance_window");
    play.maintenance.clear();
    play.minutes(2, "2", 10, 100);
    assert_eq!(play.acts(), []);
    play.minutes(1, "2", 10, 100);
    assert_eq!(play.acts(), [(9, Action::Rollback, "breaches_in_a_row")]);
}

#[test]
fn severe_errors_are_found_at_low_traffic() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(480, "1", 0, 3);
    // Two of three a minute: a bucket of 21 takes seven minutes, three of them 21.
    play.minutes(21, "2", 2, 3);
    let acts = play.acts();
    assert!(matches!(acts[..], [(minute, Action::Rollback, "severe")] if minute < 480 + 7), "{acts:?}");
}

#[test]
fn a_version_replaced_while_it_failed_is_neither_baseline_nor_where_to_go_back_to() {
    use CandidateReason::{Baseline, Proven, ReplacedWhileFailing};
    let mut play = Play::new(Policy::Attributed);
    play.minutes(90, "1.0", 1, 300);
    play.minutes(90, "2.0", 1, 300);
    // Replaced before anything was decided, with more interactions than a baseline needs.
    play.minutes(2, "3.0", 120, 300);
    assert_eq!(play.acts(), []);
    play.minutes(3, "4.0", 120, 300);
    assert_eq!(play.acts(), [(184, Action::Rollback, "worse_than_before")]);
    assert_eq!(play.candidates(), [("2.0", Baseline), ("1.0", Proven), ("3.0", ReplacedWhileFailing)]);
}

#[test]
fn one_high_minute_at_its_end_does_not_make_a_proven_version_doubtful() {
    let mut play = Play::new(Policy::Attributed);
    play.minutes(90, "1", 1, 100);
    play.minutes(1, "1", 6, 100);
    play.minutes(3, "2", 40, 100);
    assert_eq!(play.candidates(), [("1", CandidateReason::Baseline)]);
}

#[test]
fn a_version_people_left_for_an_older_one_comes_last_and_one_that_was_taken_back_never() {
    use CandidateReason::{Baseline, LeftForOlder};
    let mut play = Play::new(Policy::Attributed);
    play.minutes(90, "1", 1, 100);
    play.minutes(90, "2", 1, 100);
    // People go back to 1, and later publish 3.
    play.minutes(3, "2", 0, 0);
    play.minutes(90, "1", 1, 100);
    play.minutes(3, "3", 40, 100);
    assert_eq!(play.candidates(), [("1", Baseline), ("2", LeftForOlder)]);
    // 3 is taken back; 4 fails as well.
    play.minutes(3, "3", 0, 0);
    play.minutes(90, "1", 1, 100);
    play.minutes(3, "4", 40, 100);
    assert_eq!(play.candidates(), [("1", Baseline), ("2", LeftForOlder)]);
}

#[test]
fn what_the_timeline_alone_knows_comes_before_what_is_doubtful() {
    use CandidateReason::{PublishedBefore, ReplacedWhileFailing};
    let mut play = Play::new(Policy::Attributed);
    play.minutes(2, "8", 40, 100);
    let version = |version: &'static str, status: &'static str| FlowVersion {
        version: version.into(),
        status: Some(status.into()),
        published_at: None,
        replaced_at: None,
    };
    for _ in 0..3 {
        let known = FlowVersions {
            flow_id: "f".into(),
            observed_at: Play::at(play.minute + 1),
            versions: vec![
                version("5", "published"),
                version("6", "archived"),
                version("7", "published"),
                version("8", "published"),
                version("9", "published"),
                version("9", "active"),
                version("10", "published"),
            ],
        };
        play.tell("9", 40, 100, Some(&known));
        play.minute += 1;
    }
    let expected = [("7", PublishedBefore), ("5", PublishedBefore), ("8", ReplacedWhileFailing)];
    assert_eq!(play.candidates(), expected);
}
