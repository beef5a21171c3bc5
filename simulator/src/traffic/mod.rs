//! Interactions on their way through flows, queues and campaigns: who comes when, and
//! what happens to them.
//!
//! Pure: simulated milliseconds, and one stream of chance per flow and campaign.

mod journey;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use uuid::Uuid;

use super::chance::Chance;
use super::dialer::SettledCall;
use super::flows::Flow;
pub(crate) use journey::{EventKind, Journey};

/// Something that happens to a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Happening {
    /// Simulated milliseconds since the world began.
    pub at_ms: u64,
    pub event_id: Uuid,
    pub kind: EventKind,
    pub journey: Arc<Journey>,
}

/// In order of time, then of planning.
#[derive(Debug)]
struct Planned {
    sequence: u64,
    happening: Happening,
}

impl Planned {
    fn order(&self) -> (u64, u64) {
        (self.happening.at_ms, self.sequence)
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

/// When the next one comes to a flow.
#[derive(Debug)]
struct Arrivals {
    chance: Chance,
    per_ms: f64,
    next_ms: f64,
}

#[derive(Debug)]
pub(crate) struct Traffic {
    seed: u64,
    arrivals: BTreeMap<Arc<str>, Arrivals>,
    callers: BTreeMap<String, Chance>,
    dispatched: BTreeMap<Arc<str>, Chance>,
    planned: BinaryHeap<Reverse<Planned>>,
    sequence: u64,
}

impl Traffic {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            arrivals: BTreeMap::new(),
            callers: BTreeMap::new(),
            dispatched: BTreeMap::new(),
            planned: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// Lets people come to a flow during the second that ends at `now`, `load` times as
    /// many as its habits say.
    pub(crate) fn enter(&mut self, flow: &Flow, now: u64, load: f64) {
        let (begin_ms, end_ms) = ((now.saturating_sub(1) * 1_000) as f64, (now * 1_000) as f64);
        let seed = self.seed;
        let arrivals = self.arrivals.entry(flow.id.clone()).or_insert_with(|| Arrivals {
            chance: Chance::new(seed, &format!("flow {}", flow.id)),
            per_ms: 0.0,
            next_ms: f64::INFINITY,
        });
        let per_ms = flow.habits.interactions_per_minute * load / 60_000.0;
        if per_ms != arrivals.per_ms {
            arrivals.per_ms = per_ms;
            // Waiting times have no memory: drawing anew does not bend the rate.
            arrivals.next_ms = if per_ms > 0.0 {
                begin_ms + arrivals.chance.exponential(1.0 / per_ms)
            } else {
                f64::INFINITY
            };
        }
        let mut begun = Vec::new();
        while arrivals.next_ms < end_ms {
            let conversation_id = arrivals.chance.uuid();
            let at_ms = arrivals.next_ms as u64;
            begun.push(journey::through_flow(flow, conversation_id, at_ms, &mut arrivals.chance));
            arrivals.next_ms += arrivals.chance.exponential(1.0 / per_ms);
        }
        begun.into_iter().for_each(|(journey, steps)| self.plan(journey, steps));
    }

    /// A conversation that a dispatcher sends through a flow in second `now`.
    pub(crate) fn dispatch(&mut self, flow: &Flow, conversation_id: Uuid, now: u64) {
        let seed = self.seed;
        let chance = self.dispatched.entry(flow.id.clone());
        let chance = chance.or_insert_with(|| Chance::new(seed, &format!("dispatched {}", flow.id)));
        let (journey, steps) = journey::through_flow(flow, conversation_id, now * 1_000, chance);
        self.plan(journey, steps);
    }

    /// A call of a campaign that was answered in the second that ends at `now`.
    pub(crate) fn call(&mut self, campaign_id: &str, call: SettledCall, now: u64) {
        let seed = self.seed;
        if !self.callers.contains_key(campaign_id) {
            let chance = Chance::new(seed, &format!("calls {campaign_id}"));
            self.callers.insert(campaign_id.to_owned(), chance);
        }
        let Some(chance) = self.callers.get_mut(campaign_id) else { return };
        let (journey, steps) = journey::of_campaign(campaign_id, call, now.saturating_sub(1) * 1_000, chance);
        self.plan(journey, steps);
    }

    fn plan(&mut self, journey: Journey, steps: Vec<journey::Step>) {
        let journey = Arc::new(journey);
        for step in steps {
            self.sequence += 1;
            let happening = Happening {
                at_ms: step.at_ms,
                event_id: step.event_id,
                kind: step.kind,
                journey: journey.clone(),
            };
            self.planned.push(Reverse(Planned { sequence: self.sequence, happening }));
        }
    }

    /// What has happened up to the end of second `now`, in order of time.
    pub(crate) fn take_happened(&mut self, now: u64) -> Vec<Happening> {
        let mut happened = Vec::new();
        while self.planned.peek().is_some_and(|next| next.0.happening.at_ms <= now * 1_000) {
            let Some(Reverse(planned)) = self.planned.pop() else { break };
            happened.push(planned.happening);
        }
        happened
    }
}

/// Events one interaction with the flow makes on average.
pub(crate) fn events_per_interaction(flow: &Flow) -> f64 {
    journey::expected_events(flow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::Flows;
    use crate::scenario::Scenario;
    use crate::time::Timestamp;

    fn live(seed: u64, seconds: u64, load: f64) -> Vec<Happening> {
        let flows = Flows::new(&Scenario::default(), Timestamp::from_millis(0));
        let mut traffic = Traffic::new(seed);
        let mut happened = Vec::new();
        for now in 1..=seconds {
            flows.iter().for_each(|flow| traffic.enter(flow, now, load));
            happened.extend(traffic.take_happened(now));
        }
        happened
    }

    fn essence(happenings: &[Happening]) -> Vec<(u64, Uuid, EventKind, Uuid)> {
        let of = |it: &Happening| (it.at_ms, it.event_id, it.kind, it.journey.conversation_id);
        happenings.iter().map(of).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_happenings_in_order_of_time() {
        let first = essence(&live(5, 600, 1.0));
        assert_eq!(first, essence(&live(5, 600, 1.0)));
        assert_ne!(first, essence(&live(6, 600, 1.0)));
        assert!(first.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn as_many_come_as_the_habits_say_and_as_many_events_as_expected() {
        let flows = Flows::new(&Scenario::default(), Timestamp::from_millis(0));
        let per_minute: f64 = flows.iter().map(|flow| flow.habits.interactions_per_minute).sum();
        let events: f64 =
            flows.iter().map(|flow| flow.habits.interactions_per_minute * events_per_interaction(flow)).sum();
        for load in [1.0, 3.0] {
            let happened = live(5, 7_200, load);
            let begun = happened.iter().filter(|it| it.kind == EventKind::CustomerStart).count() as f64;
            let share = begun / (per_minute * 120.0 * load);
            assert!((0.96..1.04).contains(&share), "{share}");
            let share = happened.len() as f64 / (events * 120.0 * load);
            assert!((0.93..1.04).contains(&share), "{share}");
        }
    }

    #[test]
    fn errors_follow_the_active_version() {
        let scenario = Scenario::default();
        let mut flows = Flows::new(&scenario, Timestamp::from_millis(0));
        let flow = flows.get_mut(&scenario.flows[0].id).unwrap();
        let mut traffic = Traffic::new(9);
        let mut rate = |flow: &Flow, from: u64| {
            let mut ends = Vec::new();
            for now in from..from + 3_600 {
                traffic.enter(flow, now, 1.0);
                ends.extend(traffic.take_happened(now));
            }
            ends.retain(|it| it.kind == EventKind::FlowEnd);
            let of_active = |it: &&Happening| {
                it.journey.flow.as_ref().is_some_and(|visit| visit.version == flow.active().id)
            };
            let (mut total, mut errors) = (0.0, 0.0);
            for end in ends.iter().filter(of_active) {
                total += 1.0;
                errors += f64::from(u8::from(end.journey.flow.as_ref().unwrap().failed()));
            }
            errors / total
        };
        let good = rate(flow, 1);
        flow.publish(None, 0.25, None, Timestamp::from_millis(1)).unwrap();
        let bad = rate(flow, 3_601);
        assert!((0.004..0.02).contains(&good) && (0.22..0.28).contains(&bad), "{good} {bad}");
    }
}
