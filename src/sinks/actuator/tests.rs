//! What is the dial change's own, on the stand of the protocol.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Change as _, DialChange, Ledger, Platform, Redecision};
use crate::genesys::{CallError, CallErrorKind, Campaign, Priority, Reply, Scope};
use crate::model::Timestamp;
use crate::model::campaign::{CampaignWindow, DialParameters};
use crate::model::decision::{Action, DecisionId, Loop, Mode, Policy};
use crate::model::outcome::{Effect, OutcomeStatus, SentRequest};
use crate::postgres::intents::{Claim, Intent, Terms};
use crate::sinks::actuation::Read;
use crate::sinks::actuation::stand::{Act, Object, Refusal, START_MS, Scripted, Staged, Stand, plain};

type Dial = DialChange<Scripted<Campaign>>;

crate::sinks::actuation::tests::protocol_tests!(Dial);

/// How long the decision may be carried out.
const LIFE: Duration = Duration::from_secs(60);

fn set(campaign: &mut Campaign, rate: f64) {
    let version: u64 = campaign.revision.trim_matches('"').parse().expect("a number");
    campaign.dial_rate = rate;
    let quote = if campaign.revision.starts_with('"') { "\"" } else { "" };
    campaign.revision = format!("{quote}{}{quote}", version + 1);
}

fn limit(campaign: &mut Campaign, max: f64) {
    let rate = campaign.dial_rate;
    set(campaign, rate);
    campaign.max_dial_rate = max;
}

impl Object for Campaign {
    fn apply(&mut self, request: &SentRequest) -> Result<(), CallErrorKind> {
        if request.if_match.as_ref().is_some_and(|named| *named != self.revision) {
            return Err(CallErrorKind::Conflict);
        }
        set(self, request.body["rate"].as_f64().expect("a rate"));
        Ok(())
    }
}

impl Platform for Scripted<Campaign> {
    async fn campaign(&self, _: &str, scope: &Scope) -> Result<Campaign, CallError> {
        self.look(scope).await
    }

    fn prepare(&self, campaign: &Campaign, rate: f64) -> SentRequest {
        // One without an entity tag stands for a platform whose changes name no state.
        let revision = Some(campaign.revision.clone()).filter(|revision| revision.starts_with('"'));
        SentRequest {
            method: if revision.is_some() { "PUT" } else { "PATCH" }.to_owned(),
            path: format!("/{}", campaign.id),
            if_match: revision,
            body: json!({ "rate": rate }),
        }
    }

    async fn send(&self, request: &SentRequest, _: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.write(request, scope).await
    }

    async fn other_writer(&self, _: &str, _: &Scope) -> Option<String> {
        Some("A Person".to_owned())
    }
}

impl Staged for Dial {
    type Object = Campaign;
    const LIFE: Duration = LIFE;

    /// At 2.00 within 1 to 5; it is to have 3.00.
    fn object() -> Campaign {
        Campaign {
            id: "c".to_owned(),
            name: None,
            dial_rate: 2.0,
            min_dial_rate: 1.0,
            max_dial_rate: 5.0,
            revision: "\"0\"".to_owned(),
            definition: None,
        }
    }

    fn change(platform: Scripted<Campaign>) -> Self {
        let rule = |decision: &Read<'_, Self>, _: &Campaign| Redecision::Set(decision.parameters.dial_rate);
        Self::new(platform, Arc::new(rule))
    }

