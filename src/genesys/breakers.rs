//! One breaker for each resource, and one for all of them together.
//!
//! A resource that fails pauses itself. All pause only when as many *different* resources
//! failed with no answer from any between them: that is no longer theirs, but the
//! endpoints'. Pure; time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Admission as Single, Breaker, Open, Verdict};

/// Resources that something is held against at most; further ones count for the group alone.
const RESOURCES: usize = 4_096;

#[derive(Debug)]
pub(super) struct Breakers {
    failures_allowed: u32,
    pause: Duration,
    group: Breaker,
    /// Those that failed since the last answer from any.
    failed: BTreeSet<String>,
    /// Those that something is held against.
    resources: BTreeMap<String, Breaker>,
}

/// How a call was let through, by the group and by its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    group: Single,
    resource: Single,
}

/// What pauses a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paused {
    Group(Open),
    Resource(Open),
}

/// What is paused at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Closed,
    /// The group, with every resource.
    Group,
    /// So many resources, one of them this.
    Resources {
        count: usize,
        first: String,
    },
}

impl Breakers {
    /// `failures_allowed` in a row pause a resource, as many resources in a row the group.
    pub(super) fn new(failures_allowed: u32, pause: Duration) -> Self {
        Self {
            failures_allowed,
            pause,
            group: Breaker::new(failures_allowed, pause),
            failed: BTreeSet::new(),
            resources: BTreeMap::new(),
        }
    }

    /// Whether a call would be let through; changes nothing.
    pub(super) fn check(&self, resource: &str, now: Instant) -> Result<(), Paused> {
        self.group.check(now).map_err(Paused::Group)?;
        self.resources.get(resource).map_or(Ok(()), |breaker| breaker.check(now)).map_err(Paused::Resource)
    }

    /// Lets a call through. Each admission is followed by exactly one [`settle`](Self::settle)
    /// for the same resource.
    pub(super) fn admit(&mut self, resource: &str, now: Instant) -> Result<Admission, Paused> {
        self.check(resource, now)?;
        let group = self.group.admit(now).map_err(Paused::Group)?;
        let resource = match self.resources.get_mut(resource) {
            Some(breaker) => breaker.admit(now).map_err(Paused::Resource)?,
            None => Single::Usual,
        };
        Ok(Admission { group, resource })
    }

    /// Takes note of how an admitted call went.
    pub(super) fn settle(&mut self, admission: Admission, resource: &str, verdict: Verdict, now: Instant) {
        let of_group = match verdict {
            Verdict::Answered => {
                self.failed.clear();
                Verdict::Answered
            }
            // One that failed before says nothing new about the others.
            Verdict::Failed if admission.group == Single::Usual && self.failed.contains(resource) => {
                Verdict::Unknown
            }
            Verdict::Failed => {
                if self.failed.len() < RESOURCES {
                    self.failed.insert(resource.to_owned());
                }
                Verdict::Failed
            }
            Verdict::Odd | Verdict::Unknown => Verdict::Unknown,
        };
        self.group.settle(admission.group, of_group, now);
        let known = self.resources.get(resource).cloned();
        let mut breaker = known.unwrap_or_else(|| Breaker::new(self.failures_allowed, self.pause));
        breaker.settle(admission.resource, verdict, now);
        if breaker.is_clean() {
            self.resources.remove(resource);
        } else if self.resources.len() < RESOURCES || self.resources.contains_key(resource) {
            self.resources.insert(resource.to_owned(), breaker);
        }
    }

