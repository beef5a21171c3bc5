//! A statistic on its way to a decision, through two stages.

use std::sync::Arc;
use std::time::Duration;

use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::runtime::driver::Driver;
use trunkline::stages::dialing::Dialing;
use trunkline::stages::dialing::rules::Rules;
use trunkline::stages::windowing::Windowing;
use trunkline::topics::{self, Topic};

use super::{allocations, records};

const CAMPAIGNS: usize = 50;
const TICK: Duration = Duration::from_secs(30);
/// Polls until every window is full and every table has grown.
const WARMING: usize = 40;
const MEASURED: usize = 20;

fn statistics(campaign: &str, tick: usize, observed_at: Timestamp) -> String {
    let (attempts, answers) = (2_000 + tick * 40, 620 + tick * 12 + tick % 3);
    let (abandoned, rate) = (9 + tick / 5, 0.27 + (tick * 7 % 11) as f64 / 100.0);
    format!(
        "{{\"campaignId\":\"{campaign}\",\"organizationId\":\"0d9b3c4e-1111-4222-8333-444455556666\",\
         \"region\":\"eu_west_1\",\"observedAt\":\"{observed_at}\",\"answerRate\":{rate:.2},\"attempts\":{attempts},\
         \"answers\":{answers},\"abandoned\":{abandoned},\"agentsIdle\":4,\"agentsBusy\":16,\"callsDelivered\":{},\
         \"dialRate\":1.8,\"minDialRate\":0.5,\"maxDialRate\":3.0,\"revision\":\"\\\"7-9a3f\\\"\"}}",
        answers - abandoned
    )
}

struct Loop(Driver);

impl Loop {
    fn new() -> Self {
        let mut driver = Driver::new(1, 3);
        driver.set_time(Timestamp::from_millis(1_767_323_045_000));
        driver.add(Windowing::new(Arc::new(())));
        driver.add(Dialing::new(Mode::Live, TICK, Rules::default(), Arc::new(())));
        Self(driver)
    }

    fn poll(&mut self, tick: usize) {
        self.0.advance(TICK);
        let now = self.0.now();
        for campaign in 0..CAMPAIGNS {
            let key = format!("5f0b1c1e-6c1f-4a0e-9d6e-{campaign:012}");
            self.0.produce(&topics::CAMPAIGN_STATS, &key, statistics(&key, tick, now).as_bytes());
        }
    }
}

/// Records and bytes that came since `before`, each of them by statistic.
fn since(before: (usize, usize), now: (usize, usize)) -> (f64, f64) {
    let each = |before: usize, now: usize| (now - before) as f64 / (CAMPAIGNS * MEASURED) as f64;
    (each(before.0, now.0), each(before.1, now.1))
}

#[test]
fn a_statistic_costs_no_more_than_it_did() {
    const TOPICS: [&Topic; 4] = [
        &topics::CAMPAIGN_WINDOWS,
        &topics::DIAL_DECISIONS,
        &topics::WINDOWING_CHANGELOG,
        &topics::DIALING_CHANGELOG,
    ];
    let mut dial = Loop::new();
    for tick in 0..WARMING {
        dial.poll(tick);
        dial.0.run_until_idle().unwrap();
    }
    let before = TOPICS.map(|topic| records(&dial.0, topic));
    let mut allocated = 0;
    for tick in WARMING..WARMING + MEASURED {
        dial.poll(tick);
        let before = allocations::so_far();
        dial.0.run_until_idle().unwrap();
        allocated += allocations::so_far() - before;
    }
    let mut each =
        TOPICS.into_iter().zip(before).map(|(topic, before)| since(before, records(&dial.0, topic)));
    let mut each = || each.next().unwrap();
    let (windows, decisions) = (each(), each());
    let (of_windowing, of_dialing) = (each(), each());
    let allocations = allocated as f64 / (CAMPAIGNS * MEASURED) as f64;
    println!("{windows:?} {decisions:?} {of_windowing:?} {of_dialing:?}, {allocations} allocations");
    assert_eq!((windows.0, decisions.0), (1.0, 1.0), "one window and one decision of each statistic");
    // Batches of the driver are small: a key rarely comes twice in one. Each writes its progress too.
    for (changelog, (records, bytes), most_bytes) in
        [("windowing", of_windowing, 365.0), ("dialing", of_dialing, 1_085.0)]
    {
        assert!(records < 1.15, "{changelog}: {records} records of state");
        assert!(bytes < most_bytes, "{changelog}: {bytes} bytes of state");
    }
    assert!(windows.1 < 600.0 && decisions.1 < 1_450.0, "{} and {} bytes", windows.1, decisions.1);
    // Most of them are the driver's, which keeps what Kafka would: keys, values and headers.
    assert!(allocations < 25.5, "{allocations} allocations");
}
