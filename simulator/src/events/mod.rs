//! The event stream: what happens in the world is delivered to whoever listens, at least
//! once and in no particular order, as EventBridge does.
//!
//! ```text
//! chronicle ─▶ Emitter ─▶ DeliveryQueue ─▶ post (workers) ─▶ POST, again until acknowledged ─▶ EmittedLog
//! ```

mod envelope;
mod log;
pub(crate) mod post;
mod queue;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::chance::Chance;
use super::traffic::{EventKind, Journey};
use crate::time::Timestamp;
pub(crate) use log::LogPage;
use log::{Emitted, EmittedLog};
use queue::{Delivery, DeliveryQueue};
pub use settings::EventSettings;

/// One event of one conversation.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub id: Uuid,
    pub kind: EventKind,
    /// By the machine's clock, whatever the world's speed.
    pub at: Timestamp,
    pub journey: Arc<Journey>,
}

/// Deliveries that go out in one request.
#[derive(Debug)]
pub(crate) struct Batch(Vec<Delivery>);

/// Counted since the start.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    /// Events that were to be delivered, once each.
    pub happened: u64,
    /// Of these, delivered and acknowledged, or rejected by name.
    pub logged: u64,
    /// Of these, rejected by name in the receiver's reply.
    pub rejected: u64,
    /// Deliveries acknowledged, repeats included.
    pub acknowledged: u64,
    /// Deliveries made on purpose although the event was to be delivered already.
    pub repeats: u64,
    /// Events held back for the late share.
    pub late: u64,
    /// Requests sent again because they failed.
    pub retries: u64,
    /// Deliveries given up because the receiver called the whole request wrong.
    pub refused: u64,
    /// Events never delivered because the backlog was full.
    pub overflowed: u64,
    /// Deliveries in requests under way.
    pub in_flight: u64,
}

/// Where the stream stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    pub settings: EventSettings,
    /// Deliveries that wait.
    pub backlog: usize,
    #[serde(flatten)]
    pub counts: Counts,
    /// The last request that failed, and why.
    pub last_problem: Option<String>,
}

/// Times are monotonic, since the simulator started.
#[derive(Debug)]
pub(crate) struct Emitter {
    settings: EventSettings,
    chance: Chance,
    queue: DeliveryQueue,
    log: EmittedLog,
    counts: Counts,
    /// Nobody posts before, as the receiver asked.
    hold_until: Duration,
    last_problem: Option<String>,
}

impl Emitter {
    pub(crate) fn new(seed: u64, settings: EventSettings) -> Self {
        Self {
            settings,
            chance: Chance::new(seed, "events"),
            queue: DeliveryQueue::default(),
            log: EmittedLog::default(),
            counts: Counts::default(),
            hold_until: Duration::ZERO,
            last_problem: None,
        }
    }

    pub(crate) fn settings(&self) -> &EventSettings {
        &self.settings
    }

    /// What is queued already goes out as it was planned.
    ///
    /// # Errors
    /// All that is impossible about the settings.
    pub(crate) fn set(&mut self, settings: EventSettings) -> Result<(), String> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        self.settings = settings;
        Ok(())
    }

    /// Plans the deliveries of an event.
    pub(crate) fn take(&mut self, event: Event, now: Duration) {
        if self.settings.to.is_none() || !self.settings.active {
            return;
        }
        self.counts.happened += 1;
        if self.queue.len() + self.counts.in_flight as usize >= self.settings.backlog {
            self.counts.overflowed += 1;
            return;
        }
        let settings = &self.settings;
        let within = |chance: &mut Chance, ms: u64| Duration::from_millis(chance.between(0, ms));
        let late = self.chance.happens(settings.late_share);
        let delay = match (late, self.chance.happens(settings.disorder_share)) {
            (true, _) => Duration::from_millis(settings.late_ms),
            (false, true) => within(&mut self.chance, settings.disorder_ms),
            (false, false) => Duration::ZERO,
        };
        let due = now + delay;
        if self.chance.happens(settings.duplicate_share) {
            let again = due + within(&mut self.chance, settings.duplicate_within_ms);
            self.counts.repeats += 1;
            self.queue.push(again, Delivery { event: event.clone(), repeat: true, late });
        }
        self.counts.late += u64::from(late);
        self.queue.push(due, Delivery { event, repeat: false, late });
    }

    /// The next request's deliveries, if any are due and the receiver may be asked.
    pub(crate) fn next_batch(&mut self, now: Duration) -> Option<Batch> {
        if now < self.hold_until || self.settings.to.is_none() {
            return None;
        }
        let due = self.queue.take_due(now, self.settings.batch);
        self.counts.in_flight += due.len() as u64;
        (!due.is_empty()).then_some(Batch(due))
    }

    /// How long to wait before posting; none when there is nobody to post to.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        self.settings.to.as_ref().map(|_| self.hold_until.saturating_sub(now))
    }

    /// The receiver has the batch, but for the items it names.
    pub(crate) fn acknowledged(&mut self, batch: Batch, rejected: &[usize], at: Timestamp) {
        self.counts.in_flight -= batch.0.len() as u64;
        for (index, delivery) in batch.0.into_iter().enumerate() {
            let rejected = rejected.contains(&index);
            self.counts.acknowledged += u64::from(!rejected);
            if delivery.repeat {
                continue;
            }
            self.counts.logged += 1;
            self.counts.rejected += u64::from(rejected);
            let Delivery { event, late, .. } = delivery;
            self.log.push(Emitted { event, acknowledged_at: at, late, rejected });
        }
    }

    /// The receiver says that the request itself is wrong: it will never take it.
    pub(crate) fn refused(&mut self, batch: Batch, problem: String) {
        self.counts.in_flight -= batch.0.len() as u64;
        self.counts.refused += batch.0.len() as u64;
        self.last_problem = Some(problem);
    }

    /// The request failed and will be sent again; nobody posts for so long.
    pub(crate) fn failed(&mut self, problem: String, hold: Duration, now: Duration) {
        self.counts.retries += 1;
        self.hold_until = self.hold_until.max(now + hold);
        self.last_problem = Some(problem);
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            settings: self.settings.clone(),
            backlog: self.queue.len(),
            counts: self.counts.clone(),
            last_problem: self.last_problem.clone(),
        }
    }

    /// Events the receiver has answered about, after `since`, oldest answer first.
    pub(crate) fn log_page(&self, since: u64, limit: usize) -> LogPage {
        self.log.page(since, limit)
    }
}

