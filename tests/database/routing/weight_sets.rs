//! The rule's bound on what the audit is told, whatever the weights.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use trunkline::model::decision::Mode;
use trunkline::model::routing::UNIT;
use trunkline::routing::recorder;

use super::*;

const SETS: usize = 200;
const CLIENTS: usize = 64;
const ASKS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_weight_sets_keep_the_bound_after_sixty_four_clients_on_three_instances() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    let names: Vec<String> = (0..12).map(|group| format!("q{group:02}")).collect();
    for set in 0..SETS {
        let k = 2 + set % 11;
        let weights: Vec<(&str, f64)> = names[..k]
            .iter()
            .map(|name| (name.as_str(), f64::from(random.random_range(1..=1_000))))
            .collect();
        publish(&database, &configuration(&format!("set-{set}"), &weights)).await;
    }
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Arc::new(
            Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await,
        ));
    }
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let instances = instances.clone();
        clients.spawn(async move {
            for set in 0..SETS {
                for ask in 0..ASKS {
                    let instance = &instances[(client + ask) % instances.len()];
                    instance.decide(&format!("set-{set}"), &format!("v-{client}-{ask}")).await;
                }
            }
        });
    }
    while let Some(joined) = clients.join_next().await {
        joined.unwrap();
    }
    let shutdown = CancellationToken::new();
    let recording = tokio::spawn(recorder::run(
        database.clone(),
        Mode::Live,
        Duration::from_secs(3_600),
        Health::default().part("recorder"),
        shutdown.clone(),
    ));
    until("every answer to be in the outbox", || async {
        database.recordable_routes().await.unwrap().is_empty().then_some(())
    })
    .await;
    shutdown.cancel();
    recording.await.unwrap();

    let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, decision) in waiting(&owner).await {
        told.entry(key).or_default().push(decision);
    }
    assert_eq!(told.len(), SETS);
    for (set, decisions) in &told {
        assert_eq!(decisions.len(), CLIENTS * ASKS, "{set}");
        expect_bound_of_inputs(set, decisions, seed);
    }
    for instance in instances {
        Arc::into_inner(instance).expect("the clients are done").stop().await;
    }
}

/// Every prefix is within 1 − 1/(2k − 2) of the shares that the decisions themselves name.
fn expect_bound_of_inputs(set: &str, decisions: &[Value], seed: u64) {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for (n, decision) in (1i64..).zip(decisions) {
        assert_eq!(decision["sequence"], n, "{set}: no holes");
        let destination = decision["parameters"]["destinationId"].as_str().unwrap();
        *counts.entry(destination).or_default() += 1;
        let groups = decision["inputs"]["groups"].as_array().unwrap();
        let m = 2 * groups.len() as i64 - 2;
        let mut shares = 0;
        for group in groups {
            let share = group["shareBillionths"].as_i64().unwrap();
            let count = counts.get(group["destinationId"].as_str().unwrap()).copied().unwrap_or(0);
            let off = (count * UNIT - n * share).abs();
            assert!(off * m <= (m - 1) * UNIT, "seed {seed}: {set} at {n}: {count} with a share of {share}");
            shares += share;
        }
        assert_eq!(shares, UNIT);
    }
}
