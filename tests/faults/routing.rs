//! Instances that answer routing decisions and are killed under load.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics::QUEUE_AVAILABILITY;

use crate::deployment::{Deployment, Instance, chance};
use crate::rounds;
use crate::routing_scene::RoutingScene;
use crate::support::{kafka, within};

const INSTANCES: usize = 3;
const PER_SECOND: u64 = 500;
/// One in so many requests asks about a conversation that was asked about before.
const REPEAT_ONE_IN: u32 = 20;
const KILL_EVERY: Duration = Duration::from_secs(2);
/// What a caller is promised.
const IN_TIME: Duration = Duration::from_millis(200);
/// One answer in so many may be later even so: what holds it up need not hold the control up.
const LATE_ONE_IN: usize = 100;
/// Requests under way at most: more would measure the queue of a machine that is too slow for them.
const UNDER_WAY: usize = 64;
/// A caller goes to the next instance when one is gone; somebody lives.
const ASKED: Duration = Duration::from_secs(60);

/// One answer as the caller had it.
#[derive(Clone, Debug)]
struct Told {
    conversation: String,
    destination: String,
    exact: bool,
    asked_at: Instant,
    after: Duration,
}

/// What a constant answer took of the same instances meanwhile: a busy machine is late with
/// everything, and only what is later than that is the decision's own doing.
#[derive(Clone, Default)]
struct Control(Arc<Mutex<Vec<(Instant, Duration)>>>);

impl Control {
    /// Asks one instance after the other whether it lives, until it is dropped.
    fn measure(&self, client: &reqwest::Client, ports: &[u16]) -> tokio_util::task::AbortOnDropHandle<()> {
        let (client, ports, measured) = (client.clone(), ports.to_vec(), Arc::clone(&self.0));
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            for port in ports.iter().cycle() {
                let begun = Instant::now();
                tokio::time::sleep(Duration::from_millis(5)).await;
                let sent = client.get(format!("http://127.0.0.1:{port}/healthz")).send().await;
                if sent.is_ok() {
                    measured.lock().expect("whole").push((begun, begun.elapsed()));
                }
            }
        }))
    }

    /// The slowest that was under way while this answer was.
    fn slowest_during(&self, told: &Told) -> Duration {
        let end = told.asked_at + told.after;
        let measured = self.0.lock().expect("whole");
        let meanwhile = measured.iter().filter(|(at, took)| *at < end && *at + *took > told.asked_at);
        meanwhile.map(|(_, took)| *took).max().unwrap_or_default()
    }
}