    pub(super) fn standing(&self) -> Standing {
        if !self.group.is_closed() {
            return Standing::Group;
        }
        let mut open = self.resources.iter().filter(|(_, breaker)| !breaker.is_closed());
        match open.next() {
            None => Standing::Closed,
            Some((first, _)) => Standing::Resources { count: 1 + open.count(), first: first.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(60);

    fn call(breakers: &mut Breakers, resource: &str, now: Instant, verdict: Verdict) {
        let admission =
            breakers.admit(resource, now).unwrap_or_else(|paused| panic!("{resource}: {paused:?}"));
        breakers.settle(admission, resource, verdict, now);
    }

    #[test]
    fn a_resource_that_fails_pauses_itself_and_neither_costs_nor_is_saved_by_its_neighbour() {
        let now = Instant::now();
        let mut breakers = Breakers::new(3, PAUSE);
        for _ in 0..3 {
            call(&mut breakers, "bad", now, Verdict::Failed);
            call(&mut breakers, "good", now, Verdict::Answered);
        }
        let open = Open { until: Some(now + PAUSE) };
        assert_eq!(
            breakers.check("bad", now),
            Err(Paused::Resource(open)),
            "the neighbour's answers do not help"
        );
        assert_eq!(breakers.check("good", now), Ok(()));
        assert_eq!(breakers.standing(), Standing::Resources { count: 1, first: "bad".into() });

        let mut later = now;
        for _ in 0..5 {
            later += PAUSE;
            call(&mut breakers, "bad", later, Verdict::Failed);
            assert!(breakers.check("bad", later).is_err(), "one probe a pause");
            assert_eq!(breakers.check("good", later), Ok(()), "however long the other stays bad");
        }
        call(&mut breakers, "bad", later + PAUSE, Verdict::Answered);
        assert_eq!(breakers.standing(), Standing::Closed);
        assert!(breakers.resources.is_empty(), "nothing is remembered of those that answer");
    }

    #[test]
    fn the_group_pauses_when_several_different_resources_fail_with_no_answer_between() {
        let now = Instant::now();
        let mut breakers = Breakers::new(3, PAUSE);
        for resource in ["a", "b", "a", "b"] {
            call(&mut breakers, resource, now, Verdict::Failed);
        }
        assert_eq!(breakers.check("c", now), Ok(()), "two are not several");
        call(&mut breakers, "c", now, Verdict::Failed);
        assert_eq!(breakers.check("d", now), Err(Paused::Group(Open { until: Some(now + PAUSE) })));
        assert_eq!(breakers.standing(), Standing::Group);

        let later = now + PAUSE;
        let probe = breakers.admit("d", later).unwrap();
        assert_eq!(breakers.check("e", later), Err(Paused::Group(Open { until: None })), "one probe for all");
        breakers.settle(probe, "d", Verdict::Failed, later);
        assert!(breakers.check("e", later).is_err());
        let later = later + PAUSE;
        call(&mut breakers, "d", later, Verdict::Answered);
        assert_eq!(breakers.check("e", later), Ok(()));
        call(&mut breakers, "f", later, Verdict::Failed);
        call(&mut breakers, "g", later, Verdict::Failed);
        assert_eq!(breakers.check("h", later), Ok(()), "counted anew");
    }

    #[test]
    fn odd_replies_pause_the_resources_they_are_about_alone() {
        let now = Instant::now();
        let mut breakers = Breakers::new(3, PAUSE);
        for resource in ["a", "b", "c", "d", "e"] {
            (0..3).for_each(|_| call(&mut breakers, resource, now, Verdict::Odd));
            assert!(breakers.check(resource, now).is_err(), "{resource}");
        }
        assert_eq!(breakers.check("f", now), Ok(()));
    }

    #[test]
    fn what_was_given_up_on_our_side_is_evidence_of_nothing() {
        let now = Instant::now();
        let mut breakers = Breakers::new(3, PAUSE);
        for _ in 0..9 {
            for resource in ["a", "b", "c", "d"] {
                call(&mut breakers, resource, now, Verdict::Unknown);
            }
        }
        assert_eq!(breakers.standing(), Standing::Closed);
        for verdict in [Verdict::Failed, Verdict::Failed, Verdict::Unknown, Verdict::Failed] {
            call(&mut breakers, "a", now, verdict);
        }
        assert!(breakers.check("a", now).is_err(), "nor does it excuse a failure before it");
    }
}
