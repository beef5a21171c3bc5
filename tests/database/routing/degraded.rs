//! A database that is slow, refuses, and comes back.

use super::*;
use crate::support::postgres_proxy::{Fault, PostgresProxy};

/// Asks one instance and keeps what it was told.
struct Caller<'i> {
    instance: &'i Instance,
    told: BTreeMap<String, String>,
}

impl Caller<'_> {
    async fn ask(&mut self, conversation: &str) -> &'static str {
        let answer = self.instance.decide("c", conversation).await;
        self.told.insert(conversation.to_owned(), answer.destination_id.to_string());
        answer.source.name()
    }

    /// Asks for one conversation after the other until an answer comes from `source`; how
    /// many it took.
    async fn ask_until(&mut self, prefix: &str, source: &str) -> usize {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        for number in 1.. {
            if self.ask(&format!("{prefix}-{number}")).await == source {
                return number;
            }
            assert!(std::time::Instant::now() < end, "no answer of {prefix} was {source}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        unreachable!("the loop ends by itself")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_while_it_stalls_fallback_while_it_refuses_and_exact_afterwards() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 70.0), ("b", 30.0)])).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        patience: Duration::from_millis(150),
        breaker_pause: Duration::from_millis(200),
        journal: Some(folder.path().to_owned()),
        ..Settings::default()
    };
    let instance = Instance::start_with(&proxy.through(own.options()), settings, Arc::new(Unchanging)).await;
    let mut caller = Caller { instance: &instance, told: BTreeMap::new() };
    // The first ones may find a machine busy with other tests.
    caller.ask_until("first", "exact").await;

    proxy.set_stalled(true);
    assert_eq!(caller.ask("stalled-1").await, "cached");
    assert_eq!(caller.ask("stalled-2").await, "cached");
    assert_eq!(caller.ask("stalled-1").await, "cached", "the same again");
    proxy.set_stalled(false);
    caller.ask_until("between", "exact").await;

    proxy.set_away(true);
    let asked = caller.ask_until("refused", "fallback").await;
    assert!(asked >= 2, "more than 3 failures in a row open the breaker, not the first");
    let why = instance.health.reasons();
    assert!(why.iter().any(|(part, reason)| part == "routing" && reason.contains("fallback")), "{why:?}");
    for number in 0..50 {
        assert_eq!(caller.ask(&format!("away-{number}")).await, "fallback");
    }
    assert_eq!(kept(&owner, "c").await.iter().filter(|(_, id, ..)| id.starts_with("away")).count(), 0);

    proxy.set_away(false);
    caller.ask_until("after", "exact").await;
    let told = caller.told;
    until("everything to be recorded", || async {
        (kept(&owner, "c").await.len() == told.len()).then_some(())
    })
    .await;
    expect_whole(&owner, "c", told.len()).await;
    for (_, conversation, destination, _) in kept(&owner, "c").await {
        assert_eq!(told[&conversation], destination, "{conversation} is recorded as it was answered");
    }
    until("readiness", || async { instance.health.reasons().is_empty().then_some(()) }).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_whose_patience_is_over_is_answered_without_the_counters() {
    let (own, database) = TestDatabase::migrated().await;
    publish(&database, &configuration("c", &[("a", 70.0), ("b", 30.0)])).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let settings = Settings { patience: Duration::from_secs(3), ..Settings::default() };
    let settings = Settings { give_up: Duration::from_secs(60), ..settings };
    let instance = Instance::start_with(&proxy.through(own.options()), settings, Arc::new(Unchanging)).await;
    instance.decide("c", "before").await;
    proxy.set_stalled(true);
    assert_eq!(instance.decide("c", "first").await.source.name(), "cached");
    // The turn of the first one still stands still; the others have not waited long.
    let asked = async |name: &str| instance.decide("c", name).await.source.name();
    let going_on = async {
        tokio::task::yield_now().await;
        proxy.set_stalled(false);
    };
    let (second, third, ()) = tokio::join!(asked("second"), asked("third"), going_on);
    assert_eq!((second, third), ("exact", "exact"));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_instance_recorded_is_not_contradicted_while_commits_are_slow() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 50.0), ("b", 50.0)])).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let settings = Settings {
        patience: Duration::from_secs(2),
        give_up: Duration::from_secs(60),
        ..Settings::default()
    };
    let minute = Duration::from_secs(60);
    let patience = Patience { statement: minute, idle_in_transaction: minute };
    let slow = Instance::start_on(&proxy.through(own.options()), patience, settings, Arc::new(Unchanging));
    let other = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    slow.decide("c", "before").await;
    let mut told = BTreeMap::new();
    for number in 0..10 {
        // To a and b in turn; asked about the other way round, the rule would give half of them another.
        let answer = other.decide("c", &format!("v{number}")).await;
        told.insert(answer.conversation_id, answer.destination_id);
    }
    proxy.set_slow_commits(Some(8_000..8_001));
    let asking = told.iter().rev().map(|(conversation, destination)| {
        let slow = &slow;
        async move {
            let again = slow.decide("c", conversation).await;
            assert_eq!(
                (again.destination_id, again.source.name()),
                (destination.clone(), "exact"),
                "{conversation}"
            );
        }
    });
    // One behind the other: the first makes the turn slow, the others wait for their own.
    let new = async { slow.decide("c", "new").await.source.name() };
    let (new, ()) = tokio::join!(new, async {
        for one in asking {
            one.await;
        }
    });
    assert_eq!(new, "cached");
    proxy.set_slow_commits(None);
    until("everything to be recorded", || async { (kept(&owner, "c").await.len() == 12).then_some(()) })
        .await;
    expect_whole(&owner, "c", 12).await;
    slow.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_not_known_yet_is_asked_for_before_it_is_refused() {
    let (own, database) = TestDatabase::migrated().await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let settings = Settings { refresh: Duration::from_secs(3_600), ..Settings::default() };
    let settings =
        Settings { patience: Duration::from_millis(5), give_up: Duration::from_secs(60), ..settings };
    let instance = Instance::start_with(&proxy.through(own.options()), settings, Arc::new(Unchanging)).await;
    assert!(instance.service.decide("c", "v").await.is_err(), "nothing is published");
    publish(&database, &configuration("c", &[("a", 1.0)])).await;
    proxy.set_slow_replies(Some(300..301));
    assert_eq!(&*instance.decide("c", "v").await.destination_id, "a");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_absent_while_the_database_was_away_is_not_flooded_when_both_are_back() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 50.0), ("b", 50.0)])).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let view = Arc::new(super::exact::Absent::default());
    let options = proxy.through(own.options());
    let instance = Instance::start_with(&options, Settings::default(), view.clone()).await;
    instance.decide("c", "before").await;
    proxy.set_away(true);
    view.0.lock().unwrap().push("b".into());
    let mut caller = Caller { instance: &instance, told: BTreeMap::new() };
    caller.ask_until("first", "fallback").await;
    for number in 0..200 {
        caller.ask(&format!("away-{number}")).await;
    }
    view.0.lock().unwrap().clear();
    proxy.set_away(false);
    caller.ask_until("after", "exact").await;
    let all = caller.told.len() + 1;
    until("everything to be recorded", || async { (kept(&owner, "c").await.len() == all).then_some(()) })
        .await;
    expect_whole(&owner, "c", all).await;
    let mut back = 0;
    for number in 0..20 {
        caller.ask(&format!("back-{number}")).await;
        back += usize::from(caller.told[&format!("back-{number}")] == "b");
    }
    assert!(back <= 12, "b got {back} of 20: it makes up for what it missed");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_whose_fate_is_unknown_is_recorded_once_as_it_was_answered() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 60.0), ("b", 40.0)])).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let one = Instance::start(&proxy.through(own.options())).await;
    let other = Instance::start(&own.options()).await;
    let mut told = BTreeMap::new();
    let mut rounds = 0;
    for fault in [Fault::LoseNextReply, Fault::LoseNextCommit, Fault::LoseNextReply] {
        // Two instances in turn make the first one lock before it writes, so there is a COMMIT to lose.
        proxy.prepare(fault);
        let happened = proxy.happened();
        while proxy.happened() == happened {
            rounds += 1;
            assert!(rounds < 1_000, "no COMMIT passed the proxy");
            for (instance, name) in [(&other, "other"), (&one, "one")] {
                let answer = instance.decide("c", &format!("{name}-{rounds}")).await;
                told.insert(answer.conversation_id, answer.destination_id);
            }
        }
    }
    until("everything to be recorded", || async {
        (kept(&owner, "c").await.len() == told.len()).then_some(())
    })
    .await;
    expect_whole(&owner, "c", told.len()).await;
    for (_, conversation, destination, _) in kept(&owner, "c").await {
        assert_eq!(*told[&*conversation], *destination);
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_killed_while_the_database_is_away_records_what_it_said_when_it_returns() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    let mut wanted = configuration("c", &[("a", 50.0), ("b", 50.0)]);
    wanted.fallback = RouteFallback::Default;
    publish(&database, &wanted).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { journal: Some(folder.path().to_owned()), ..Settings::default() };
    let instance =
        Instance::start_with(&proxy.through(own.options()), settings.clone(), Arc::new(Unchanging)).await;
    instance.decide("c", "before").await;
    proxy.set_away(true);
    let mut told = BTreeMap::new();
    for number in 0..20 {
        let answer = instance.decide("c", &format!("v{number}")).await;
        assert_ne!(answer.source.name(), "exact");
        if answer.source.name() == "fallback" {
            assert_eq!(&*answer.destination_id, "default");
        }
        told.insert(answer.conversation_id, answer.destination_id);
    }
    // As a kill would: nothing is closed, the tasks are gone.
    instance.running.abort();
    instance.shutdown.cancel();
    drop(instance.service);
    proxy.set_away(false);

    let again = Instance::start_with(&own.options(), settings, Arc::new(Unchanging)).await;
    until("everything to be recorded", || async { (kept(&owner, "c").await.len() == 21).then_some(()) })
        .await;
    for (conversation, destination) in &told {
        assert_eq!(again.decide("c", conversation).await.destination_id, *destination);
    }
    expect_whole(&owner, "c", 21).await;
    again.stop().await;
}
