//! The dial loop from statistics to decisions, in memory, with crashes in between.

use std::collections::BTreeSet;
use std::sync::Arc;
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
    driver.add(Windowing::new(Arc::new(())));
    driver.add(Dialing::new(Mode::Live, TICK, Proportional::default().into(), Arc::new(())));
    driver
}

/// Calls were delivered since any other.
fn stats(campaign: &str, observed_at: Timestamp, answer_rate: f64) -> Value {
    let delivered = observed_at.as_millis() - start().minus(TICK * 100).as_millis();
    json!({
        "campaignId": campaign, "observedAt": observed_at.to_string(), "answerRate": answer_rate,
        "agentsIdle": 4, "agentsBusy": 16, "callsDelivered": delivered,
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
            // What comes late does so by the log: the clock does not go back with it.
            driver.set_time(at.max(driver.now()));
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

fn answers(driver: &Driver, campaign: &str) -> Vec<(String, String, f64)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rate = |decision: &Value| decision["parameters"]["dialRate"].as_f64().unwrap();
    decisions(driver, campaign)
        .iter()
        .map(|decision| (text(&decision["action"]), text(&decision["reason"]), rate(decision)))
        .collect()
}

fn hold(reason: &str, rate: f64) -> (String, String, f64) {
    ("hold".to_owned(), reason.to_owned(), rate)
}

fn set(reason: &str, rate: f64) -> (String, String, f64) {
    ("set_dial_rate".to_owned(), reason.to_owned(), rate)
}

#[test]
fn without_a_call_placed_nothing_is_decided_however_few_answer() {
    let mut driver = driver(1);
    driver.crash_with(0.3);
    for tick in 0..12 {
        let mut stats = stats("c", driver.now(), if tick < 2 { 0.5 } else { 0.0 });
        stats["attempts"] = json!(if tick < 2 { 2_000 + tick } else { 2_001 });
        stats["answers"] = json!(620);
        stats["callsDelivered"] = json!(605);
        // Calls end: the statistics are alive.
        stats["agentsBusy"] = json!(30 - tick);
        observe(&mut driver, &stats);
        driver.run_until_idle().unwrap();
        driver.advance(TICK);
    }
    let answers = answers(&driver, "c");
    assert_eq!(answers.len(), 12);
    assert_eq!(answers[1], set("towards_target", 1.7));
    assert!(answers[2..].iter().all(|answer| *answer == hold("no_data", 1.0)), "{answers:?}");
    let inputs = &decisions(&driver, "c")[5]["inputs"];
    assert_eq!((&inputs["attempted"], &inputs["meanAnswerRate"]), (&json!(0), &json!(0.5)));
}

#[test]
fn frozen_statistics_hold_the_rate_and_then_set_the_least_one() {
    for seed in 0..10 {
        let mut driver = driver(seed);
        driver.crash_with(0.3);
        for tick in 0..8 {
            let mut frozen = stats("c", driver.now(), 0.3);
            frozen["callsDelivered"] = json!(605);
            if tick == 7 {
                frozen["callsDelivered"] = json!(606);
            }
            observe(&mut driver, &frozen);
            driver.run_until_idle().unwrap();
            driver.advance(TICK);
        }
        let expected = [
            set("towards_target", 2.83),
            hold("no_data", 1.0),
            hold("no_data", 1.0),
            hold("no_data", 1.0),
            set("statistics_stale", 0.5),
            set("statistics_still_stale", 0.5),
            set("statistics_still_stale", 0.5),
            set("towards_target", 2.83),
        ];
        assert_eq!(answers(&driver, "c"), expected, "seed {seed}");
    }
}

/// Half a tick goes by until a silent partition is known to be one.
#[test]
fn with_no_statistics_at_all_the_rate_is_held_and_then_the_least_one_is_set() {
    for (seed, others) in (0..10).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut driver = driver(seed);
        driver.crash_with(0.3);
        let now = driver.now();
        observe(&mut driver, &stats("c", now, 0.3));
        for step in 0..40 {
            // Time goes by with the records of other campaigns, or with the clock alone.
            if others && step % 2 == 0 {
                for other in ["a", "b", "d", "e", "f", "g", "h"] {
                    let now = driver.now();
                    observe(&mut driver, &stats(other, now, 0.85));
                }
            }
            driver.run_until_idle().unwrap();
            driver.advance(TICK / 2);
        }
        let decided = decisions(&driver, "c");
        let reasons: Vec<_> = decided.iter().map(|decision| decision["reason"].as_str().unwrap()).collect();
        assert_eq!(
            reasons[..5],
            [
                "towards_target",
                "no_data",
                "statistics_stale",
                "statistics_still_stale",
                "statistics_still_stale"
            ],
            "seed {seed}"
        );
        let parameters = &decided[2]["parameters"];
        assert_eq!((&parameters["previousDialRate"], &parameters["dialRate"]), (&json!(1.0), &json!(0.5)));
        assert_eq!(parameters["chain"]["bound"], "staleness");
        assert!(decided[2]["inputs"]["answered"].is_null() && decided[2]["causeIds"] == json!([]));
        for (index, decision) in decided.iter().enumerate() {
            assert_eq!(decision["sequence"], index as u64 + 1);
        }
        let age = |decision: &Value| {
            let time: Timestamp = decision["eventTime"].as_str().unwrap().parse().unwrap();
            time.millis_since(start()) / 1_000
        };
        assert!((60..=90).contains(&age(&decided[1])), "{}", age(&decided[1]));
        assert!((120..=150).contains(&age(&decided[2])), "{}", age(&decided[2]));
        let expires: Timestamp = decided[2]["expiresAt"].as_str().unwrap().parse().unwrap();
        let decided_at: Timestamp = decided[2]["decidedAt"].as_str().unwrap().parse().unwrap();
        assert!(expires > decided_at, "it can be carried out");
        // Statistics come again: so do decisions.
        let now = driver.now();
        observe(&mut driver, &stats("c", now, 0.3));
        driver.run_until_idle().unwrap();
        assert_eq!(answers(&driver, "c").last(), Some(&set("towards_target", 2.83)));
    }
}

#[test]
fn what_was_not_observed_while_nobody_looked_is_not_missed() {
    let mut driver = driver(1);
    let now = driver.now();
    observe(&mut driver, &stats("c", now, 0.3));
    driver.run_until_idle().unwrap();
    driver.restart();
    // A night later the first statistics come, those of another campaign first.
    driver.advance(TICK * 1_000);
    for campaign in ["a", "b", "d", "e", "f", "g", "h"] {
        let now = driver.now();
        observe(&mut driver, &stats(campaign, now, 0.85));
    }
    driver.run_until_idle().unwrap();
    assert_eq!(decisions(&driver, "c").len(), 1, "{:?}", answers(&driver, "c"));
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
