//! The rule's bound on what the audit is told, whatever the weights.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use trunkline::model::decision::Mode;
use trunkline::model::routing::BILLION;
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
    let mut wanted: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for set in 0..SETS {
        let k = 2 + set % 11;
        let weights: Vec<(&str, f64)> = names[..k]
            .iter()
            .map(|name| (name.as_str(), f64::from(random.random_range(1..=1_000))))
            .collect();
        wanted.insert(format!("set-{set}"), raised(&weights));
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
        expect_bound_of_inputs(set, &wanted[set], decisions, seed);
    }
    for instance in instances {
        Arc::into_inner(instance).expect("the clients are done").stop().await;
    }
}

/// Whole weights, raised to 1 % of all.
fn raised(weights: &[(&str, f64)]) -> BTreeMap<String, i64> {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    weights.iter().map(|(name, weight)| ((*name).to_owned(), (weight * 100.0).max(total) as i64)).collect()
}

/// Every prefix is within 1 − 1/(2k − 2) of the weights as they were asked for, and the decisions
/// themselves name these.
fn expect_bound_of_inputs(set: &str, weights: &BTreeMap<String, i64>, decisions: &[Value], seed: u64) {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    let total: i64 = weights.values().sum();
    let m = 2 * weights.len() as i64 - 2;
    for (n, decision) in (1i64..).zip(decisions) {
        assert_eq!(decision["sequence"], n, "{set}: no holes");
        let destination = decision["parameters"]["destinationId"].as_str().unwrap();
        *counts.entry(destination).or_default() += 1;
        let groups = decision["inputs"]["groups"].as_array().unwrap();
        let unit = decision["inputs"]["unit"].as_i64().unwrap_or(BILLION);
        let mut shares = 0;
        for group in groups {
            let share = group["share"].as_i64().or(group["shareBillionths"].as_i64()).unwrap();
            let name = group["destinationId"].as_str().unwrap();
            assert_eq!(
                i128::from(share) * i128::from(total),
                i128::from(unit) * i128::from(weights[name]),
                "{set}"
            );
            let count = counts.get(name).copied().unwrap_or(0);
            let off = (count * total - n * weights[name]).abs();
            assert!(off * m <= (m - 1) * total, "seed {seed}: {set} at {n}: {count} with {weights:?}");
            shares += share;
        }
        assert_eq!(shares, unit);
    }
}
