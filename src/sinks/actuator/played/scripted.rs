//! A platform and a ledger made of memory, and a decision to play on them.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::genesys::{CallError, CallErrorKind, Campaign, Reply, Scope};
use crate::model::Timestamp;
use crate::model::campaign::{CampaignWindow, DialParameters};
use crate::model::decision::{Action, DecisionId, Loop, Mode, Policy};
use crate::model::outcome::{Outcome, ReceivedResponse, SentRequest};
use crate::postgres::intents::{Claim, Claimed, History, Intent, Settlement};
use crate::postgres::leases::Lease;
use crate::runtime::kafka::KafkaSettings;
use crate::sinks::actuator::carry::{Carrying, Interrupted, Read};
use crate::sinks::actuator::platform::{Ledger, LedgerError, Platform};
use crate::sinks::actuator::{Actuator, Redecision, Settings};

const START_MS: i64 = 1_767_323_045_000;
/// How long the decision may be carried out.
pub(super) const LIFE: Duration = Duration::from_secs(60);

/// What the platform does with the next call.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// As it should.
    Work,
    /// Refuses, without effect.
    Refuse(Refusal),
    /// Has the effect of a write, but the answer is this.
    WorkBut(CallErrorKind),
    /// Another writer sets the rate first.
    OtherWriter(f64),
    /// Another writer sets these limits first.
    OtherLimits(f64, f64),
    /// Has the effect; then another writer sets the rate; no reply.
    WorkThenOtherWriter(f64),
    /// Never answers.
    Hang,
    /// Has the effect and never answers.
    WorkAndHang,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    Plain(CallErrorKind),
    RateLimited(Duration),
    Paused(Duration),
}

pub(super) struct World {
    pub(super) campaign: Campaign,
    version: u64,
    reads: VecDeque<Act>,
    writes: VecDeque<Act>,
    /// Rates set by our requests.
    pub(super) effects: Vec<f64>,
    /// Every request that reached the platform.
    pub(super) sent: Vec<SentRequest>,
}

#[derive(Clone)]
pub(super) struct Scripted(Arc<Mutex<World>>);

impl World {
    fn set(&mut self, rate: f64) {
        self.version += 1;
        self.campaign.dial_rate = rate;
        self.campaign.revision = format!("\"{}\"", self.version);
    }

    pub(super) fn write(&mut self, request: &SentRequest) -> Result<Reply, CallError> {
        if request.if_match.as_deref() != Some(&self.campaign.revision) {
            return Err(error(CallErrorKind::Conflict));
        }
        let rate = request.body["rate"].as_f64().expect("a rate");
        self.set(rate);
        self.effects.push(rate);
        let response = ReceivedResponse { status: Some(200), body: None, error: None, correlation_id: None };
        Ok(Reply { response, revision: None })
    }
}

pub(super) fn error(kind: CallErrorKind) -> CallError {
    let reason = format!("the platform says {}", kind.name());
    let response =
        ReceivedResponse { status: None, body: None, error: Some(reason.clone()), correlation_id: None };
    CallError { kind, reason, response: Box::new(response) }
}

impl Refusal {
    fn error(self) -> CallError {
        error(match self {
            Refusal::Plain(kind) => kind,
            Refusal::RateLimited(wait) => CallErrorKind::RateLimited { until: Instant::now() + wait },
            Refusal::Paused(wait) => CallErrorKind::Paused { until: Some(Instant::now() + wait) },
        })
    }
}

/// What the client does with a call that gets no answer.
async fn unanswered<T>(scope: &Scope, late: CallErrorKind, stopped: CallErrorKind) -> Result<T, CallError> {
    tokio::select! {
        () = tokio::time::sleep_until(scope.deadline) => Err(error(late)),
        () = scope.cancelled.cancelled() => Err(error(stopped)),
    }
}

impl Platform for Scripted {
    async fn campaign(&self, _: &str, scope: &Scope) -> Result<Campaign, CallError> {
        let act = {
            let mut world = self.0.lock().unwrap();
            let act = world.reads.pop_front().unwrap_or(Act::Work);
            match act {
                Act::Work => return Ok(world.campaign.clone()),
                Act::Refuse(refusal) => return Err(refusal.error()),
                act => act,
            }
        };
        assert!(matches!(act, Act::Hang), "{act:?} is for writes");
        unanswered(scope, CallErrorKind::DeadlinePassed, CallErrorKind::Cancelled).await
    }

