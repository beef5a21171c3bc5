//! Two instances, one budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trunkline::genesys::{BucketShape, Credentials, Limits, PermitStore, Priority, Settings, Take};
use trunkline::postgres::Database;
use trunkline::topology::SharedBudget;

use crate::support::postgres::TestDatabase;

fn settings(requests: u32, window: Duration) -> Settings {
    Settings {
        credentials: Credentials::fixed("one-client", ""),
        requests_per_minute: requests,
        budget_window: window,
        ..Settings::default()
    }
}

/// The same budget as two instances see it.
async fn two_instances(settings: &Settings) -> (TestDatabase, SharedBudget, SharedBudget) {
    let (own, database) = TestDatabase::migrated().await;
    let other = Database::connect(&own.settings()).expect("a good URL");
    (own, SharedBudget::new(database, settings), SharedBudget::new(other, settings))
}

/// Takes without pause until `end`; counts what it got.
async fn take_greedily(budget: SharedBudget, end: Instant, granted: Arc<AtomicUsize>) {
    while Instant::now() < end {
        match budget.take(Priority::Rollback).await.expect("the database answers") {
            Take::Granted(_) => _ = granted.fetch_add(1, Ordering::Relaxed),
            // Half of it: too early must not be given anything.
            Take::Wait(wait) => tokio::time::sleep(wait / 2).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_together_take_no_more_than_one_may() {
    let settings = settings(60, Duration::from_secs(1));
    let shape = BucketShape::new(60, Duration::from_secs(1));
    let (_own, one, other) = two_instances(&settings).await;
    let granted = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let end = started + Duration::from_secs(2);
    let takers: Vec<_> = (0..8)
        .map(|n| if n % 2 == 0 { one.clone() } else { other.clone() })
        .map(|budget| tokio::spawn(take_greedily(budget, end, granted.clone())))
        .collect();
    for taker in takers {
        taker.await.expect("no panic");
    }
    let granted = granted.load(Ordering::Relaxed) as f64;
    let most = shape.capacity + shape.refill_per_second * started.elapsed().as_secs_f64();
    assert!(granted <= most, "{granted} permits, {most} allowed");
    assert!(granted > shape.capacity, "the bucket was refilled: {granted}");
}

#[tokio::test]
async fn what_one_instance_is_told_by_a_429_stops_the_other() {
    let (_own, one, other) = two_instances(&settings(300, Duration::from_secs(60))).await;
    assert!(matches!(other.take(Priority::Read).await.unwrap(), Take::Granted(_)));
    let refused_at = Instant::now();
    let told = Duration::from_millis(1_500);
    assert!(one.refused(Some(told)).await.unwrap() <= told);
    assert!(matches!(other.take(Priority::Rollback).await.unwrap(), Take::Wait(_)));
    loop {
        match other.take(Priority::Rollback).await.unwrap() {
            Take::Granted(permit) => {
                assert!(refused_at.elapsed() >= told, "a permit after {:?}", refused_at.elapsed());
                assert_eq!(permit.refusals, 1);
                break;
            }
            Take::Wait(wait) => tokio::time::sleep(wait / 2).await,
        }
        assert!(refused_at.elapsed() < Duration::from_secs(30), "never again");
    }
}

#[tokio::test]
async fn a_429_that_does_not_say_how_long_waits_longer_each_time_over_all_instances() {
    let (own, one, other) = two_instances(&settings(300, Duration::from_secs(60))).await;
    let owner = own.owner().await;
    let pass = async || {
        sqlx::query("UPDATE trunkline.platform_budget SET blocked_until = now()")
            .execute(&owner)
            .await
            .unwrap()
    };
    for (round, least) in [2.0_f64, 4.0, 8.0, 16.0, 30.0, 30.0].into_iter().enumerate() {
        let (asks, too) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let wait = asks.refused(None).await.unwrap().as_secs_f64();
        // A little less: the clock went on between the two sides of the statement.
        assert!((least - 0.001..=(2.0 * least).min(30.0)).contains(&wait), "round {round}: {wait} s");
        assert!(too.refused(None).await.unwrap().as_secs_f64() <= wait, "the same refusal");
        pass().await;
    }
    assert!(matches!(one.take(Priority::Read).await.unwrap(), Take::Granted(_)));
    other.accepted().await.unwrap();
    assert!(one.refused(None).await.unwrap().as_secs_f64() <= 4.0, "counted anew");
}

/// Whose turn it is after a pause must not depend on how many wait for its end.
#[tokio::test]
async fn after_each_pause_one_call_of_all_instances_goes_out_and_more_when_it_was_let_through() {
    let settings = settings(300, Duration::from_secs(60));
    let (own, one, other) = two_instances(&settings).await;
    let third = SharedBudget::new(Database::connect(&own.settings()).expect("a good URL"), &settings);
    let owner = own.owner().await;
    let all_at_once = async || {
        let asking = [&one, &other, &third].map(|budget| async {
            let mut granted = 0;
            for _ in 0..6 {
                granted +=
                    usize::from(matches!(budget.take(Priority::Read).await.unwrap(), Take::Granted(_)));
            }
            granted
        });
        let [first, second, last] = asking;
        let (first, second, last) = tokio::join!(first, second, last);
        first + second + last
    };
    // Whoever meets the bucket while another one brings it is asked to come again.
    assert!(matches!(one.take(Priority::Read).await.unwrap(), Take::Granted(_)));
    assert_eq!(all_at_once().await, 18, "nothing was refused yet");
    for round in 0..3 {
        other.refused(None).await.unwrap();
        assert_eq!(all_at_once().await, 0, "round {round}: the pause");
        sqlx::query("UPDATE trunkline.platform_budget SET blocked_until = now(), tokens = 30")
            .execute(&owner)
            .await
            .unwrap();
        assert_eq!(all_at_once().await, 1, "round {round}: one call, no burst");
    }
    // The process that made it died.
    sqlx::query("UPDATE trunkline.platform_budget SET probe_until = now()").execute(&owner).await.unwrap();
    assert_eq!(all_at_once().await, 1);
    third.accepted().await.unwrap();
    assert_eq!(all_at_once().await, 18);
}

#[tokio::test]
async fn the_platforms_count_and_the_reserves_hold_for_all_instances() {
    let (_own, one, other) = two_instances(&settings(300, Duration::from_secs(60))).await;
    assert!(matches!(one.take(Priority::Read).await.unwrap(), Take::Granted(_)));
    one.correct(Limits { allowed: 300.0, remaining: 280.0, reset_seconds: 60.0 }).await.unwrap();
    let mut reads = 0;
    while let Take::Granted(_) = other.take(Priority::Read).await.unwrap() {
        reads += 1;
    }
    // 280 less what flows in within the minute leaves about 15; 6 are not for reads.
    assert!((8..=12).contains(&reads), "{reads} reads");
    assert!(matches!(one.take(Priority::DialChange { size_hundredths: 1 }).await.unwrap(), Take::Granted(_)));
    one.correct(Limits { allowed: 300.0, remaining: -5.0, reset_seconds: 60.0 }).await.unwrap();
    let Take::Wait(wait) = other.take(Priority::Rollback).await.unwrap() else { panic!("spent") };
    assert!(wait > Duration::from_secs(30), "{wait:?}");
}

#[tokio::test]
async fn a_database_clock_that_was_set_back_stops_nobody_for_long() {
    let (own, one, _) = two_instances(&settings(60, Duration::from_secs(1))).await;
    one.take(Priority::Read).await.unwrap();
    let owner = own.owner().await;
    sqlx::query("UPDATE trunkline.platform_budget SET tokens = 0, refilled_at = now() + interval '1 hour'")
        .execute(&owner)
        .await
        .unwrap();
    let started = Instant::now();
    while !matches!(one.take(Priority::Rollback).await.unwrap(), Take::Granted(_)) {
        assert!(started.elapsed() < Duration::from_secs(30), "stuck");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn other_oauth_clients_have_budgets_of_their_own() {
    let (own, one, _) = two_instances(&settings(1, Duration::from_secs(60))).await;
    let database = Database::connect(&own.settings()).expect("a good URL");
    let stranger = SharedBudget::new(
        database,
        &Settings { credentials: Credentials::fixed("another", ""), ..settings(1, Duration::from_secs(60)) },
    );
    for budget in [&one, &stranger] {
        assert!(matches!(budget.take(Priority::Read).await.unwrap(), Take::Granted(_)));
        assert!(matches!(budget.take(Priority::Rollback).await.unwrap(), Take::Wait(_)));
    }
}
