//! Which conversations are asked about together, and when. Pure.

use std::time::Duration;

use crate::model::Timestamp;

/// How batches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Conversations in one query at most.
    pub conversations: usize,
    /// Event time that one query covers at most; a conversation that is longer by itself
    /// is asked about alone.
    pub span: Duration,
    /// How long one that is due waits for others to fill its query.
    pub linger: Duration,
}

/// A conversation that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub conversation_id: String,
    pub first_event_at: Timestamp,
    pub last_event_at: Timestamp,
    /// See [`Work::rounds`](super::work::Work::rounds).
    pub round: i64,
    /// Since when.
    pub waited: Duration,
}

/// Conversations to be asked about with one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub conversations: Vec<Due>,
    /// Event times of the first and the last event of all.
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Batch {
    fn of(due: Due) -> Self {
        Self { from: due.first_event_at, to: due.last_event_at, conversations: vec![due] }
    }

    fn takes(&self, due: &Due, limits: &Limits) -> bool {
        let span = self.to.max(due.last_event_at).millis_since(self.from.min(due.first_event_at));
        self.conversations.len() < limits.conversations && span <= limits.span.as_millis() as i64
    }

    fn add(&mut self, due: Due) {
        self.from = self.from.min(due.first_event_at);
        self.to = self.to.max(due.last_event_at);
        self.conversations.push(due);
    }

    fn waited(&self) -> Duration {
        self.conversations.iter().map(|due| due.waited).max().unwrap_or_default()
    }
}

/// One that has waited for so many lingers is asked about whatever else there is to ask:
/// conversations of another day may never fill a query of their own.
const OVERDUE_LINGERS: u32 = 60;

/// The batches that are to be sent now, `most` at most: full ones, or where there is none
/// and nothing was sent since `quiet_for`, those in which one has lingered long enough. So
/// under load queries are full, and when there is little to ask one goes out per linger.
/// `due` stands in the order of becoming due.
pub(super) fn batches(due: Vec<Due>, limits: &Limits, quiet_for: Duration, most: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for due in due {
        match batches.iter_mut().find(|batch| batch.takes(&due, limits)) {
            Some(batch) => batch.add(due),
            None => batches.push(Batch::of(due)),
        }
    }
    let is_full = |batch: &Batch| batch.conversations.len() >= limits.conversations;
    let idle = quiet_for >= limits.linger && !batches.iter().any(is_full);
    batches.retain(|batch| {
        is_full(batch)
            || batch.waited() >= limits.linger * OVERDUE_LINGERS
            || (idle && batch.waited() >= limits.linger)
    });
    batches.truncate(most);
    batches
}

/// Windows that one conversation is looked for in at most.
const MAX_WINDOWS: usize = 12;

/// The times to ask about, one query each, where the platform answers about `longest` at most:
/// one for all but conversations that are longer by themselves. Of more than it makes sense to
/// ask the first and the last.
pub(super) fn windows(from: Timestamp, to: Timestamp, longest: Duration) -> Vec<(Timestamp, Timestamp)> {
    let longest_ms = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX).max(1);
    let count = (to.millis_since(from).max(1) - 1) / longest_ms + 1;
    let begin = |index: i64| Timestamp::from_millis(from.as_millis() + index * longest_ms);
    let window = |index: i64| (begin(index), if index + 1 == count { to } else { begin(index + 1) });
    let half = MAX_WINDOWS as i64 / 2;
    if count <= 2 * half {
        (0..count).map(window).collect()
    } else {
        (0..half).chain(count - half..count).map(window).collect()
    }
}

/// How many conversations the next query may hold, after queries that the platform would not
/// take as they were: half as many each time, and twice as many after each that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Appetite {
    now: usize,
    most: usize,
}

impl Appetite {
    pub(super) fn new(most: usize) -> Self {
        Self { now: most, most }
    }

    pub(super) fn conversations(self) -> usize {
        self.now
    }

    pub(super) fn taken(&mut self) {
        self.now = (self.now * 2).min(self.most);
    }