    fn prepare(&self, id: &str, rate: f64, revision: &str) -> SentRequest {
        SentRequest {
            method: "PUT".to_owned(),
            path: format!("/{id}"),
            if_match: Some(revision.to_owned()),
            body: json!({ "rate": rate }),
        }
    }

    async fn send(&self, request: &SentRequest, _: &str, scope: &Scope) -> Result<Reply, CallError> {
        {
            let mut world = self.0.lock().unwrap();
            world.sent.push(request.clone());
            match world.writes.pop_front().unwrap_or(Act::Work) {
                Act::Work => return world.write(request),
                Act::Refuse(refusal) => return Err(refusal.error()),
                Act::WorkBut(kind) => {
                    let _ = world.write(request);
                    return Err(error(kind));
                }
                Act::OtherWriter(rate) => {
                    world.set(rate);
                    return world.write(request);
                }
                Act::OtherLimits(least, greatest) => {
                    let rate = world.campaign.dial_rate;
                    world.set(rate);
                    (world.campaign.min_dial_rate, world.campaign.max_dial_rate) = (least, greatest);
                    return world.write(request);
                }
                Act::WorkThenOtherWriter(rate) => {
                    let _ = world.write(request);
                    world.set(rate);
                    return Err(error(CallErrorKind::NoReply));
                }
                Act::Hang => {}
                Act::WorkAndHang => {
                    let _ = world.write(request);
                }
            }
        }
        unanswered(scope, CallErrorKind::NoReply, CallErrorKind::NoReply).await
    }
}

#[derive(Default)]
pub(super) struct Book {
    token: i64,
    intents: Vec<Claimed>,
    pub(super) settlements: BTreeMap<DecisionId, Outcome>,
}

#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) away: Arc<AtomicBool>,
}

impl Memory {
    async fn answer<T>(&self, with: impl FnOnce(&mut Book) -> T) -> Result<T, LedgerError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(LedgerError { reason: "connection refused".to_owned(), about_data: false });
        }
        Ok(with(&mut self.book.lock().unwrap()))
    }
}

impl Ledger for Memory {
    async fn take_lease(&self, name: &str, _: &str) -> Result<Lease, LedgerError> {
        let name = name.to_owned();
        self.answer(|book| {
            book.token += 1;
            Lease { name, token: book.token }
        })
        .await
    }

    async fn history(&self, decision: DecisionId) -> Result<History, LedgerError> {
        self.answer(|book| History {
            intents: book.intents.iter().filter(|c| c.intent.decision_id == decision).cloned().collect(),
            settlement: book.settlements.get(&decision).cloned(),
        })
        .await
    }

    async fn claim(&self, intent: &Intent, lease: &Lease) -> Result<Claim, LedgerError> {
        self.answer(|book| {
            if lease.token != book.token {
                return Claim::LeaseLost;
            }
            let same = |c: &Claimed| {
                c.intent.decision_id == intent.decision_id && c.intent.attempt == intent.attempt
            };
            if book.intents.iter().any(same) {
                return Claim::Taken;
            }
            let claimed_at = Timestamp::from_millis(START_MS);
            book.intents.push(Claimed { intent: intent.clone(), claimed_at });
            Claim::Granted
        })
        .await
    }

    async fn settle(&self, outcome: &Outcome, lease: &Lease) -> Result<Settlement, LedgerError> {
        self.answer(|book| match book.settlements.get(&outcome.decision_id) {
            Some(stands) => Settlement::Stands(Box::new(stands.clone())),
            None if lease.token != book.token => Settlement::LeaseLost,
            None => {
                book.settlements.insert(outcome.decision_id, outcome.clone());
                Settlement::Stands(Box::new(outcome.clone()))
            }
        })
        .await
    }
}

