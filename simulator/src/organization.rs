//! The organisation behind the listeners: world, documents, clients, faults and log.
//!
//! No clock of its own: every call is told the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Settings;
use crate::budget::{Allowance, Budgets};
use crate::call_history::CallHistory;
use crate::chance::Chance;
use crate::consumer_groups::ConsumerGroups;
use crate::conversations::Conversations;
use crate::definition::Definition;
use crate::details::Details;
use crate::dialect::Dialect;
use crate::dialer::Snapshot;
use crate::events::Emitter;
use crate::faults::{Faults, RetryAfter};
use crate::flows::Flows;
use crate::journal::{CampaignChange, Effect, Entry, Journal, Origin, body_text};
use crate::platform;
use crate::queues::{QueueOverview, Queues};
use crate::reply::Refusal;
use crate::time::Timestamp;
use crate::tokens::Tokens;
use crate::traffic::Traffic;
use crate::world::World;

/// When something happens, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Monotonic, since the simulator started.
    pub elapsed: Duration,
    pub wall: Timestamp,
}

/// How this organisation behaves where the seed documents leave it open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    pub stale: StatusCode,
    pub written: StatusCode,
    pub counters_in_stats: bool,
    pub budget_retry_after: RetryAfter,
}

#[derive(Debug)]
pub(crate) struct Organization {
    pub(crate) world: World,
    pub(crate) definitions: BTreeMap<String, Definition>,
    pub(crate) tokens: Tokens,
    pub(crate) budgets: Budgets,
    pub(crate) faults: Faults,
    pub(crate) journal: Journal,
    pub(crate) manners: Manners,
    pub(crate) conversations: Conversations,
    pub(crate) details: Details,
    pub(crate) flows: Flows,
    pub(crate) queues: Queues,
    pub(crate) consumer_groups: ConsumerGroups,
    pub(crate) traffic: Traffic,
    pub(super) events: Emitter,
    pub(crate) dialect: Dialect,
    pub(crate) calls: CallHistory,
    /// Publishes that have begun and not ended.
    pub(crate) running_operations: usize,
    pub(crate) platform: platform::State,
    /// Campaigns that are off once their last line has ended.
    stopping: BTreeSet<String>,
    /// Simulated seconds per real second.
    pub(crate) speed: f64,
    rival: Rival,
}

/// The second writer: now and then it changes a campaign in the middle of others' work.
#[derive(Debug)]
struct Rival {
    /// Simulated seconds between its changes.
    every_seconds: Option<u64>,
    chance: Chance,
}

/// What the world looks like to somebody who may see everything.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub simulated_seconds: u64,
    pub campaigns: Vec<CampaignOverview>,
    pub flows: Vec<FlowOverview>,
    pub queues: Vec<QueueOverview>,
}

/// One flow in the [`Overview`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowOverview {
    pub id: String,
    pub name: String,
    pub active_version: String,
    /// Of the active version: the share of interactions that fail.
    pub error_rate: f64,
}

/// One campaign in the [`Overview`]. `dialRate` is the rate the dialer works with.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CampaignOverview {
    pub id: String,
    pub name: String,
    pub etag: String,
    pub predicted_dial_rate: f64,
    pub min_dial_rate: f64,
    pub max_dial_rate: f64,
    /// Abandoned ÷ (abandoned + delivered) since the world began.
    pub abandonment: f64,
    /// The same by the organisation's setting of what abandoned calls are measured against.
    pub compliance_abandon_rate: f64,
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