    fn decision() -> Read<'static, Self> {
        let at = Timestamp::from_millis(START_MS);
        Read::<Self> {
            decision_id: DecisionId::derive(Loop::Dial, "c", 7, at),
            sequence: 7,
            r#loop: Loop::Dial,
            key: Cow::Borrowed("c"),
            mode: Mode::Live,
            decided_at: at,
            event_time: at,
            action: Action::SetDialRate,
            reason: Cow::Borrowed("towards_target"),
            parameters: DialParameters { previous_dial_rate: 2.0, dial_rate: 3.0 }.into(),
            inputs: CampaignWindow {
                campaign_id: Cow::Borrowed("c"),
                organization_id: None,
                region: None,
                first_observed_at: at,
                observed_at: at,
                answer_rates: [0.5].into_iter().collect(),
                mean_answer_rate: 0.5,
                changed_at: None,
                attempted: None,
                delivered: None,
                answered: None,
                abandoned: None,
                counts_from: crate::model::call_counts::CountSources::default(),
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

    fn is_changed(campaign: &Campaign) -> bool {
        campaign.dial_rate == 3.0
    }
}

/// Rates set by our requests.
fn rates(stand: &Stand<Dial>) -> Vec<f64> {
    let world = stand.world.lock().unwrap();
    world.effects.iter().map(|request| request.body["rate"].as_f64().expect("a rate")).collect()
}

#[tokio::test(start_paused = true)]
async fn at_the_rate_already_nothing_is_sent() {
    let stand = Stand::<Dial>::new().await.with(|campaign| campaign.dial_rate = 3.001);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Unchanged, "already_at_rate"));
    assert_eq!((stand.sent(), stand.intents()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_limits_just_read_win() {
    let stand = Stand::<Dial>::new().await.with(|campaign| campaign.max_dial_rate = 2.5);
    assert_eq!(stand.outcome().await.effect.unwrap().dial_rate().unwrap().dial_rate, 2.5);
    let stand = Stand::<Dial>::new().await.with(|campaign| campaign.max_dial_rate = 0.5);
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.reason.starts_with("limits_contradict"), "{}", outcome.reason);
    assert_eq!(stand.intents(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_rule_may_hold_on_what_it_sees_now() {
    let mut stand = Stand::<Dial>::new().await;
    stand.actuation.change.redecide =
        Arc::new(|_, campaign| Redecision::Hold(format!("r={}", campaign.dial_rate)));
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Unchanged, "r=2"));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_decides_again_on_the_new_limits() {
    let stand = Stand::<Dial>::new()
        .await
        .writes(&[Act::After(|it| limit(it, 2.8)), Act::After(|it| limit(it, 2.4))]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 3));
    assert_eq!(
        outcome.effect,
        Some(Effect::DialRate(DialParameters { previous_dial_rate: 2.0, dial_rate: 2.4 }))
    );
    assert_eq!(rates(&stand), [2.4]);
    assert_eq!(stand.intents(), 3, "each attempt is on record");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_never_rests_wins() {
    let writers: Vec<Act<Campaign>> = (0..20)
        .map(|n| if n % 2 == 0 { Act::After(|it| set(it, 2.0)) } else { Act::After(|it| set(it, 3.0)) })
        .collect();
    let mut stand = Stand::<Dial>::new().await.writes(&writers);
    stand.decision.parameters.dial_rate = 4.0;
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Conflicted, 5));
    assert_eq!(stand.effects(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_newer_decision_ends_a_wait() {
    for act in [Act::Refuse(Refusal::RateLimited(LIFE / 2)), Act::Refuse(Refusal::Paused(LIFE / 2))] {
        let stand = Stand::<Dial>::new().await.writes(&[act]);
        let newer = stand.superseded.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            newer.cancel();
        });
        let began = Instant::now();
        assert_eq!(stand.outcome().await.status, OutcomeStatus::Superseded);
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(stand.effects(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn superseded_before_its_turn_it_is_not_sent() {
    let stand = Stand::<Dial>::new().await;
    stand.superseded.cancel();
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, stand.sent()), (OutcomeStatus::Superseded, 0));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_effect_under_another_writers_change_is_not_repeated() {
    let stand = Stand::<Dial>::new().await.writes(&[Act::Before(|it| set(it, 4.5))]);
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Conflicted);
    assert!(outcome.reason.starts_with("effect_unknown"), "{}", outcome.reason);
    assert_eq!((rates(&stand), stand.sent()), (vec![3.0], 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_arrives_late_is_waited_for_before_the_end_is_told() {
    let stand = Stand::<Dial>::new().await.writes(&[plain(CallErrorKind::NoReply)]);
    let (world, newer) = (Arc::clone(&stand.world), stand.superseded.clone());
    newer.cancel();
    // Sent before the newer decision came, as after a crash.
    let request = stand.actuation.change.platform.prepare(&Dial::object(), 3.0);
    let parameters = stand.decision.parameters.change();
    let intent =
        Intent { decision_id: stand.decision.decision_id, attempt: 1, request: request.clone(), parameters };
    let terms =
        Terms { of: Loop::Dial, expires_at: stand.decision.expires_at, renewed_within: None, flow: None };
    assert_eq!(stand.memory.claim(&intent, &stand.lease, &terms).await.unwrap(), Claim::Granted);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.lock().unwrap().write(&request).unwrap();
    });
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Applied, "confirmed_by_reading_back"));
    assert_eq!((rates(&stand), stand.sent()), (vec![3.0], 0));
}

/// A platform whose changes name no state: the last writer wins.
fn without_tags(campaign: &mut Campaign) {
    campaign.revision = "0".to_owned();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_names_no_state_is_read_back_by_its_rate_and_never_repeated_blindly() {
    let lost = Act::WorkBut(CallErrorKind::NoReply);
    let stand = Stand::<Dial>::new().await.with(without_tags).writes(&[lost]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Applied, "confirmed_by_reading_back"));
    assert_eq!((rates(&stand), stand.sent()), (vec![3.0], 1));

    // Sent again, but only once the first can no longer be on its way.
    let began = Instant::now();
    let stand = Stand::<Dial>::new().await.with(without_tags).writes(&[plain(CallErrorKind::NoReply)]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Applied, "confirmed"));
    assert!(began.elapsed() >= crate::sinks::actuation::Settings::default().in_flight_time);
    assert_eq!((rates(&stand), stand.sent()), (vec![3.0], 2));

    let stand = Stand::<Dial>::new().await.with(without_tags).writes(&[Act::Before(|it| set(it, 4.5))]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.code()), (OutcomeStatus::Conflicted, "effect_unknown"));
    assert_eq!(stand.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_given_way_to_is_told_with_its_author() {
    let mut stand = Stand::<Dial>::new().await;
    stand.actuation.change.redecide =
        Arc::new(|_, campaign| Redecision::Hold(format!("other_writer: the rate is {}", campaign.dial_rate)));
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.code()), (OutcomeStatus::Unchanged, "other_writer"));
    assert_eq!(outcome.reason, "other_writer: the rate is 2; by A Person");
    assert_eq!(stand.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_change_that_waits_comes_before_a_big_one_that_does_not() {
    let stand = Stand::<Dial>::new().await;
    let size = |of: &DialParameters| match stand.actuation.change.priority(&stand.decision, Some(of)) {
        Priority::DialChange { size_hundredths } => size_hundredths,
        other => panic!("{other:?}"),
    };
    let small = DialParameters { previous_dial_rate: 2.0, dial_rate: 2.01 };
    let biggest = DialParameters { previous_dial_rate: 1.0, dial_rate: 15.0 };
    let fresh = size(&biggest);
    assert_eq!((size(&small), fresh), (1, 1_400));
    tokio::time::advance(Duration::from_secs(150)).await;
    assert!(size(&small) > fresh, "whatever else comes up meanwhile");

    // Superseded it goes on waiting, carried out it does not.
    stand.superseded.cancel();
    assert_eq!(stand.outcome().await.status, OutcomeStatus::Superseded);
    assert!(size(&small) > fresh);
    let mut stand = Stand::<Dial>::new().await;
    stand.actuation.change.priority(&stand.decision, Some(&small));
    tokio::time::advance(Duration::from_secs(30)).await;
    stand.decision.parameters.dial_rate = 2.5;
    assert_eq!(stand.outcome().await.status, OutcomeStatus::Applied);
    let urgency = stand.actuation.change.priority(&stand.decision, Some(&small));
    assert_eq!(urgency, Priority::DialChange { size_hundredths: 1 });
}
