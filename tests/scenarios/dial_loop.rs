//! The dial loop from statistics to decisions, in memory, with crashes in between.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::runtime::driver::Driver;
use trunkline::stages::dialing::Dialing;
use trunkline::stages::dialing::proportional::Proportional;
use trunkline::stages::windowing::Windowing;
use trunkline::topics;

const TICK: Duration = Duration::from_secs(30);
const CAMPAIGNS: [&str; 3] = ["outbound-a", "outbound-b", "outbound-c"];

fn start() -> Timestamp {
    "2026-01-02T03:04:05.000Z".parse().unwrap()
}

fn driver(seed: u64) -> Driver {
    let mut driver = Driver::new(seed, 3);
    driver.set_time(start());
    driver.add(Windowing);
    driver.add(Dialing::new(Mode::Live, TICK, Proportional::default()));
    driver
}

fn stats(campaign: &str, observed_at: Timestamp, answer_rate: f64) -> Value {
    json!({
        "campaignId": campaign, "observedAt": observed_at.to_string(), "answerRate": answer_rate,
        "agentsIdle": 4, "agentsBusy": 16, "callsDelivered": 100,
        "dialRate": 1.0, "minDialRate": 0.5, "maxDialRate": 3.0, "revision": "\"1\"",
    })
}

fn observe(driver: &mut Driver, stats: &Value) {
    let campaign = stats["campaignId"].as_str().unwrap();
    driver.produce(&topics::CAMPAIGN_STATS, campaign, stats.to_string().as_bytes());
}

fn decisions(driver: &Driver, campaign: &str) -> Vec<Value> {
    let records = driver.records_of(&topics::DIAL_DECISIONS, campaign);
    records.iter().map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
}

#[test]
fn a_constant_answer_rate_is_the_mean_of_every_tick_over_wraps_and_crashes() {
    for seed in 0..20 {
        let run = |crashes: f64| {
            let mut driver = driver(seed);
            driver.crash_with(crashes);
            for tick in 0..47 {
                if crashes > 0.0 && tick % 13 == 0 {
                    driver.restart();
                }
                for campaign in CAMPAIGNS {
                    let now = driver.now();
                    observe(&mut driver, &stats(campaign, now, 0.5));
                }
                driver.run_until_idle().unwrap();
                driver.advance(TICK);
            }
            CAMPAIGNS.map(|campaign| decisions(&driver, campaign))
        };
        let smooth = run(0.0);
        for decisions in &smooth {
            assert_eq!(decisions.len(), 47);
            for (index, decision) in decisions.iter().enumerate() {
                assert_eq!(decision["inputs"]["meanAnswerRate"], 0.5, "tick {index}");
                assert_eq!(decision["sequence"], index as u64 + 1);
                assert_eq!(decision["parameters"]["dialRate"], 1.7);
            }
        }
        assert_eq!(run(0.4), smooth, "seed {seed}: crashes can be seen");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Statistics come in any order, some twice: each is decided on at most once, in the
    /// order of its observation, and the sequence has no hole.
    #[test]
    fn disorder_and_repetition_never_double_a_decision(
        ticks in prop::collection::vec(0i64..40, 1..120),
        seed in any::<u64>(),
    ) {
        let mut driver = driver(seed);
        driver.crash_with(0.2);
        for tick in &ticks {
            let at = start().plus(TICK * *tick as u32);
            driver.set_time(at);
            observe(&mut driver, &stats("c", at, 0.4));
            driver.run_until_idle().unwrap();
        }
        let decided = decisions(&driver, "c");
        let times: Vec<_> = decided.iter().map(|decision| decision["eventTime"].as_str().unwrap()).collect();
        prop_assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "decided backwards: {times:?}");
        let newest: BTreeSet<i64> = ticks
            .iter()
            .scan(-1, |newest, tick| {
                let is_new = *tick > *newest;
                *newest = (*newest).max(*tick);
                Some(is_new.then_some(*tick))
            })
            .flatten()
            .collect();
        prop_assert_eq!(decided.len(), newest.len());
        for (index, decision) in decided.iter().enumerate() {
            prop_assert_eq!(decision["sequence"].as_u64(), Some(index as u64 + 1));
        }
    }
}

#[test]
fn nobody_dials_up_on_late_statistics_but_dialling_down_goes_on() {
    let mut driver = driver(1);
    let observed_at = driver.now();
    driver.advance(TICK * 2 + Duration::from_millis(1));
    observe(&mut driver, &stats("up", observed_at, 0.5));
    observe(&mut driver, &stats("down", observed_at, 1.0));
    driver.run_until_idle().unwrap();
    let [up, down] = ["up", "down"].map(|campaign| decisions(&driver, campaign).remove(0));
    assert_eq!((&up["action"], &up["reason"]), (&json!("hold"), &json!("statistics_late")));
    assert_eq!((&down["action"], &down["parameters"]["dialRate"]), (&json!("set_dial_rate"), &json!(0.85)));
}

#[test]
fn limits_that_contradict_each_other_hold_with_that_reason() {
    let mut driver = driver(1);
    let mut contradicting = stats("c", driver.now(), 0.5);
    contradicting["maxDialRate"] = json!(0.1);
    observe(&mut driver, &contradicting);
    driver.run_until_idle().unwrap();
    let decision = decisions(&driver, "c").remove(0);
    assert_eq!((&decision["action"], &decision["reason"]), (&json!("hold"), &json!("limits_contradict")));
}

#[test]
fn what_cannot_be_used_is_set_aside_once_and_its_neighbours_go_through() {
    let mut driver = driver(7);
    driver.crash_with(0.5);
    let now = driver.now();
    let whole = stats("c", now, 0.5).to_string();
    let twice = whole.replacen('{', "{\"answerRate\":0.1,", 1);
    let impossible = stats("c", now, 1.5).to_string();
    let elsewhere = stats("d", now, 0.5).to_string();
    let future = stats("c", now.plus(Duration::from_secs(3_600)), 0.5).to_string();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let poison: [&[u8]; 9] = [
        b"",
        b"{\"campaignId\":\"c\"",
        b"\x00\x00\x00\x00\x01{}",
        b"\xff\xfe",
        twice.as_bytes(),
        impossible.as_bytes(),
        elsewhere.as_bytes(),
        future.as_bytes(),
        deep.as_bytes(),
    ];
    for bytes in poison {
        driver.produce(&topics::CAMPAIGN_STATS, "c", bytes);
    }
    driver.produce(&topics::CAMPAIGN_STATS, "c", whole.as_bytes());
    driver.run_until_idle().unwrap();
    assert_eq!(decisions(&driver, "c").len(), 1);
    let letters = driver.records_of(&topics::DEAD_LETTERS, "c");
    let values: Vec<_> = letters.iter().map(|letter| letter.value.clone().unwrap()).collect();
    assert_eq!(values, poison, "each once, byte for byte");
}
