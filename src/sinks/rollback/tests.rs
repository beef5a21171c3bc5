//! What is the flow version's own, on the stand of the protocol.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::json;

use super::{FlowVersionChange, Platform};
use crate::genesys::{CallError, CallErrorKind, Flow, Operation, PlatformVersion, Reply, Scope};
use crate::model::Timestamp;
use crate::model::decision::{Action, DecisionId, Loop, Mode, Policy};
use crate::model::outcome::{Effect, OutcomeStatus, SentRequest};
use crate::model::rollback::{Candidate, CandidateReason};
use crate::sinks::actuation::stand::{
    Act, Disturbance, OPERATION, Object, Refusal, START_MS, Scripted, Staged, Stand, plain,
};
use crate::sinks::actuation::tests::once;
use crate::sinks::actuation::{Read, Settings};

type Rollback = FlowVersionChange<Scripted<Flow>>;

crate::sinks::actuation::tests::protocol_tests!(Rollback);

const LIFE: Duration = Duration::from_secs(600);
const LOCKOUT: Duration = Duration::from_secs(900);

fn version(id: &str, status: &str) -> PlatformVersion {
    PlatformVersion { id: id.to_owned(), status: status.to_owned(), published_at: None, replaced_at: None }
}

fn activate(flow: &mut Flow, id: &str) {
    for version in &mut flow.versions {
        if version.id == id {
            version.status = "active".to_owned();
        } else if version.status == "active" {
            version.status = "published".to_owned();
        }
    }
}

impl Object for Flow {
    fn apply(&mut self, request: &SentRequest) -> Result<(), CallErrorKind> {
        let id = request.body.pointer("/version/id").and_then(|id| id.as_str()).expect("a version");
        if !self.versions.iter().any(|version| version.id == id) {
            return Err(CallErrorKind::NotFound);
        }
        // What it took up may come to nothing.
        if self.operation.as_ref().is_none_or(|operation| operation.failure.is_none() || id != "11") {
            activate(self, id);
        }
        Ok(())
    }
}

impl Platform for Scripted<Flow> {
    async fn flow(&self, _: &str, scope: &Scope) -> Result<Flow, CallError> {
        self.look(scope).await
    }

    fn prepare(&self, flow_id: &str, version: &str, description: &str) -> SentRequest {
        SentRequest {
            method: "PATCH".to_owned(),
            path: format!("/{flow_id}"),
            if_match: None,
            body: json!({ "version": { "id": version, "description": description } }),
        }
    }

    async fn send(&self, request: &SentRequest, _: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.write(request, scope).await
    }

    async fn other_writer(&self, _: &str, _: &Scope) -> Option<String> {
        Some("A Person".to_owned())
    }
}

impl Staged for Rollback {
    type Object = Flow;
    const LIFE: Duration = LIFE;

    /// At 12; it is to go back to 11.
    fn object() -> Flow {
        let versions = vec![version("10", "published"), version("11", "published"), version("12", "active")];
        Flow { versions, ..Flow::default() }
    }

