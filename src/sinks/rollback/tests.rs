//! What is the flow version's own, on the stand of the protocol.

use std::borrow::Cow;
use std::time::Duration;

use super::{FlowVersionChange, Platform};
use crate::genesys::{CallError, CallErrorKind, PlatformVersion, Reply, Scope};
use crate::model::Timestamp;
use crate::model::decision::{Action, DecisionId, Loop, Mode, Policy};
use crate::model::outcome::{Effect, OutcomeStatus, SentRequest};
use crate::model::rollback::{Candidate, CandidateReason};
use crate::sinks::actuation::stand::{
    Act, Disturbance, Object, Refusal, START_MS, Scripted, Staged, Stand, plain,
};
use crate::sinks::actuation::tests::once;
use crate::sinks::actuation::{Read, Settings};

type Versions = Vec<PlatformVersion>;
type Flow = FlowVersionChange<Scripted<Versions>>;

crate::sinks::actuation::tests::protocol_tests!(Flow);

const LIFE: Duration = Duration::from_secs(600);
const LOCKOUT: Duration = Duration::from_secs(900);

fn version(id: &str, status: &str) -> PlatformVersion {
    PlatformVersion { id: id.to_owned(), status: status.to_owned(), published_at: None }
}

fn activate(versions: &mut Versions, id: &str) {
    for version in versions {
        if version.id == id {
            version.status = "active".to_owned();
        } else if version.status == "active" {
            version.status = "published".to_owned();
        }
    }
}

impl Object for Versions {
    fn apply(&mut self, request: &SentRequest) -> Result<(), CallErrorKind> {
        let id = request.body.pointer("/version/id").and_then(|id| id.as_str()).expect("a version");
        if !self.iter().any(|version| version.id == id) {
            return Err(CallErrorKind::NotFound);
        }
        activate(self, id);
        Ok(())
    }
}

impl Platform for Scripted<Versions> {
    async fn versions(&self, _: &str, scope: &Scope) -> Result<Versions, CallError> {
        self.look(scope).await
    }

    async fn send(&self, request: &SentRequest, _: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.write(request, scope).await
    }
}

impl Staged for Flow {
    type Object = Versions;
    const LIFE: Duration = LIFE;

    /// At 12; it is to go back to 11.
    fn object() -> Versions {
        vec![version("10", "published"), version("11", "published"), version("12", "active")]
    }

    fn change(platform: Scripted<Versions>) -> Self {
        Self::new(platform, LOCKOUT)
    }

    fn decision() -> Read<'static, Self> {
        let text = include_str!("../../../schemas/examples/trunkline.rollback-decisions.v1/rollback.json");
        let example: Read<'static, Self> = serde_json::from_str(text).expect("a decision");
        let at = Timestamp::from_millis(START_MS);
        Read::<Self> {
            decision_id: DecisionId::derive(Loop::Rollback, "f", 7, at),
            sequence: 7,
            r#loop: Loop::Rollback,
            key: Cow::Borrowed("f"),
            mode: Mode::Live,
            decided_at: at,
            event_time: at,
            action: Action::Rollback,
            policy: Policy { name: Cow::Borrowed("attributed"), version: 1, hash: Cow::Borrowed("0") },
            expires_at: at.plus(LIFE),
            ..example
        }
    }

    fn is_changed(versions: &Versions) -> bool {
        versions.iter().any(|version| version.id == "11" && version.is_active())
    }
}

fn candidates(ids: &[&str]) -> Vec<Candidate> {
    let reason = CandidateReason::InForceBefore;
    ids.iter().map(|id| Candidate { flow_version: (*id).to_owned(), reason }).collect()
}

fn change(stand: &Stand<Flow>, outcome: &crate::model::outcome::Outcome) -> (String, String) {
    let Some(Effect::FlowVersion(change)) = &outcome.effect else {
        panic!("{outcome:?}, {:?}", stand.sent())
    };
    (change.previous_version.clone(), change.version.clone())
}