impl Organization {
    pub(crate) fn new(settings: &Settings, created_at: Timestamp) -> Self {
        let date_created = created_at.to_string();
        let scenario = platform::fit_scenario(settings.dialect, settings.scenario.clone());
        let definitions = scenario
            .campaigns
            .iter()
            .map(|campaign| (campaign.id.clone(), Definition::new(campaign, settings.seed, &date_created)));
        let allowance = Allowance { requests: settings.requests_per_window, window: settings.budget_window };
        Self {
            world: World::new(&scenario, settings.seed),
            definitions: definitions.collect(),
            tokens: Tokens::new(settings.clients.clone(), settings.token_lifetime),
            budgets: Budgets::new(allowance),
            faults: Faults::new(settings.seed),
            journal: Journal::new(settings.journal_entries, settings.journal_bytes),
            manners: Manners {
                stale: settings.stale_reply.status(),
                written: settings.write_reply.status(),
                counters_in_stats: settings.counters_in_stats,
                budget_retry_after: settings.budget_retry_after,
            },
            conversations: Conversations::new(),
            details: Details::new(settings.seed),
            flows: Flows::new(&settings.scenario, created_at),
            queues: Queues::new(&settings.scenario, settings.seed),
            consumer_groups: ConsumerGroups::new(&settings.scenario, settings.seed),
            traffic: Traffic::new(settings.seed),
            events: Emitter::new(settings.seed, settings.events.clone()),
            dialect: settings.dialect,
            calls: CallHistory::default(),
            running_operations: 0,
            platform: platform::State::new(created_at),
            stopping: BTreeSet::new(),
            speed: settings.speed,
            rival: Rival {
                every_seconds: settings.rival_every_seconds,
                chance: Chance::new(settings.seed, "rival"),
            },
        }
    }

    /// Lets simulated seconds pass, the last of which ends at the moment.
    pub(crate) fn advance(&mut self, seconds: u64, moment: Moment) {
        for later in (0..seconds).rev() {
            self.world.step();
            self.queues.step();
            self.settle_stopping();
            let ended_at = moment.wall.minus(self.real(later * 1_000));
            self.record_second(ended_at, moment);
            self.publish_due(Moment { wall: ended_at, ..moment });
            self.settle_operations(Moment { wall: ended_at, ..moment });
            let due = self.rival.every_seconds.is_some_and(|every| self.world.now().is_multiple_of(every));
            if due {
                self.let_rival_write(moment);
            }
        }
    }

    /// A dispatcher sends a conversation through a flow; where there is none of this id it leaves.
    pub(crate) fn dispatch(&mut self, flow_id: &str, conversation_id: Uuid) {
        if let Ok(flow) = self.flows.get(flow_id)
            && !flow.deleted
        {
            self.traffic.dispatch(flow, conversation_id, self.world.now());
        }
    }

    /// 0 or nothing stops the second writer.
    pub(crate) fn set_rival(&mut self, every_seconds: Option<u64>) {
        self.rival.every_seconds = every_seconds.filter(|every| *every > 0);
    }

    /// Half of the time the rival moves the upper limit by up to a fifth, otherwise
    /// something that has nothing to do with dialling.
    fn let_rival_write(&mut self, moment: Moment) {
        let Some(last) = (self.definitions.len() as u64).checked_sub(1) else { return };
        let chosen = self.rival.chance.between(0, last) as usize;
        let moves_limit = self.rival.chance.happens(0.5);
        let factor = 0.8 + 0.4 * self.rival.chance.fraction();
        let Some((id, definition)) = self.definitions.iter().nth(chosen) else { return };
        let rates = definition.rates();
        let change = if moves_limit {
            let max = ((rates.max * factor * 100.0).round() / 100.0).clamp(rates.min.max(0.01), 20.0);
            json!({ "dialerSettings": { "maxDialRate": max } })
        } else {
            json!({ "callerName": format!("Line {}", self.world.now()) })
        };
        let id = id.clone();
        // Within 0.01 and 20 the limit is possible: the rival is never refused.
        let _ = self.overrule(&id, &change, Origin::Rival, moment);
    }

    /// Changes a campaign past all client rules, as its administrators can.
    ///
    /// # Errors
    /// 404, or 400 where the change is no possible document.
    pub(crate) fn overrule(
        &mut self,
        id: &str,
        change: &Value,
        origin: Origin,
        moment: Moment,
    ) -> Result<CampaignChange, Refusal> {
        let modified_at = moment.wall.to_string();
        let effect = self.change_campaign(id, |definition| definition.overrule(change, &modified_at))?;
        let (path, body) = (campaign_path(id), body_text(change.to_string().as_bytes()));
        self.note(origin, "PUT", path, body, Effect::Campaign(effect.clone()), moment);
        Ok(effect)
    }