/// Asks one instance after the other until somebody answers.
async fn ask(client: &reqwest::Client, ports: &[u16], first: usize, conversation: String) -> Told {
    let end = Instant::now() + ASKED;
    for turn in 0.. {
        let url = format!("http://127.0.0.1:{}/v1/routes/c/decisions", ports[(first + turn) % ports.len()]);
        let asked_at = Instant::now();
        let sent = client.post(url).json(&json!({"conversationId": conversation})).send().await;
        if let Ok(reply) = sent
            && reply.status().is_success()
            && let Ok(answer) = reply.json::<Value>().await
        {
            let destination = answer["destinationId"].as_str().expect("a destination").to_owned();
            let exact = answer["source"] == "exact";
            return Told { conversation, destination, exact, asked_at, after: asked_at.elapsed() };
        }
        assert!(Instant::now() < end, "nobody answered for {conversation}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    unreachable!("the loop ends by itself")
}

/// Requests at a steady pace for `length`.
async fn load(ports: Vec<u16>, length: Duration, seed: u64) -> Vec<Told> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client");
    let mut chance: rand_chacha::ChaCha8Rng = rand::SeedableRng::seed_from_u64(seed);
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut asking = JoinSet::new();
    let (begun, mut asked) = (Instant::now(), 0u64);
    while begun.elapsed() < length {
        let due = begun.elapsed().as_millis() as u64 * PER_SECOND / 1_000;
        while asked < due && asking.len() < UNDER_WAY {
            asked += 1;
            let repeats = chance.random_range(0..REPEAT_ONE_IN) == 0;
            let number = if repeats { chance.random_range(1..=asked) } else { asked };
            let (client, ports, told) = (client.clone(), ports.clone(), Arc::clone(&told));
            let first = chance.random_range(0..ports.len());
            asking.spawn(async move {
                let answer = ask(&client, &ports, first, format!("v{number}")).await;
                told.lock().expect("whole").push(answer);
            });
        }
        while asking.try_join_next().is_some_and(|joined| joined.map(|()| true).expect("asked")) {}
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    while let Some(joined) = asking.join_next().await {
        joined.expect("asked");
    }
    Arc::into_inner(told).expect("nobody asks any more").into_inner().expect("whole")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_instances_give_every_conversation_one_destination_and_count_it_once() {
    let (seed, mut chance) = chance();
    let deployment = Deployment::prepare_alone().await;
    let scene = RoutingScene::new(&deployment, INSTANCES, None);
    let mut instances = scene.start_all();
    let client = reqwest::Client::new();
    scene.publish(&client).await;

    let control = Control::default();
    let measuring = control.measure(&client, &scene.ports);
    let told = told_while_killed(&scene, &mut instances, seed, &mut chance).await;
    drop(measuring);
    let own: Vec<&Told> =
        told.iter().filter(|told| told.after > IN_TIME + control.slowest_during(told)).collect();
    println!("{} later than 200 ms after whatever the machine took", own.len());
    assert!(
        own.len() * LATE_ONE_IN <= told.len(),
        "seed {seed}: {} of {} late, as {:?}",
        own.len(),
        told.len(),
        own[0]
    );
    let inexact = told.iter().filter(|told| !told.exact).count();
    let exact = one_destination_each(&told, inexact, seed);

    let conversations: HashSet<&str> = told.iter().map(|told| told.conversation.as_str()).collect();
    each_counted_once(&deployment, conversations.len(), &exact, seed).await;
    let _books = deployment.instance_with("books", &["--stages", "outbox,audit"], &[]);
    each_audited_once(&deployment, conversations.len()).await;
    shares_are_made_good(&scene, &client, conversations.len(), inexact, seed).await;
}

/// What callers were told while instances were killed and started again.
async fn told_while_killed(
    scene: &RoutingScene<'_>,
    instances: &mut [Instance],
    seed: u64,
    chance: &mut impl rand::Rng,
) -> Vec<Told> {
    let length = Duration::from_secs(rounds(20, 60) as u64);
    let loading = tokio::spawn(load(scene.ports.clone(), length, seed));
    let mut kills = 0;
    while !loading.is_finished() {
        tokio::time::sleep(KILL_EVERY).await;
        let number = chance.random_range(0..INSTANCES);
        instances[number].process.kill();
        kills += 1;
        instances[number] = scene.start(number);
    }
    let told = loading.await.expect("the load ends well");
    let late = told.iter().filter(|told| told.after > IN_TIME).count();
    let slowest = told.iter().map(|told| told.after).max().unwrap_or_default();
    println!(
        "{} answers, {kills} kills: {late} later than 200 ms (slowest {} ms)",
        told.len(),
        slowest.as_millis()
    );
    told
}

/// Asserts that only answers without the counters differ from one another; the exact ones by conversation.
fn one_destination_each(told: &[Told], inexact: usize, seed: u64) -> HashMap<&str, &str> {
    let mut exact: HashMap<&str, &str> = HashMap::new();
    for told in told.iter().filter(|told| told.exact) {
        let first = exact.entry(&told.conversation).or_insert(&told.destination);
        assert_eq!(*first, told.destination, "seed {seed}: {} was told two destinations", told.conversation);
    }
    let mut first: HashMap<&str, &str> = HashMap::new();
    let split = told
        .iter()
        .filter(|told| *first.entry(&told.conversation).or_insert(&told.destination) != told.destination)
        .count();
    assert!(split <= inexact, "seed {seed}: only answers without the counters may differ");
    println!(
        "{inexact} answers not exact, {split} differ from an earlier one that was given without the counters"
    );
    exact
}

/// What was given without the counters is recorded by the instances that came back.
async fn each_counted_once(
    deployment: &Deployment,
    conversations: usize,
    exact: &HashMap<&str, &str>,
    seed: u64,
) {
    within(ASKED, "every conversation to be counted", async || {
        let decisions: i64 =
            sqlx::query_scalar("SELECT decisions FROM trunkline.route_counters WHERE configuration_id = 'c'")
                .fetch_one(&deployment.scene.owner)
                .await
                .unwrap();
        assert!(decisions <= conversations as i64, "seed {seed}: counted twice");
        (decisions == conversations as i64).then_some(())
    })
    .await;
    let kept: Vec<(String, String)> =
        sqlx::query_as("SELECT conversation_id, destination_id FROM trunkline.route_answers")
            .fetch_all(&deployment.scene.owner)
            .await
            .unwrap();
    assert_eq!(kept.len(), conversations);
    for (conversation, destination) in &kept {
        if let Some(told) = exact.get(conversation.as_str()) {
            assert_eq!(told, destination, "seed {seed}: {conversation}");
        }
    }
}

async fn each_audited_once(deployment: &Deployment, conversations: usize) {
    within(Duration::from_secs(120), "the audit to have every decision", async || {
        let audited: (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM audit.decisions WHERE loop = 'route'),
                    (SELECT count(DISTINCT sequence) FROM audit.decisions WHERE loop = 'route'),
                    (SELECT count(*) FROM audit.gaps)",
        )
        .fetch_one(&deployment.scene.owner)
        .await
        .unwrap();
        let all = conversations as i64;
        (audited == (all, all, 0)).then_some(())
    })
    .await;
}

/// Nothing given without the counters is left uncounted, and each such answer moves a group by one
/// decision at most beside the rule's own bound; what instances did apart from each other the next
/// decisions make good.
async fn shares_are_made_good(
    scene: &RoutingScene<'_>,
    client: &reqwest::Client,
    conversations: usize,
    inexact: usize,
    seed: u64,
) {
    let told_apart = shares(scene.deployment).await;
    println!("shares: {told_apart:?}");
    assert_eq!(told_apart.iter().map(|(_, decisions, _)| decisions).sum::<i64>(), conversations as i64);
    let bound = DEVIATION + inexact as f64;
    for (destination, _, deviation) in &told_apart {
        assert!(deviation.abs() <= bound, "seed {seed}: {destination} deviates by {deviation} of {bound}");
    }
    let rounds = std::sync::atomic::AtomicUsize::new(0);
    within(Duration::from_secs(120), "deviations to be the rule's own again", async || {
        const ROUND: usize = 20;
        let round = rounds.fetch_add(1, Ordering::SeqCst);
        next(client, scene.ports[0], &format!("after-{round}"), ROUND).await;
        let all = (conversations + (round + 1) * ROUND) as i64;
        let shares = within(ASKED, "the audit to have the next decisions", async || {
            let shares = shares(scene.deployment).await;
            (shares.iter().map(|(_, decisions, _)| decisions).sum::<i64>() == all).then_some(shares)
        })
        .await;
        shares.iter().all(|(_, _, deviation)| deviation.abs() <= DEVIATION).then_some(())
    })
    .await;
}

/// How far a group's decisions may be from its share by the rule, in decisions.
const DEVIATION: f64 = 0.75 + 1e-6;

/// Of each group its decisions and how far they are from its share, as the audit has it.
async fn shares(deployment: &Deployment) -> Vec<(String, i64, f64)> {
    sqlx::query_as(
        "SELECT destination_id, decisions::bigint, deviation FROM audit.route_shares WHERE configuration_id = 'c'",
    )
    .fetch_all(&deployment.scene.owner)
    .await
    .unwrap()
}

/// Destinations of the next `count` conversations, in the order they were asked.
async fn next(client: &reqwest::Client, port: u16, names: &str, count: usize) -> HashMap<String, usize> {
    let mut given = HashMap::new();
    for number in 0..count {
        let told = ask(client, &[port], 0, format!("{names}-{number}")).await;
        *given.entry(told.destination).or_default() += 1;
    }
    given
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_set_at_run_time_and_availability_hold_from_the_next_decisions_on() {
    let deployment = Deployment::prepare().await;
    let journal = tempfile::tempdir().unwrap();
    let port = crate::deployment::free_port();
    let _instance = deployment.instance_with(
        "routing",
        &["--stages", "routing,console,outbox"],
        &[
            ("TRUNKLINE_HTTP__LISTEN", format!("127.0.0.1:{port}")),
            ("TRUNKLINE_ROUTE__MODE", "shadow".to_owned()),
            ("TRUNKLINE_ROUTE__JOURNAL", journal.path().to_str().expect("UTF-8").to_owned()),
        ],
    );
    let client = reqwest::Client::new();
    let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
    within(ASKED, "the instance to serve", async || {
        client.get(at("/healthz")).send().await.is_ok().then_some(())
    })
    .await;
    let rule = |id: &str| json!({"id": format!("r-{id}"), "destination": {"type": "QUEUE_ID", "id": id}, "weight": 50});
    let wanted = json!({"id": "c", "name": "Support", "defaultDestination": {"type": "QUEUE_ID", "id": "z"}, "rules": [rule("a"), rule("b")]});
    assert!(client.put(at("/v1/routes/c")).json(&wanted).send().await.unwrap().status().is_success());
    assert!(client.post(at("/v1/routes/c/publish")).send().await.unwrap().status().is_success());
    let halves = next(&client, port, "even", 40).await;
    assert_eq!((halves["a"], halves["b"]), (20, 20));

    let weights = json!({"weights": {"a": 90.0, "b": 10.0}});
    let set = client.put(at("/v1/settings/route%2Fc")).json(&weights).send().await.unwrap();
    let (status, text) = (set.status(), set.text().await.unwrap());
    assert!(status.is_success(), "{status} {text}");
    let revision: i64 = within(ASKED, "a block to be taken under the new weights", async || {
        next(&client, port, &format!("wait-{}", uuid::Uuid::now_v7()), 1).await;
        sqlx::query_scalar("SELECT max(settings_revision) FROM trunkline.route_turns")
            .fetch_one(&deployment.scene.owner)
            .await
            .ok()
            .filter(|revision: &i64| *revision > 0)
    })
    .await;
    let uneven = next(&client, port, "uneven", 100).await;
    assert!(uneven["a"].abs_diff(90) <= 1 && uneven["b"].abs_diff(10) <= 1, "{uneven:?} under {revision}");

    let settings = KafkaSettings {
        brokers: deployment.scene.brokers.clone(),
        topic_prefix: deployment.scene.topic_prefix.clone(),
        ..kafka::settings()
    };
    let observe = async |queue: &str, availability: f64| {
        let observed_at = trunkline::clock::now();
        let fact =
            json!({"queueId": queue, "availability": availability, "observedAt": observed_at}).to_string();
        kafka::produce(&settings, &QUEUE_AVAILABILITY, None, &[(queue, fact.as_bytes())]).await;
    };
    observe("a", 0.0).await;
    within(ASKED, "a to be left out", async || {
        let given = next(&client, port, &format!("b-{}", uuid::Uuid::now_v7()), 5).await;
        (given.get("b") == Some(&5)).then_some(())
    })
    .await;
    observe("b", 0.0).await;
    within(ASKED, "nobody to be left but the default", async || {
        let given = next(&client, port, &format!("z-{}", uuid::Uuid::now_v7()), 5).await;
        (given.get("z") == Some(&5)).then_some(())
    })
    .await;
    observe("a", 0.4).await;
    observe("b", 0.4).await;
    within(ASKED, "both to be back", async || {
        let given = next(&client, port, &format!("back-{}", uuid::Uuid::now_v7()), 5).await;
        (!given.contains_key("z") && given.contains_key("a")).then_some(())
    })
    .await;
    // Nobody makes up for what it missed while it was away.
    let after = next(&client, port, "after", 100).await;
    assert!(after["a"].abs_diff(90) <= 2 && after["b"].abs_diff(10) <= 2, "{after:?}");
}
