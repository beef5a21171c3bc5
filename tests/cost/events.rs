//! An event on its way into the minute of its flow.

use std::time::Duration;

use trunkline::model::Timestamp;
use trunkline::runtime::driver::Driver;
use trunkline::stages::flow_counting::FlowCounting;
use trunkline::topics;

use super::{allocations, records};

const FLOWS: usize = 20;
/// As many as large transactions have.
const EVENTS: usize = 50_000;

fn produce(driver: &mut Driver, number: usize) {
    let (conversation, now) = (format!("5f0b1c1e-6c1f-4a0e-9d6e-{number:012}"), driver.now());
    let event = format!(
        "{{\"eventId\":\"{conversation}/flow.end\",\"eventType\":\"flow.end\",\"occurredAt\":\"{now}\",\
         \"conversationId\":\"{conversation}\",\"flowId\":\"flow-{}\",\"flowVersion\":\"12.0\",\
         \"outcome\":\"success\",\"detail\":{{\"exitReason\":\"DISCONNECT\"}}}}",
        number % FLOWS
    );
    driver.produce(&topics::CONVERSATION_EVENTS, &conversation, event.as_bytes());
}

#[test]
fn an_event_costs_no_more_than_it_did() {
    let mut driver = Driver::new(1, 3);
    driver.set_time(Timestamp::from_millis(1_767_323_045_000));
    driver.batches_up_to(EVENTS);
    driver.add(FlowCounting::new(Duration::from_secs(60), Duration::from_secs(120)));
    // All flows are known, and room for their events is there.
    (0..EVENTS).for_each(|number| produce(&mut driver, number));
    driver.run_until_idle().unwrap();
    let (told, state) =
        (records(&driver, &topics::FLOW_COUNTS), records(&driver, &topics::FLOW_COUNTING_CHANGELOG));
    (EVENTS..2 * EVENTS).for_each(|number| produce(&mut driver, number));
    let before = allocations::so_far();
    let counts = driver.run_until_idle().unwrap()["flow-counting"];
    let allocated = allocations::so_far() - before;
    assert_eq!(counts.applied, EVENTS as u64);
    let told_now = records(&driver, &topics::FLOW_COUNTS);
    let state_now = records(&driver, &topics::FLOW_COUNTING_CHANGELOG);
    let each = |now: usize, before: usize| (now - before) as f64 / EVENTS as f64;
    let (outputs, state_records) = (each(told_now.0, told.0), each(state_now.0, state.0));
    let (state_bytes, allocations) = (each(state_now.1, state.1), allocated as f64 / EVENTS as f64);
    println!("{outputs} counts, {state_records} records of {state_bytes} bytes, {allocations} allocations");
    assert!(outputs < 0.005, "{outputs} counts told");
    assert!(state_records < 0.01, "{state_records} records of state");
    assert!(state_bytes < 16.5, "{state_bytes} bytes of state");
    // Two are for looking through its details.
    assert!(allocations < 2.05, "{allocations} allocations");
}
