//! Death at chosen points: between a call and its record, between a record and its
//! commit. Built with the feature `failpoints` only.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::deployment::{Deployment, both_work, chance};
use crate::rounds;

/// Every crash point there is: the sources know, so that none is left out.
pub fn points() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("the sources") {
            let path = entry.expect("the sources").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).expect("text");
            let names = source.split("fail_point!(\"").skip(1);
            found.extend(names.map(|rest| rest.split('"').next().expect("a name").to_owned()));
        }
    }
    found.sort_unstable();
    found.dedup();
    assert!(!found.is_empty(), "no crash point in the sources");
    found
}

/// Those that instances pass that do nothing but dial.
fn points_of_dialing() -> Vec<String> {
    // Only the instance that holds the outbox's lease gets there: tests/broker/outbox.rs has them.
    // Those of enrichment need conversations: tests/faults/enrichment.rs has them.
    // Those of rollbacks need flows: tests/faults/rollback_crash_points.rs has them.
    let elsewhere = ["outbox-", "enrichment-", "rollback-"];
    let mut found = points();
    found.retain(|point| elsewhere.iter().all(|prefix| !point.starts_with(prefix)));
    found
}

/// An instance dies at each point, a second one takes over, and nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_any_point_loses_and_doubles_nothing() {
    let (seed, mut chance) = chance();
    let deployment = Deployment::prepare().await;
    let survivor = deployment.instance("b");
    deployment.goes_on().await;

    for round in 0..rounds(1, 3) {
        for point in points_of_dialing() {
            let passed = chance.random_range(0..8);
            let action = format!("{point}={passed}*off->return");
            let mut victim = deployment.instance_with("a", &[], &[("FAILPOINTS", action)]);
            let status = victim.process.wait(Duration::from_secs(90));
            assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{point}: {status}");
            let died_at = Instant::now();
            deployment.goes_on().await;
            let took = died_at.elapsed().as_secs_f64();
            println!("round {round}: died at {point} after {passed} passes, taken over after {took:.1} s");
        }
    }
    let again = deployment.instance("a");
    both_work(&again, &survivor).await;
    deployment.ends_well(seed, &mut [again, survivor]).await;
}