    pub(super) fn refused(&mut self) {
        self.now = (self.now / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { conversations: 50, span: Duration::from_secs(86_400), linger: Duration::from_secs(1) };
    const DAY_MS: i64 = 86_400_000;

    fn due(number: usize, from_ms: i64, to_ms: i64, waited_ms: u64) -> Due {
        Due {
            conversation_id: number.to_string(),
            first_event_at: Timestamp::from_millis(from_ms),
            last_event_at: Timestamp::from_millis(to_ms),
            round: 0,
            waited: Duration::from_millis(waited_ms),
        }
    }

    fn sizes(batches: &[Batch]) -> Vec<usize> {
        batches.iter().map(|batch| batch.conversations.len()).collect()
    }

    #[test]
    fn full_batches_go_at_once_and_the_rest_waits_for_its_second() {
        let waiting = |count: usize, waited_ms| (0..count).map(|n| due(n, 0, 10, waited_ms)).collect();
        let sent = |count, waited_ms, quiet_ms, most| {
            sizes(&batches(waiting(count, waited_ms), &LIMITS, Duration::from_millis(quiet_ms), most))
        };
        assert_eq!(sent(120, 0, 0, 9), [50, 50]);
        assert_eq!(sent(120, 1_000, 1_000, 9), [50, 50], "the rest may be filled while these are out");
        assert_eq!(sent(120, 1_000, 1_000, 1), [50]);
        assert_eq!(sent(49, 1_000, 1_000, 9), [49]);
        assert_eq!(sent(49, 999, 1_000, 9), [] as [usize; 0]);
        assert_eq!(sent(49, 1_000, 999, 9), [] as [usize; 0]);
        assert!(sent(0, 0, 1_000, 9).is_empty());
        assert_eq!(sent(120, 60_000, 0, 9), [50, 50, 20], "but nobody waits for ever");
    }

    #[test]
    fn a_query_covers_a_day_at_most_but_a_longer_conversation_as_a_whole() {
        let of = [
            due(0, 0, 10, 2_000),
            due(1, 2 * DAY_MS, 2 * DAY_MS + 5, 2_000),
            due(2, DAY_MS, DAY_MS, 2_000),
            due(3, 0, 9 * DAY_MS, 2_000),
            due(4, 5, DAY_MS, 2_000),
        ];
        let batches = batches(of.to_vec(), &LIMITS, LIMITS.linger, 9);
        let ids: Vec<Vec<&str>> = batches
            .iter()
            .map(|batch| batch.conversations.iter().map(|due| due.conversation_id.as_str()).collect())
            .collect();
        assert_eq!(ids, [vec!["0", "2", "4"], vec!["1"], vec!["3"]]);
        assert_eq!((batches[2].from.as_millis(), batches[2].to.as_millis()), (0, 9 * DAY_MS));
    }

    #[test]
    fn a_conversation_longer_than_the_platform_answers_about_is_looked_for_window_by_window() {
        let of = |days_ms: i64| {
            let longest = Duration::from_millis(30 * DAY_MS as u64);
            windows(Timestamp::from_millis(7), Timestamp::from_millis(7 + days_ms), longest)
                .into_iter()
                .map(|(from, to)| (from.as_millis() - 7, to.as_millis() - 7))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(0), [(0, 0)]);
        assert_eq!(of(30 * DAY_MS), [(0, 30 * DAY_MS)]);
        assert_eq!(of(40 * DAY_MS), [(0, 30 * DAY_MS), (30 * DAY_MS, 40 * DAY_MS)]);
        let years = of(20 * 365 * DAY_MS);
        assert_eq!(years.len(), MAX_WINDOWS);
        assert_eq!((years[0].0, years[MAX_WINDOWS - 1].1), (0, 20 * 365 * DAY_MS));
        assert!(years.iter().all(|(from, to)| to - from <= 30 * DAY_MS));
    }

    #[test]
    fn appetite_halves_to_one_and_comes_back() {
        let mut appetite = Appetite::new(50);
        let shrunk: Vec<_> = (0..7)
            .map(|_| {
                appetite.refused();
                appetite.conversations()
            })
            .collect();
        assert_eq!(shrunk, [25, 12, 6, 3, 1, 1, 1]);
        (0..9).for_each(|_| appetite.taken());
        assert_eq!(appetite.conversations(), 50);
    }

    proptest! {
        #[test]
        fn everyone_is_in_one_batch_at_most_and_the_windows_cover_their_events(
            given in prop::collection::vec((0i64..5 * DAY_MS, 0i64..DAY_MS * 2, 0u64..3_000), 0..300),
            most in 0usize..8,
        ) {
            let all: Vec<Due> =
                given.iter().enumerate().map(|(n, (from, length, waited))| due(n, *from, from + length, *waited)).collect();
            let made = batches(all.clone(), &LIMITS, LIMITS.linger, most);
            prop_assert!(made.len() <= most);
            let mut seen = std::collections::BTreeSet::new();
            for batch in &made {
                let long = batch.to.millis_since(batch.from) > DAY_MS;
                prop_assert!(!long || batch.conversations.len() == 1);
                prop_assert!((1..=50).contains(&batch.conversations.len()));
                prop_assert!(batch.conversations.len() == 50 || batch.waited() >= LIMITS.linger);
                for one in &batch.conversations {
                    prop_assert!(seen.insert(one.conversation_id.clone()));
                    prop_assert!(batch.from <= one.first_event_at && one.last_event_at <= batch.to);
                }
            }
        }

        /// The goal of 1.1 queries per 50 conversations, for all of a day.
        #[test]
        fn what_is_due_at_once_needs_no_more_queries_than_it_must(
            count in 0usize..2_000,
            spread in 0i64..DAY_MS,
            most in 1usize..6,
        ) {
            let mut left: Vec<Due> =
                (0..count).map(|n| due(n, (n as i64 * 7_919) % (spread + 1), spread, 1_000)).collect();
            let mut sent = 0;
            while !left.is_empty() {
                let looked_at = left.iter().take(most * 50).cloned().collect();
                let made = batches(looked_at, &LIMITS, LIMITS.linger, most);
                prop_assert!(!made.is_empty());
                sent += made.len();
                let asked: Vec<&Due> = made.iter().flat_map(|batch| &batch.conversations).collect();
                left.retain(|due| !asked.contains(&due));
            }
            prop_assert_eq!(sent, count.div_ceil(50));
        }
    }
}
