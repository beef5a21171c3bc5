//! Instances that answer routing decisions and are killed under load.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics::QUEUE_AVAILABILITY;

use crate::deployment::{Deployment, Instance, chance};
use crate::rounds;
use crate::support::{kafka, within};

const INSTANCES: usize = 3;
const PER_SECOND: u64 = 500;
/// One in so many requests asks about a conversation that was asked about before.
const REPEAT_ONE_IN: u32 = 20;
const KILL_EVERY: Duration = Duration::from_secs(2);
/// What a caller is promised.
const IN_TIME: Duration = Duration::from_millis(200);
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

fn start(deployment: &Deployment, number: usize, port: u16, journal: &str) -> Instance {
    deployment.instance_with(
        &format!("routing-{number}"),
        &["--stages", "routing,console"],
        &[
            ("TRUNKLINE_HTTP__LISTEN", format!("127.0.0.1:{port}")),
            ("TRUNKLINE_ROUTE__MODE", "shadow".to_owned()),
            ("TRUNKLINE_ROUTE__JOURNAL", journal.to_owned()),
        ],
    )
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
        while asked < due {
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
    let journal = tempfile::tempdir().unwrap();
    let journal = journal.path().to_str().expect("UTF-8");
    let ports: Vec<u16> = (0..INSTANCES).map(|_| crate::deployment::free_port()).collect();
    let mut instances: Vec<Instance> =
        (0..INSTANCES).map(|number| start(&deployment, number, ports[number], journal)).collect();
    let client = reqwest::Client::new();
    for port in &ports {
        let url = format!("http://127.0.0.1:{port}");
        within(ASKED, "an instance to serve", async || {
            client.get(format!("{url}/healthz")).send().await.is_ok().then_some(())
        })
        .await;
    }
    let url = format!("http://127.0.0.1:{}/v1/routes/c", ports[0]);
    let rule = |id: &str, weight: u32| json!({"id": format!("r-{id}"), "destination": {"type": "QUEUE_ID", "id": id}, "weight": weight});
    let wanted =
        json!({"id": "c", "name": "Support", "rules": [rule("a", 50), rule("b", 30), rule("d", 20)]});
    assert!(client.put(&url).json(&wanted).send().await.unwrap().status().is_success());
    assert!(client.post(format!("{url}/publish")).send().await.unwrap().status().is_success());

    let length = Duration::from_secs(rounds(20, 60) as u64);
    let over = Arc::new(AtomicBool::new(false));
    let control = Control::default();
    let measuring = control.measure(&client, &ports);
    let loading = tokio::spawn({
        let (ports, over) = (ports.clone(), Arc::clone(&over));
        async move {
            let told = load(ports, length, seed).await;
            over.store(true, Ordering::SeqCst);
            told
        }
    });
    let mut kills = 0;
    while !over.load(Ordering::SeqCst) {
        tokio::time::sleep(KILL_EVERY).await;
        let number = chance.random_range(0..INSTANCES);
        instances[number].process.kill();
        kills += 1;
        instances[number] = start(&deployment, number, ports[number], journal);
    }
    let told = loading.await.unwrap();
    drop(measuring);
    let conversations: HashSet<&str> = told.iter().map(|told| told.conversation.as_str()).collect();
    let late = told.iter().filter(|told| told.after > IN_TIME).count();
    let own: Vec<&Told> =
        told.iter().filter(|told| told.after > IN_TIME + control.slowest_during(told)).collect();
    assert!(own.is_empty(), "seed {seed}: later than 200 ms after whatever the machine took: {own:?}");
    let inexact = told.iter().filter(|told| !told.exact).count();
    let slowest = told.iter().map(|told| told.after).max().unwrap_or_default();
    println!(
        "{} answers about {} conversations, {kills} kills: {late} later than 200 ms (slowest {} ms), {inexact} not exact",
        told.len(),
        conversations.len(),
        slowest.as_millis()
    );
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
    println!("{split} answers differ from an earlier one that was given without the counters");

    // What was given without the counters is recorded by the instances that came back.
    within(ASKED, "every conversation to be counted", async || {
        let decisions: i64 =
            sqlx::query_scalar("SELECT decisions FROM trunkline.route_counters WHERE configuration_id = 'c'")
                .fetch_one(&deployment.scene.owner)
                .await
                .unwrap();
        assert!(decisions <= conversations.len() as i64, "seed {seed}: counted twice");
        (decisions == conversations.len() as i64).then_some(())
    })
    .await;
    let kept: Vec<(String, String)> =
        sqlx::query_as("SELECT conversation_id, destination_id FROM trunkline.route_answers")
            .fetch_all(&deployment.scene.owner)
            .await
            .unwrap();
    assert_eq!(kept.len(), conversations.len());
    for (conversation, destination) in &kept {
        if let Some(told) = exact.get(conversation.as_str()) {
            assert_eq!(told, destination, "seed {seed}: {conversation}");
        }
    }
    let books = deployment.instance_with("books", &["--stages", "outbox,audit"], &[]);
    within(Duration::from_secs(120), "the audit to have every decision", async || {
        let audited: (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM audit.decisions WHERE loop = 'route'),
                    (SELECT count(DISTINCT sequence) FROM audit.decisions WHERE loop = 'route'),
                    (SELECT count(*) FROM audit.gaps)",
        )
        .fetch_one(&deployment.scene.owner)
        .await
        .unwrap();
        let all = conversations.len() as i64;
        (audited == (all, all, 0)).then_some(())
    })
    .await;
    let told_apart = shares(&deployment).await;
    println!("shares: {told_apart:?}");
    assert_eq!(told_apart.iter().map(|(_, decisions, _)| decisions).sum::<i64>(), conversations.len() as i64);
    // Nothing given without the counters is left uncounted, and each such answer moves a group by
    // one decision at most beside the rule's own bound.
    let bound = DEVIATION + inexact as f64;
    for (destination, _, deviation) in &told_apart {
        assert!(deviation.abs() <= bound, "seed {seed}: {destination} deviates by {deviation} of {bound}");
    }
    // What instances did apart from each other the next decisions make good.
    let rounds = std::sync::atomic::AtomicUsize::new(0);
    within(Duration::from_secs(120), "deviations to be the rule's own again", async || {
        const ROUND: usize = 20;
        let round = rounds.fetch_add(1, Ordering::SeqCst);
        next(&client, ports[0], &format!("after-{round}"), ROUND).await;
        let all = (conversations.len() + (round + 1) * ROUND) as i64;
        let shares = within(ASKED, "the audit to have the next decisions", async || {
            let shares = shares(&deployment).await;
            (shares.iter().map(|(_, decisions, _)| decisions).sum::<i64>() == all).then_some(shares)
        })
        .await;
        shares.iter().all(|(_, _, deviation)| deviation.abs() <= DEVIATION).then_some(())
    })
    .await;
    drop(books);
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