    fn change(platform: Scripted<Flow>) -> Self {
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

    fn is_changed(flow: &Flow) -> bool {
        flow.versions.iter().any(|version| version.id == "11" && version.is_active())
    }
}

fn candidates(ids: &[&str]) -> Vec<Candidate> {
    let reason = CandidateReason::InForceBefore;
    ids.iter().map(|id| Candidate { flow_version: (*id).to_owned(), reason }).collect()
}

fn change(stand: &Stand<Rollback>, outcome: &crate::model::outcome::Outcome) -> (String, String) {
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
    let found = once::<Rollback>(&slow, hasty).await.unwrap_err();
    assert!(found.contains("2 effects"), "{found}");
    once::<Rollback>(&slow, Settings::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn maintenance_and_cooldown_are_asked_by_the_claim() {
    let stand = Stand::<Rollback>::new().await;
    stand.memory.book.lock().unwrap().maintenance = Some("maintenance/1".to_owned());
    let outcome = stand.outcome().await;
    assert_eq!(
        (outcome.status, &*outcome.reason),
        (OutcomeStatus::Unchanged, "maintenance_window: maintenance/1")
    );
    let stand = Stand::<Rollback>::new().await;
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
    let stand = Stand::<Rollback>::new().await;
    let before = stand.decision.event_time.minus(LOCKOUT);
    let id = DecisionId::derive(Loop::Rollback, "f", 6, before);
    // Confirmed long after it was decided, which makes no difference.
    stand.memory.book.lock().unwrap().rollbacks.push((id, "f".to_owned(), "9".to_owned(), before));
    assert_eq!(stand.outcome().await.status, OutcomeStatus::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_was_taken_back_or_cannot_be_had_is_passed_over() {
    let stand = Stand::<Rollback>::new().await;
    let before = stand.decision.event_time.minus(LOCKOUT);
    let id = DecisionId::derive(Loop::Rollback, "f", 6, before);
    stand.memory.book.lock().unwrap().rollbacks.push((id, "f".to_owned(), "11".to_owned(), before));
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
    let stand = Stand::<Rollback>::new().await.writes(&[plain(CallErrorKind::NotFound)]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
    assert_eq!((stand.effects(), stand.sent()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_waited_out_before_another_version_is_thought_of() {
    let stand = Stand::<Rollback>::new().await.writes(&vec![plain(CallErrorKind::Conflict); 4]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "11".to_owned()));
    let stand = Stand::<Rollback>::new().await.writes(&vec![plain(CallErrorKind::Conflict); 5]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
}

/// The platform takes a minute, and a request sent meanwhile is refused.
#[tokio::test(start_paused = true)]
async fn an_activation_slower_than_anything_foreseen_is_still_ours() {
    for second in [plain(CallErrorKind::Conflict), Act::Refuse(Refusal::RateLimited(Duration::from_secs(30)))]
    {
        let late = Act::Late(Duration::from_secs(60));
        let stand = Stand::<Rollback>::new().await.writes(&[late, second.clone(), second.clone(), second]);
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
        let mut listed: Vec<_> = current.iter().map(|status| version("12", status)).collect();
        listed.extend([version("11", "deleted"), version("9", "archived"), version("8", "published")]);
        let mut stand = Stand::<Rollback>::new().await.with(|flow| flow.versions = listed);
        stand.decision.parameters.candidates = candidates(&["12", "11", "9", "8"]);
        let outcome = stand.outcome().await;
        assert_eq!(change(&stand, &outcome), ("12".to_owned(), "8".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_back_to_what_was_decided_and_not_to_the_next_number() {
    let mut stand = Stand::<Rollback>::new().await;
    stand.decision.parameters.candidates = candidates(&["10", "11"]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
    let mut stand = Stand::<Rollback>::new().await;
    stand.decision.parameters.candidates = candidates(&["9"]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, stand.sent()), (OutcomeStatus::Failed, 0), "nobody is switched");
    assert!(outcome.reason.starts_with("no_eligible_version"), "{}", outcome.reason);
}

/// A platform that labels no version as active, before and after.
#[tokio::test(start_paused = true)]
async fn where_the_platform_never_says_what_is_in_force_its_reply_is_all_there_is() {
    let silent = |flow: &mut Flow| flow.versions.iter_mut().for_each(|it| it.status = "published".to_owned());
    let stand = Stand::<Rollback>::new().await.with(silent);
    let stand =
        stand.writes(&[Act::Refuse(Refusal::RateLimited(Duration::from_secs(1))), Act::Before(silent)]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.code()), (OutcomeStatus::Failed, "effect_unknown"), "{outcome:?}");
    assert_eq!(stand.effects(), 1, "and it is not sent again on a guess");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_to_go_back_to_or_from() {
    let stand = Stand::<Rollback>::new().await.with(|flow| flow.versions.retain(PlatformVersion::is_active));
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.reason.starts_with("no_eligible_version"), "{}", outcome.reason);
    let stand = Stand::<Rollback>::new().await.with(|flow| activate(flow, "10"));
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Unchanged);
    assert!(outcome.reason.starts_with("version_not_active"), "{}", outcome.reason);
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_somebody_has_locked_is_left_alone_and_people_are_told_whose_it_is() {
    let locked = |flow: &mut Flow| flow.locked_by = Some("A Person (user u)".to_owned());
    let stand = Stand::<Rollback>::new().await.with(locked);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.code()), (OutcomeStatus::Failed, "flow_locked"));
    assert!(outcome.reason.contains("A Person (user u)"), "{}", outcome.reason);
    assert_eq!(stand.sent(), 0);
}

/// Something else runs on the flow at first: that says nothing against the version.
#[tokio::test(start_paused = true)]
async fn a_busy_flow_is_waited_for() {
    let busy = Act::Refuse(Refusal::Busy(Duration::from_secs(5)));
    let stand = Stand::<Rollback>::new().await.writes(&vec![busy; 8]);
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "11".to_owned()));
    assert_eq!((stand.effects(), stand.sent()), (1, 9));
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_the_platform_gave_up_makes_room_for_the_next_version() {
    let operation = |id: &str| Operation {
        id: id.to_owned(),
        complete: true,
        action: "PUBLISH".to_owned(),
        failure: Some("flow.publish.failed: missing.dependency of queue".to_owned()),
    };
    let stand = Stand::<Rollback>::new().await.with(|flow| flow.operation = Some(operation(OPERATION)));
    let outcome = stand.outcome().await;
    assert_eq!(change(&stand, &outcome), ("12".to_owned(), "10".to_owned()));
    assert_eq!(stand.sent(), 2);

    // Somebody else's failure is not ours.
    let stand = Stand::<Rollback>::new().await.with(|flow| flow.operation = Some(operation("theirs")));
    let outcome = stand.outcome().await;
    assert!(outcome.reason.starts_with("not_confirmed"), "{outcome:?}");
    assert_eq!(stand.sent(), 1);
}
