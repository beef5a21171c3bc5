//! Events that come more than once count once, in whatever batch, restarted or crashed in between.

use std::time::Duration;

use serde_json::Value;
use trunkline::runtime::driver::Driver;

use super::flow_minutes::{driver, event, minutes, produce, start};

#[test]
fn an_event_repeated_after_a_restart_counts_once() {
    let mut driver = driver(1);
    let events: Vec<Value> = (0..50)
        .map(|number| event("c", &format!("e{number}"), start(), ("main", "7.0"), "success"))
        .collect();
    for round in 0..3 {
        events.iter().for_each(|event| produce(&mut driver, event));
        let counts = driver.run_until_idle().unwrap()["flow-counting"];
        assert_eq!((counts.applied, counts.no_op), if round == 0 { (50, 0) } else { (0, 50) });
        driver.restart();
        driver.advance(Duration::from_secs(20));
    }
}

/// Events that fill records of state are written before their batch ends, and are none of those it
/// was if it crashes.
#[test]
fn an_event_of_a_large_batch_counts_once_whatever_crashes() {
    const EVENTS: u64 = 20_000;
    let counted = |driver: &Driver| minutes(driver).values().map(|told| told.last().unwrap().0).sum::<u64>();
    let mut crashes = 0;
    for seed in 0..4 {
        println!("seed {seed}");
        let mut driver = driver(seed);
        driver.batches_up_to(3 * EVENTS as usize);
        driver.crash_with(0.5);
        for round in 1..4 {
            // Half of them are those of the round before.
            for number in (round - 1) * EVENTS / 2..(round + 1) * EVENTS / 2 {
                let id = format!("e{number}");
                produce(&mut driver, &event(&id, &id, start(), ("main", "7.0"), "success"));
            }
            driver.run_until_idle().unwrap();
            driver.restart();
        }
        crashes += driver.crashes();
        driver.crash_with(0.0);
        driver.advance(Duration::from_secs(20));
        driver.run_until_idle().unwrap();
        assert_eq!(counted(&driver), 2 * EVENTS);
    }
    assert!(crashes > 10, "{crashes}");
}
