//! A campaign whose call attempts of the month are used up: its least rate, said so on record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::runtime::driver::Driver;
use trunkline::stages::dialing::rules::Rules;
use trunkline::stages::dialing::{Dialing, InForce, Lookup};
use trunkline::stages::windowing::Windowing;
use trunkline::topics;

const TICK: Duration = Duration::from_secs(30);

#[derive(Default)]
struct UsedUp(AtomicBool);

impl Lookup for UsedUp {
    fn settings(&self, _: &str) -> InForce {
        InForce::default()
    }

    fn lagging(&self, _: Timestamp) -> Vec<String> {
        Vec::new()
    }

    fn attempts_used_up(&self, campaign_id: &str) -> bool {
        campaign_id == "c" && self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_campaign_without_attempts_left_dials_at_its_least_rate_until_there_are_some_again() {
    let mut driver = Driver::new(1, 3);
    driver.set_time("2026-01-02T08:00:00.000Z".parse().unwrap());
    driver.add(Windowing::new(Arc::new(())));
    let used_up = Arc::new(UsedUp::default());
    driver.add(Dialing::new(Mode::Live, TICK, Rules::default(), used_up.clone()));
    let (mut rate, mut polls) = (1.5, 0_u64);
    let mut tick = || -> Value {
        polls += 1;
        let stats = json!({
            "campaignId": "c", "observedAt": driver.now(), "answerRate": 0.25,
            "attempts": polls * 20, "answers": polls * 5, "abandoned": 0, "agentsIdle": 3, "agentsBusy": 17,
            "callsDelivered": polls * 5, "dialRate": rate, "minDialRate": 1.0, "maxDialRate": 10.0,
            "revision": "\"1\"",
        });
        driver.produce(&topics::CAMPAIGN_STATS, "c", stats.to_string().as_bytes());
        driver.run_until_idle().unwrap();
        driver.advance(TICK);
        let record = driver.records_of(&topics::DIAL_DECISIONS, "c").pop().expect("each tick is decided on");
        let decision: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        rate = decision["parameters"]["dialRate"].as_f64().unwrap();
        decision
    };
    let before = (0..30).map(|_| tick()).last().unwrap();
    assert!(before["parameters"]["dialRate"].as_f64().unwrap() > 1.0, "{before}");
    assert!(before["parameters"]["holds"].is_null(), "{before}");

    used_up.0.store(true, Ordering::Relaxed);
    for nth in 0..3 {
        let held = tick();
        assert_eq!(held["parameters"]["dialRate"], 1.0, "{nth}: {held}");
        assert_eq!(held["reason"], "attempts_used_up", "{nth}: {held}");
        assert_eq!(held["parameters"]["chain"]["bound"], "hold", "{nth}: {held}");
        assert_eq!(held["parameters"]["holds"], json!(["attempts_used_up"]), "{nth}: {held}");
    }

    used_up.0.store(false, Ordering::Relaxed);
    let after = (0..30).map(|_| tick()).last().unwrap();
    assert!(after["parameters"]["dialRate"].as_f64().unwrap() > 1.0, "{after}");
}