impl Batch {
    /// The request's body: an array of EventBridge envelopes.
    pub(crate) fn body(&self) -> Vec<u8> {
        let envelopes: Vec<_> = self.0.iter().map(|delivery| envelope::of(&delivery.event)).collect();
        serde_json::to_vec(&envelopes).expect("envelopes have text keys only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::Flows;
    use crate::scenario::Scenario;
    use crate::traffic::Traffic;

    fn events(count: usize) -> Vec<Event> {
        let flows = Flows::new(&Scenario::default(), Timestamp::from_millis(0));
        let mut traffic = Traffic::new(1);
        let mut events = Vec::new();
        for now in 1.. {
            flows.iter().for_each(|flow| traffic.enter(flow, now, 10.0));
            events.extend(traffic.take_happened(now).into_iter().map(|it| Event {
                id: it.event_id,
                kind: it.kind,
                at: Timestamp::from_millis(it.at_ms as i64),
                journey: it.journey,
            }));
            if events.len() >= count {
                break;
            }
        }
        events.truncate(count);
        events
    }

    fn settings() -> EventSettings {
        EventSettings { to: Some("http://127.0.0.1:1/".into()), ..EventSettings::default() }
    }

    /// Ids in the order of delivery, with the time of each.
    fn delivered(emitter: &mut Emitter, until: Duration) -> Vec<(Uuid, bool, Duration)> {
        let mut seen = Vec::new();
        let mut now = Duration::ZERO;
        while now <= until {
            while let Some(batch) = emitter.next_batch(now) {
                seen.extend(batch.0.iter().map(|delivery| (delivery.event.id, delivery.repeat, now)));
                emitter.acknowledged(batch, &[], Timestamp::from_millis(0));
            }
            now += Duration::from_millis(100);
        }
        seen
    }

    #[test]
    fn every_event_is_delivered_once_and_some_again_some_later() {
        let settings = EventSettings {
            duplicate_share: 0.03,
            duplicate_within_ms: 2_000,
            disorder_share: 0.5,
            disorder_ms: 1_000,
            late_share: 0.1,
            late_ms: 60_000,
            ..settings()
        };
        let events = events(3_000);
        let run = || {
            let mut emitter = Emitter::new(4, settings.clone());
            events.iter().for_each(|event| emitter.take(event.clone(), Duration::ZERO));
            let seen = delivered(&mut emitter, Duration::from_secs(70));
            (seen, emitter)
        };
        let (seen, emitter) = run();
        assert_eq!(seen, run().0, "from the seed");
        let firsts: std::collections::BTreeSet<_> = seen.iter().filter(|it| !it.1).map(|it| it.0).collect();
        assert_eq!(firsts, events.iter().map(|event| event.id).collect());
        let repeats = seen.len() - events.len();
        assert!((60..130).contains(&repeats), "{repeats}");
        let late = seen.iter().filter(|it| !it.1 && it.2 >= Duration::from_secs(60)).count();
        assert!((230..370).contains(&late), "{late}");
        assert_ne!(
            seen[..200].iter().map(|it| it.0).collect::<Vec<_>>(),
            events[..200].iter().map(|it| it.id).collect::<Vec<_>>()
        );
        let counts = emitter.standing().counts;
        assert_eq!((counts.logged, counts.in_flight, emitter.queue.len()), (3_000, 0, 0));
        assert_eq!(counts.acknowledged, seen.len() as u64);
    }

    #[test]
    fn failures_hold_everybody_and_a_full_backlog_is_counted() {
        let mut emitter = Emitter::new(4, EventSettings { backlog: 10, batch: 4, ..settings() });
        events(12).into_iter().for_each(|event| emitter.take(event, Duration::ZERO));
        let now = Duration::from_secs(1);
        let first = emitter.next_batch(now).unwrap();
        emitter.failed("503".into(), Duration::from_secs(3), now);
        assert!(emitter.next_batch(now).is_none());
        assert_eq!(emitter.wait(now), Some(Duration::from_secs(3)));
        let second = emitter.next_batch(now + Duration::from_secs(3)).unwrap();
        emitter.refused(second, "400".into());
        emitter.acknowledged(first, &[1], Timestamp::from_millis(7));
        let standing = emitter.standing();
        let counts = standing.counts;
        assert_eq!((counts.overflowed, counts.refused, counts.rejected, counts.logged), (2, 4, 1, 4));
        assert_eq!((counts.in_flight, standing.backlog, counts.retries), (0, 2, 1));
        assert_eq!(emitter.log_page(0, 10).items.iter().filter(|item| item["rejected"] == true).count(), 1);
    }

    #[test]
    fn nobody_listening_means_nothing_queued() {
        for settings in [EventSettings::default(), EventSettings { active: false, ..settings() }] {
            let mut emitter = Emitter::new(4, settings);
            events(5).into_iter().for_each(|event| emitter.take(event, Duration::ZERO));
            assert_eq!((emitter.standing().backlog, emitter.standing().counts.happened), (0, 0));
        }
    }
}