/// The walk over all disturbances can find a second effect: here nobody waits for what may be
/// under way.
#[tokio::test(start_paused = true)]
async fn without_patience_there_are_two_effects_and_the_walk_sees_them() {
    let hasty = Settings { in_flight_time: Duration::ZERO, ..Settings::default() };
    // History, read, claim, call.
    let slow = [(3, Disturbance::Slow)];
    let found = once::<Flow>(&slow, hasty).await.unwrap_err();
    assert!(found.contains("2 effects"), "{found}");
    once::<Flow>(&slow, Settings::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn maintenance_and_cooldown_are_asked_by_the_claim() {
    let stand = Stand::<Flow>::new().await;
    stand.memory.book.lock().unwrap().maintenance = Some("maintenance/1".to_owned());
    let outcome = stand.outcome().await;
    assert_eq!(
        (outcome.status, &*outcome.reason),
        (OutcomeStatus::Unchanged, "maintenance_window: maintenance/1")
    );
    let stand = Stand::<Flow>::new().await;
    let earlier = |before: Duration| {
        let id = DecisionId::derive(Loop::Rollback, "f", 6, stand.decision.event_time.minus(before));
        (id, "f".to_owned(), "9".to_owned(), stand.decision.event_time.minus(before))
    };
    stand.memory.book.lock().unwrap().rollbacks.push(earlier(LOCKOUT - Duration::from_millis(1)));
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Unchanged);
    assert!(outcome.reason.starts_with("cooldown"), "{}", outcome.reason);
    assert_eq!(stand.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_stage_decides_at_the_end_of_its_cooldown_is_not_refused() {
    let stand = Stand::<Flow>::new().await;
    let before = stand.decision.event_time.minus(LOCKOUT);
    let id = DecisionId::derive(Loop::Rollback, "f", 6, before);
    // Confirmed long after it was decided, which makes no difference.
    stand.memory.book.lock().unwrap().rollbacks.push((id, "f".to_owned(), "9".to_owned(), before));
    assert_eq!(stand.outcome().await.status, OutcomeStatus::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_was_taken_back_or_cannot_be_had_is_passed_over() {
    let stand = Stand::<Flow>::new().await;
    let before = stand.decision.event_time.minus(LOCKOUT);
    let id = DecisionId::derive(Loop::Rollback, "f", 6, before);
    stand.memory.book.lock().unwrap().rollbacks.push((id, "f".to_owned(), "11".to_owned(), before));
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
    let stand = Stand::<Flow>::new().await.writes(&[plain(CallErrorKind::NotFound)]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
    assert_eq!((stand.effects(), stand.sent()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_waited_out_before_another_version_is_thought_of() {
    let stand = Stand::<Flow>::new().await.writes(&vec![plain(CallErrorKind::Conflict); 4]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "11".to_owned()));
    let stand = Stand::<Flow>::new().await.writes(&vec![plain(CallErrorKind::Conflict); 5]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
}

/// The platform takes a minute, and a request sent meanwhile is refused.
#[tokio::test(start_paused = true)]
async fn an_activation_slower_than_anything_foreseen_is_still_ours() {
    for second in [plain(CallErrorKind::Conflict), Act::Refuse(Refusal::RateLimited(Duration::from_secs(30)))]
    {
        let late = Act::Late(Duration::from_secs(60));
        let stand = Stand::<Flow>::new().await.writes(&[late, second.clone(), second.clone(), second]);
        let outcome = stand.outcome().await;
        assert_eq!(outcome.status, OutcomeStatus::Applied, "{outcome:?}");
        assert_eq!(change(&stand, &outcome), ("12".to_owned(), "11".to_owned()));
        assert_eq!(stand.effects(), 1);
        assert_eq!(stand.memory.book.lock().unwrap().rollbacks.len(), 1, "it locks the flow");
    }
}

#[tokio::test(start_paused = true)]
async fn the_version_in_force_is_never_activated_however_it_is_listed() {
    for current in [&["active", "published"][..], &["published"][..]] {
        let mut listed: Versions = current.iter().map(|status| version("12", status)).collect();
        listed.extend([version("11", "deleted"), version("9", "archived"), version("8", "published")]);
        let mut stand = Stand::<Flow>::new().await.with(|versions| *versions = listed);
        stand.decision.parameters.candidates = candidates(&["12", "11", "9", "8"]);
        let outcome = stand.outcome().await;
        assert_eq!(change(&stand, &outcome), ("12".to_owned(), "8".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_back_to_what_was_decided_and_not_to_the_next_number() {
    let mut stand = Stand::<Flow>::new().await;
    stand.decision.parameters.candidates = candidates(&["10", "11"]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
    let mut stand = Stand::<Flow>::new().await;
    stand.decision.parameters.candidates = candidates(&["9"]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, stand.sent()), (OutcomeStatus::Failed, 0), "nobody is switched");
    assert!(outcome.reason.starts_with("no_eligible_version"), "{}", outcome.reason);
}

/// A platform that labels no version as active, before and after.
#[tokio::test(start_paused = true)]
async fn where_the_platform_never_says_what_is_in_force_its_reply_is_all_there_is() {
    let silent =
        |versions: &mut Versions| versions.iter_mut().for_each(|it| it.status = "published".to_owned());
    let stand = Stand::<Flow>::new().await.with(silent);
    let stand =
        stand.writes(&[Act::Refuse(Refusal::RateLimited(Duration::from_secs(1))), Act::Before(silent)]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.code()), (OutcomeStatus::Failed, "effect_unknown"), "{outcome:?}");
    assert_eq!(stand.effects(), 1, "and it is not sent again on a guess");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_to_go_back_to_or_from() {
    let stand = Stand::<Flow>::new().await.with(|versions| versions.retain(PlatformVersion::is_active));
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.reason.starts_with("no_eligible_version"), "{}", outcome.reason);
    let stand = Stand::<Flow>::new().await.with(|versions| activate(versions, "10"));
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Unchanged);
    assert!(outcome.reason.starts_with("version_not_active"), "{}", outcome.reason);
}
