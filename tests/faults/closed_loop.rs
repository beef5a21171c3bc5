//! The dial loop through Kafka, the actuator and the platform's HTTP, beside the same rule on the same
//! world in memory: what `trunkline evaluate pacing` shows is not kinder than what runs.
//!
//! How late a rate arrives is the machine's affair, and at this speed a busy one is a minute late: the
//! world in memory is polled when the pipeline polled, and answered as late.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::process::Signal;
use simulator::{Answering, CampaignScenario, Dialect, Dialer, Scenario, Snapshot};
use trunkline::model::Timestamp;
use trunkline::model::dial_rate::Limits;
use trunkline::stages::dialing::judgement::{Answered, Around, judge};
use trunkline::stages::dialing::pacing::{Observation, Pacing, State};

use crate::deployment::{Deployment, ENDED, Instance, now_ms};
use crate::rounds;
use crate::support::within;

/// A tick of 30 s takes a second and a half: a machine that is busy with other tests keeps up with it.
const SPEED: f64 = 20.0;
const CAP: f64 = 0.03;
/// Worlds in memory, each with a seed of its own: what chance alone does.
const WORLDS: u64 = 100;
/// How far the pipeline's shares may be from the mean of those worlds, in their standard deviations:
/// over half an hour, which counts some 150 answers, and over eight.
const DEVIATIONS: (f64, f64) = (4.0, 3.0);

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

/// A poll that was decided on, in seconds of the world.
#[derive(Debug)]
struct Poll {
    at: u64,
    /// When its rate was set; `None` where that came too late to be done.
    answered: Option<u64>,
}

/// Since `begin_ms`, from the audit. What changed no rate counts as answered as late as half of the others.
async fn polls(owner: &sqlx::PgPool, begin_ms: i64, from: u64) -> Vec<Poll> {
    const DECIDED: &str = "SELECT (1000 * extract(epoch FROM (inputs ->> 'observedAt')::timestamptz))::bigint, status,
                (1000 * extract(epoch FROM finished_at))::bigint
         FROM audit.decisions LEFT JOIN audit.outcomes USING (decision_id)
         WHERE decisions.loop = 'dial' AND policy = 'pacing' AND cause_ids <> '[]' ORDER BY decisions.sequence";
    let decided: Vec<(i64, Option<String>, Option<i64>)> =
        sqlx::query_as(DECIDED).fetch_all(owner).await.expect(DECIDED);
    let second = |ms: i64| from + ((ms - begin_ms).max(0) as f64 / 1_000.0 * SPEED).round() as u64;
    let mut delays: Vec<u64> = decided
        .iter()
        .filter(|(_, status, _)| status.as_deref() == Some("applied"))
        .filter_map(|(at, _, finished)| Some(second((*finished)?).saturating_sub(second(*at))))
        .collect();
    delays.sort_unstable();
    let usual = delays.get(delays.len() / 2).copied().unwrap_or_default();
    let polls = decided.into_iter().filter(|(at, ..)| *at > begin_ms);
    polls
        .map(|(at, status, finished)| Poll {
            at: second(at),
            answered: match (status.as_deref(), finished) {
                (Some("applied"), Some(finished)) => Some(second(finished)),
                (Some("expired" | "superseded"), _) => None,
                _ => Some(second(at) + usual),
            },
        })
        .collect()
}

/// The same world from the same second on, polled and answered at these seconds.
fn in_memory(scenario: &CampaignScenario, seed: u64, from: u64, to: u64, polls: &[Poll]) -> Shares {
    let (rule, mut state) = (Pacing::default(), State::default());
    let mut dialer = Dialer::new(scenario.clone(), seed);
    let limits = Limits { min: scenario.min_dial_rate, max: scenario.max_dial_rate };
    (1..=from).for_each(|second| dialer.step(second));
    let (begin, mut before) = (dialer.snapshot(), dialer.snapshot().calls);
    let (mut busy, mut present) = (0, 0);
    let mut polls = polls.iter().peekable();
    let mut on_their_way: VecDeque<(u64, f64)> = VecDeque::new();
    for second in from + 1..=to {
        while let Some((_, rate)) = on_their_way.pop_front_if(|(at, _)| *at <= second) {
            dialer.set_dial_rate(rate);
        }
        dialer.step(second);
        let Some(poll) = polls.next_if(|poll| poll.at <= second) else { continue };
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
        let rate = judge(answered, seen.dial_rate, limits, Around::default()).chain.value();
        on_their_way.extend(poll.answered.map(|at| (at, rate)));
    }
    Shares { abandoned: abandoned(&begin, &dialer.snapshot()), busy: f64::from(busy) / f64::from(present) }
}

/// How many were answered too late, and after how many seconds the others, on average.
fn lateness(polls: &[Poll]) -> (usize, f64) {
    let late = polls.iter().filter(|poll| poll.answered.is_none()).count();
    let waited: u64 = polls.iter().filter_map(|poll| Some(poll.answered? - poll.at)).sum();
    (late, waited as f64 / (polls.len() - late).max(1) as f64)
}

/// Mean and standard deviation.
fn spread(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
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

const STAGES: [&str; 2] = ["--stages", "campaign-poller,windowing,dialing,actuator,audit,console"];

/// From the statistic to its decision.
async fn is_one_transaction(instance: &Instance) {
    let linked = instance.counted("trunkline_stage_linked_partitions").await;
    assert!(linked > 0.0, "windowing and dialing of one instance share transactions");
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
    let mut instance = deployment.instance_with("a", &STAGES, &[]);
    deployment.goes_on().await;
    let (begin, begin_ms) = (now(), now_ms());
    let end = begin.simulated_seconds + half_hours * 1_800;
    let patience = Duration::from_secs_f64(4.0 * half_hours as f64 * 1_800.0 / SPEED);
    within(patience, "the shift to end", async || (now().simulated_seconds >= end).then_some(())).await;
    let last = now();
    is_one_transaction(&instance).await;
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
    let polls = polls(&deployment.scene.owner, begin_ms, begin.simulated_seconds).await;
    let (late, waited) = lateness(&polls);
    let worlds: Vec<Shares> = (1..=WORLDS)
        .map(|seed| in_memory(&campaign(), seed, begin.simulated_seconds, last.simulated_seconds, &polls))
        .collect();
    println!(
        "{half_hours} half hours, {decisions} decisions, {late} too late, the others answered after \
         {waited:.0} simulated seconds: {looped:?}"
    );
    let deviations = if half_hours > 1 { DEVIATIONS.1 } else { DEVIATIONS.0 };
    for (what, share) in [("abandoned", (|it| it.abandoned) as fn(&Shares) -> f64), ("busy", |it| it.busy)] {
        let (mean, deviation) = spread(worlds.iter().map(share));
        println!("{what}: {:.4}, in memory {mean:.4}, standard deviation {deviation:.4}", share(&looped));
        assert!(
            (share(&looped) - mean).abs() < deviations * deviation,
            "{what}: {looped:?}, in memory {mean}, standard deviation {deviation}"
        );
    }
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