pub(super) struct Play {
    pub(super) actuator: Actuator<Scripted, Memory>,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) memory: Memory,
    pub(super) decision: Read<'static>,
    pub(super) lease: Lease,
    pub(super) superseded: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl Play {
    /// A campaign at 2.00 within 1 to 5 that is to have 3.00 and has a minute for it.
    pub(super) async fn new() -> Self {
        let campaign = Campaign {
            id: "c".to_owned(),
            name: None,
            dial_rate: 2.0,
            min_dial_rate: 1.0,
            max_dial_rate: 5.0,
            revision: "\"0\"".to_owned(),
        };
        let world = Arc::new(Mutex::new(World {
            campaign,
            version: 0,
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            effects: Vec::new(),
            sent: Vec::new(),
        }));
        let began = Instant::now();
        let mut settings = Settings::new(Arc::new(|decision: &Read<'_>, _: &Campaign| {
            Redecision::Set(decision.parameters.dial_rate)
        }));
        settings.clock = Arc::new(move || Timestamp::from_millis(START_MS).plus(began.elapsed()));
        let kafka = KafkaSettings {
            brokers: String::new(),
            topic_prefix: "t-".to_owned(),
            instance: "one".to_owned(),
            properties: BTreeMap::new(),
        };
        let memory = Memory::default();
        let lease = memory.take_lease("l", "one").await.unwrap();
        Self {
            actuator: Actuator::new(kafka, settings, Scripted(Arc::clone(&world)), memory.clone()),
            world,
            memory,
            decision: decision(),
            lease,
            superseded: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn writes(self, acts: &[Act]) -> Self {
        self.world.lock().unwrap().writes.extend(acts.iter().cloned());
        self
    }

    pub(super) fn reads(self, acts: &[Act]) -> Self {
        self.world.lock().unwrap().reads.extend(acts.iter().cloned());
        self
    }

    pub(super) fn campaign(self, change: impl FnOnce(&mut Campaign)) -> Self {
        change(&mut self.world.lock().unwrap().campaign);
        self
    }

    pub(super) async fn run(&self) -> Result<Outcome, Interrupted> {
        Carrying::new(
            &self.actuator,
            &self.decision,
            self.lease.clone(),
            self.superseded.clone(),
            self.stop.clone(),
        )
        .run()
        .await
    }

    pub(super) async fn outcome(&self) -> Outcome {
        self.run().await.expect("an outcome")
    }

    pub(super) fn effects(&self) -> Vec<f64> {
        self.world.lock().unwrap().effects.clone()
    }

    pub(super) fn sent(&self) -> usize {
        self.world.lock().unwrap().sent.len()
    }

    pub(super) fn intents(&self) -> usize {
        self.memory.book.lock().unwrap().intents.len()
    }
}

pub(super) fn decision() -> Read<'static> {
    let at = Timestamp::from_millis(START_MS);
    Read {
        decision_id: DecisionId::derive(Loop::Dial, "c", 7, at),
        sequence: 7,
        r#loop: Loop::Dial,
        key: Cow::Borrowed("c"),
        mode: Mode::Live,
        decided_at: at,
        event_time: at,
        action: Action::SetDialRate,
        reason: Cow::Borrowed("towards_target"),
        parameters: DialParameters { previous_dial_rate: 2.0, dial_rate: 3.0 },
        inputs: CampaignWindow {
            campaign_id: Cow::Borrowed("c"),
            organization_id: None,
            region: None,
            first_observed_at: at,
            observed_at: at,
            answer_rates: [0.5].into_iter().collect(),
            mean_answer_rate: 0.5,
            answered: None,
            abandoned: None,
            agents_idle: 1,
            agents_busy: 1,
            dial_rate: 2.0,
            min_dial_rate: 1.0,
            max_dial_rate: 5.0,
            revision: Cow::Borrowed("\"0\""),
        },
        policy: Policy { name: Cow::Borrowed("proportional"), version: 1, hash: Cow::Borrowed("0") },
        settings_revision: 0,
        cause_ids: Vec::new(),
        expires_at: at.plus(LIFE),
    }
}

pub(super) fn plain(kind: CallErrorKind) -> Act {
    Act::Refuse(Refusal::Plain(kind))
}
