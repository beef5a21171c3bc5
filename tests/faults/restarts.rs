//! Broker and database that die under load and come back.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use crate::deployment::{Deployment, Instance, both_work, chance};
use crate::rounds;
use crate::support::postgres::TestDatabase;
use crate::support::services::{Service, Services};

/// Kills one service again and again, and has the instances go on after each time.
async fn kill(
    services: &Services,
    service: Service,
    times: usize,
    deployment: &Deployment,
    instances: &mut [Instance],
    chance: &mut impl Rng,
) {
    for round in 0..times {
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..1_500))).await;
        services.kill(service);
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..3_000))).await;
        services.start_again(service);
        let back_at = Instant::now();
        deployment.goes_on().await;
        let took = back_at.elapsed().as_secs_f64();
        println!("{service:?} {round}: at work again {took:.1} s after it was back");
        for instance in &mut *instances {
            assert!(!instance.process.has_ended(), "{} has ended", instance.process.name);
        }
    }
}

/// No instance ends, nothing is lost or doubled, and what piled up is worked off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_services_lose_and_double_nothing() {
    let (seed, mut chance) = chance();
    let services = Services::start();
    let database = TestDatabase::create_on(&services.postgres).await;
    let deployment = Deployment::prepare_on(services.kafka.clone(), database).await;
    let mut instances = [deployment.instance("a"), deployment.instance("b")];
    both_work(&instances[0], &instances[1]).await;
    deployment.goes_on().await;
    kill(&services, Service::Kafka, rounds(1, 20), &deployment, &mut instances, &mut chance).await;
    kill(&services, Service::Postgres, rounds(1, 5), &deployment, &mut instances, &mut chance).await;
    deployment.ends_well(seed, &mut instances).await;
}
