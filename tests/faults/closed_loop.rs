//! The dial loop through Kafka, the actuator and the platform's HTTP, beside the same rule on the same
//! world in memory: what `trunkline evaluate pacing` shows is not kinder than what runs.

use std::time::Duration;

use rustix::process::Signal;
use simulator::{Answering, CampaignScenario, Dialect, Dialer, Scenario, Snapshot};
use trunkline::model::Timestamp;
use trunkline::model::dial_rate::Limits;
use trunkline::stages::dialing::judgement::{Answered, Around, judge};
use trunkline::stages::dialing::pacing::{Observation, Pacing, State};

use crate::deployment::{Deployment, ENDED};
use crate::rounds;
use crate::support::within;

/// A tick of 30 s takes a second and a half: a machine that is busy with other tests keeps up with it.
const SPEED: f64 = 20.0;
const TICK_SECONDS: u64 = 30;
const CAP: f64 = 0.03;
/// How far the shares may be apart: abandoned answers, and agents with a customer. Polls come at other
/// seconds, rates arrive later, and with that the people called are others. In half an hour some 150
/// answers are counted, of which two in a hundred are 3.
const TOLERANCE: (f64, f64) = (0.008, 0.03);
const TOLERANCE_OF_HALF_AN_HOUR: (f64, f64) = (0.03, 0.12);

fn campaign() -> CampaignScenario {
    CampaignScenario {
        id: "5f0b1c1e-6c1f-4a0e-9d6e-6a3b0c1d2e3f".to_owned(),
        name: "Closed loop".to_owned(),
        agents: 20,
        dial_rate: 1.0,
        min_dial_rate: 1.0,
        max_dial_rate: 10.0,
        talk_seconds: 150.0,
        wrap_up_seconds: 0.0,
        break_every_seconds: 0.0,
        login_spread_seconds: 60,
        shift_seconds: 100 * 3_600,
        away_seconds: 0,
        answering: Answering::Drifting { start: 0.25, min: 0.08, max: 0.50, per_minute: 0.01 },
        ..CampaignScenario::default()
    }
}

/// Shares of answers abandoned and of agents with a customer.
#[derive(Debug)]
struct Shares {
    abandoned: f64,
    busy: f64,
}

fn abandoned(before: &Snapshot, after: &Snapshot) -> f64 {
    let settled = |seen: &Snapshot| seen.calls.abandoned + seen.calls.delivered;
    (after.calls.abandoned - before.calls.abandoned) as f64 / (settled(after) - settled(before)).max(1) as f64
}

/// The same world from the same second on, each poll answered at once.
fn in_memory(scenario: &CampaignScenario, seed: u64, from: u64, to: u64) -> Shares {
    let (rule, mut state) = (Pacing::default(), State::default());
    let mut dialer = Dialer::new(scenario.clone(), seed);
    let limits = Limits { min: scenario.min_dial_rate, max: scenario.max_dial_rate };
    (1..=from).for_each(|second| dialer.step(second));
    let (begin, mut before) = (dialer.snapshot(), dialer.snapshot().calls);
    let (mut busy, mut present) = (0, 0);
    for second in from + 1..=to {
        dialer.step(second);
        if second % TICK_SECONDS != 0 {
            continue;
        }
        let seen = dialer.snapshot();
        let with_customers = seen.agents.talking + seen.agents.wrapping_up;
        busy += with_customers;
        present += with_customers + seen.agents.idle;
        let observation = Observation {
            at: Timestamp::from_millis(second as i64 * 1_000),
            attempts: seen.calls.attempts - before.attempts,
            answers: seen.calls.answers - before.answers,
            abandoned: seen.calls.abandoned - before.abandoned,
            agents_idle: seen.agents.idle,
            agents_busy: with_customers,
            answer_rate: seen.answer_rate,
            dial_rate: seen.dial_rate,
            limits,
        };
        before = seen.calls;
        rule.take_in(&mut state, &observation);
        let answered = Answered::by_pacing(&rule, &state, &observation);
        dialer.set_dial_rate(judge(answered, seen.dial_rate, limits, Around::default()).chain.value());
    }
    Shares { abandoned: abandoned(&begin, &dialer.snapshot()), busy: f64::from(busy) / f64::from(present) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_does_what_the_rule_does_in_memory() {
    does_what_the_rule_does_in_memory(Dialect::Seed).await;
}

/// Idle agents come from the queue's observations, abandoned calls from the aggregates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_in_the_platforms_own_dialect() {
    does_what_the_rule_does_in_memory(Dialect::Platform).await;
}

async fn does_what_the_rule_does_in_memory(dialect: Dialect) {
    let half_hours = rounds(1, 16) as u64;
    let organisation = simulator::Settings {
        dialect,
        speed: SPEED,
        scenario: Scenario::of_campaigns(vec![campaign()]),
        ..simulator::Settings::default()
    };
    let deployment = Deployment::paced(organisation).await;
    let now = || deployment.simulator.overview();
    let stages = ["--stages", "campaign-poller,windowing,dialing,actuator,audit"];
    let mut instance = deployment.instance_with("a", &stages, &[]);
    deployment.goes_on().await;
    let begin = now();
    let end = begin.simulated_seconds + half_hours * 1_800;
    let patience = Duration::from_secs_f64(4.0 * half_hours as f64 * 1_800.0 / SPEED);
    within(patience, "the shift to end", async || (now().simulated_seconds >= end).then_some(())).await;
    let last = now();
    instance.process.signal(Signal::TERM);
    assert!(instance.process.wait(ENDED).success());

    let (busy, decisions): (f64, i64) = sqlx::query_as(
        "SELECT avg((inputs ->> 'agentsBusy')::float8
                    / ((inputs ->> 'agentsBusy')::float8 + (inputs ->> 'agentsIdle')::float8)), count(*)
         FROM audit.decisions WHERE loop = 'dial' AND policy = 'pacing' AND cause_ids <> '[]'",
    )
    .fetch_one(&deployment.scene.owner)
    .await
    .expect("the audit can be asked");
    let looped =
        Shares { abandoned: abandoned(&begin.campaigns[0].snapshot, &last.campaigns[0].snapshot), busy };
    let memory = in_memory(&campaign(), 1, begin.simulated_seconds, last.simulated_seconds);
    println!("{half_hours} half hours, {decisions} decisions: {looped:?}, in memory {memory:?}");
    let (abandoned, busy) = if half_hours > 1 { TOLERANCE } else { TOLERANCE_OF_HALF_AN_HOUR };
    assert!((looped.abandoned - memory.abandoned).abs() < abandoned, "{looped:?} {memory:?}");
    assert!((looped.busy - memory.busy).abs() < busy, "{looped:?} {memory:?}");
    if half_hours > 1 {
        assert!(looped.abandoned < CAP, "{looped:?}");
    }
    let unexplained: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit.decisions WHERE loop = 'dial' AND parameters -> 'chain' IS NULL",
    )
    .fetch_one(&deployment.scene.owner)
    .await
    .expect("the audit can be asked");
    assert_eq!(unexplained, 0);
}