    /// Lets a campaign be changed and the dialer work with what comes out.
    ///
    /// # Errors
    /// 404, or what the change says.
    pub(crate) fn change_campaign(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Definition) -> Result<(), Refusal>,
    ) -> Result<CampaignChange, Refusal> {
        let definition = self.definitions.get_mut(id).ok_or_else(|| unknown_campaign(id))?;
        let (old_rate, old_etag) = (definition.rates().predicted, definition.etag());
        let old_version = definition.version();
        change(definition)?;
        let effect = CampaignChange {
            campaign_id: id.to_owned(),
            old_rate,
            new_rate: Some(definition.rates().predicted),
            old_etag,
            new_etag: Some(definition.etag()),
            old_version,
            new_version: Some(definition.version()),
        };
        if definition.status() == "stopping" {
            self.stopping.insert(id.to_owned());
        }
        self.world.set_dial_rate(id, definition.dialed_rate());
        Ok(effect)
    }

    fn settle_stopping(&mut self) {
        let (world, definitions) = (&self.world, &mut self.definitions);
        self.stopping.retain(|id| {
            if world.snapshot(id).is_some_and(|snapshot| snapshot.ringing > 0) {
                return true;
            }
            if let Some(definition) = definitions.get_mut(id).filter(|it| it.status() == "stopping") {
                definition.settle_off();
            }
            false
        });
    }

    /// Deletes a campaign; requests for it find nothing from now on.
    ///
    /// # Errors
    /// 404 where there is none.
    pub(crate) fn delete(&mut self, id: &str, moment: Moment) -> Result<CampaignChange, Refusal> {
        let definition = self.definitions.remove(id).ok_or_else(|| unknown_campaign(id))?;
        self.world.remove(id);
        let effect = CampaignChange {
            campaign_id: id.to_owned(),
            old_rate: definition.rates().predicted,
            new_rate: None,
            old_etag: definition.etag(),
            new_etag: None,
            old_version: definition.version(),
            new_version: None,
        };
        let path = campaign_path(id);
        self.note(Origin::Control, "DELETE", path, None, Effect::Campaign(effect.clone()), moment);
        Ok(effect)
    }

    /// Writes down a change that no client made.
    pub(crate) fn note(
        &mut self,
        origin: Origin,
        method: &str,
        path: String,
        body: Option<String>,
        effect: Effect,
        moment: Moment,
    ) {
        self.note_for(None, (origin, method), path, body, effect, moment);
    }

    /// Writes down a change that is none of a request's, and for which client it was made.
    pub(crate) fn note_for(
        &mut self,
        client: Option<String>,
        (origin, method): (Origin, &str),
        path: String,
        body: Option<String>,
        effect: Effect,
        moment: Moment,
    ) {
        self.platform.audit_log.record((origin, client.as_deref()), &effect, moment.wall);
        self.journal.push(Entry {
            sequence: 0,
            at: moment.wall,
            simulated_seconds: self.world.now(),
            origin,
            client,
            method: method.into(),
            path,
            if_match: None,
            body,
            status: Some(200),
            retry_after: None,
            faults: Vec::new(),
            effect: Some(effect),
            correlation_id: String::new(),
        });
    }

    pub(crate) fn overview(&self) -> Overview {
        let campaigns = self.definitions.iter().filter_map(|(id, definition)| {
            let snapshot = self.world.snapshot(id)?;
            let rates = definition.rates();
            Some(CampaignOverview {
                id: id.clone(),
                name: definition.name().into(),
                etag: definition.etag(),
                predicted_dial_rate: rates.predicted,
                min_dial_rate: rates.min,
                max_dial_rate: rates.max,
                abandonment: snapshot.abandonment(),
                compliance_abandon_rate: self.platform.settings.abandon_rate(&snapshot.calls),
                snapshot,
            })
        });
        let flows = self.flows.iter().map(|flow| FlowOverview {
            id: flow.id.to_string(),
            name: flow.habits.name.clone(),
            active_version: flow.active().id.to_string(),
            error_rate: flow.active().error_rate,
        });
        Overview {
            simulated_seconds: self.world.now(),
            campaigns: campaigns.collect(),
            flows: flows.collect(),
            queues: self.queues.overview(),
        }
    }
}

fn campaign_path(id: &str) -> String {
    format!("/api/v2/campaigns/{id}")
}

pub(crate) fn unknown_campaign(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not.found", format!("Unable to find a campaign with id {id}"))
        .about(id)
}
