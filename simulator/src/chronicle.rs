//! What happens in the world becomes events, measures and conversations, stamped with
//! the machine's clock.

use std::sync::Arc;
use std::time::Duration;

use crate::conversations::Conversation;
use crate::dialect::Dialect;
use crate::events::Event;
use crate::measures::{Spread, Visits};
use crate::organization::{Moment, Organization};
use crate::time::Timestamp;
use crate::traffic::{EventKind, Happening, events_per_interaction};

impl Organization {
    /// Lets the second that the world has just lived through be known. `ended_at` is when
    /// it ended by the machine's clock.
    pub(crate) fn record_second(&mut self, ended_at: Timestamp, moment: Moment) {
        let now = self.world.now();
        let load = self.load();
        for flow in self.flows.iter() {
            self.traffic.enter(flow, now, load);
        }
        // The seed's interface tells no calls by time.
        if self.dialect != Dialect::Seed {
            for (campaign_id, counts) in self.world.call_counts() {
                self.calls.record(campaign_id, counts, ended_at);
            }
        }
        for (campaign_id, call) in self.world.settled_calls() {
            self.traffic.call(campaign_id, call, now);
        }
        for happening in self.traffic.take_happened(now) {
            let ago_ms = (now * 1_000).saturating_sub(happening.at_ms);
            let at = ended_at.minus(self.real(ago_ms));
            self.record(happening, at, moment);
        }
    }

    /// A span of the world's time on the machine's clock; none at speed 0.
    pub(crate) fn real(&self, simulated_ms: u64) -> Duration {
        if self.speed > 0.0 {
            Duration::from_secs_f64(simulated_ms as f64 / 1_000.0 / self.speed)
        } else {
            Duration::ZERO
        }
    }

    /// How many times more people come than the flows' habits say, for the rate of events
    /// asked for. At speed 0 a second is a second.
    fn load(&self) -> f64 {
        let Some(per_second) = self.events.settings().events_per_second else { return 1.0 };
        let speed = if self.speed > 0.0 { self.speed } else { 1.0 };
        let habitual: f64 = self
            .flows
            .iter()
            .map(|flow| flow.habits.interactions_per_minute / 60.0 * events_per_interaction(flow))
            .sum();
        if habitual > 0.0 { per_second / speed / habitual } else { 1.0 }
    }

    fn record(&mut self, happening: Happening, at: Timestamp, moment: Moment) {
        let Happening { event_id, kind, journey, .. } = happening;
        match kind {
            EventKind::CustomerStart => {
                let _ = journey.started_at.set(at);
            }
            EventKind::FlowEnd => {
                let flow_ms = journey.flow.as_ref().map_or(0, |visit| visit.ms);
                let flow_ms = self.real(flow_ms).as_millis() as u64;
                let visit = journey.flow.as_ref();
                if let Some((visit, Ok(flow))) =
                    visit.map(|visit| (visit, self.flows.get_mut(&visit.flow_id)))
                {
                    flow.measures.count(at, visit.failed());
                    let (version, exit_reason) = (visit.version.clone(), visit.exit_reason);
                    let outcomes = u64::from(visit.has_outcome);
                    let outcomes_failed = u64::from(visit.has_outcome && visit.failed());
                    let ms = Spread::of(flow_ms);
                    let visits = Visits { count: 1, outcomes, outcomes_failed, ms };
                    flow.measures.count_visit(at, &version, exit_reason, visits);
                }
            }
            EventKind::CustomerEnd => {
                let id = |id: uuid::Uuid| Arc::from(id.to_string());
                let conversation = Conversation {
                    conversation_id: journey.conversation_id,
                    conversation_start: *journey.started_at.get().unwrap_or(&at),
                    conversation_end: at,
                    available_at: self.details.appearance(at),
                    media_type: "voice".into(),
                    originating_direction: if journey.is_outbound() { "outbound" } else { "inbound" }.into(),
                    flow_id: journey.flow.as_ref().map(|visit| visit.flow_id.clone()),
                    flow_version: journey.flow.as_ref().map(|visit| visit.version.clone()),
                    exit_reason: journey.flow.as_ref().map(|visit| visit.exit_reason),
                    queue_id: journey.queue_id.clone(),
                    campaign_id: journey.campaign_id.clone(),
                    user_id: journey.user_id.map(id),
                    wrap_up_code: None,
                    wrap_up_ms: self.real(journey.wrap_up_ms).as_millis() as u64,
                };
                self.conversations.register(conversation);
            }
            _ => {}
        }
        if self.events.settings().campaigns || !journey.is_outbound() {
            self.events.take(Event { id: event_id, kind, at, journey }, moment.elapsed);
        }
    }
}
