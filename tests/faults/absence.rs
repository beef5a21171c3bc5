//! Everything around the program may be away, wrongly described, or leave while it works.

use std::cell::Cell;
use std::time::Duration;

use rustix::process::Signal;

use crate::deployment::{Deployment, ENDED, Instance, chance};
use crate::support::postgres_proxy::PostgresProxy;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::within;

/// Ports of the system's own that nothing listens on here.
const NO_KAFKA: &str = "127.0.0.1:1";
const NO_POSTGRES: &str = "127.0.0.1:2";
const NO_PLATFORM: &str = "127.0.0.1:3";

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| (format!("TRUNKLINE_{name}"), (*value).to_owned())).collect()
}

/// Exit code and lines of stdout.
fn ended(mut process: Process) -> (i32, Vec<String>) {
    let code = process.wait(Duration::from_secs(60)).code().expect("not killed");
    (code, std::iter::from_fn(|| process.line()).collect())
}

/// Asserts that one of the lines holds all of these.
fn assert_told(lines: &[String], words: &[&str]) {
    let told = lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told, "nothing tells {words:?}:\n{}", lines.join("\n"));
}

#[test]
fn check_names_everything_that_is_away_why_and_what_to_do() {
    let absent = environment(&[
        ("KAFKA__BROKERS", NO_KAFKA),
        ("POSTGRES__URL", &format!("postgres://trunkline@{NO_POSTGRES}/trunkline")),
        ("GENESYS__BASE_URL", &format!("http://{NO_PLATFORM}")),
        ("GENESYS__CLIENT_ID", "somebody"),
        ("GENESYS__CLIENT_SECRET", "canary-4f1c"),
        ("DIAL__CAMPAIGNS", "0f9d7c52-6d0e-4b7e-9a01-6f2b8f0c1a11"),
    ]);
    let check = Process::start("check", &["check"], &absent);
    let (code, lines) = ended(check);
    println!("{}", lines.join("\n"));
    assert_eq!(code, 1);
    assert_told(&lines, &["ok", "configuration"]);
    assert_told(&lines, &["PROBLEM", NO_KAFKA, "kafka.brokers"]);
    assert_told(&lines, &["PROBLEM", NO_POSTGRES, "refused", "postgres.url"]);
    assert_told(&lines, &["PROBLEM", NO_PLATFORM, "genesys.base_url"]);
    assert!(!lines.concat().contains("canary"), "a secret is told");
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    let bad = environment(&[
        ("KAFKA__PARTITIONS", "0"),
        ("KAFKA__BROKER", "127.0.0.1:9092"),
        ("DIAL__MODE", "alive"),
        ("DIAL__TARGET", "85"),
        ("GENESYS__CLIENT_SECRET", "canary-4f1c"),
        ("HTTP__LISTEN", "0.0.0.0:8080"),
    ]);
    let expected = [
        "kafka.partitions",
        "KAFKA__BROKER",
        "dial.mode",
        "dial.target",
        "postgres.url",
        "genesys.base_url",
        "genesys.client_id",
    ];
    let (code, lines) = ended(Process::start("check", &["check"], &bad));
    assert_eq!(code, 1);
    for key in expected {
        assert_told(&lines, &["PROBLEM", key]);
    }
    let mut run = Process::start("run", &["run"], &bad);
    assert_eq!(run.wait(Duration::from_secs(60)).code(), Some(1));
    let log = run.log();
    for key in expected {
        assert!(log.contains(key), "{key} is not told:\n{log}");
    }
    assert!(!lines.concat().contains("canary") && !log.contains("canary"), "a secret is told");
}

#[test]
fn wrong_usage_is_told_apart() {
    for arguments in [&["frobnicate"][..], &["run", "--stages", "windowing,frobnication"], &["explain"]] {
        let mut process = Process::start("usage", arguments, &[]);
        let code = process.wait(Duration::from_secs(60)).code();
        assert_eq!(code, Some(2), "{arguments:?}: {}", process.log());
    }
}

/// What `/readyz` says: its status and the reasons as JSON.
async fn readiness(instance: &Instance) -> Option<(u16, String)> {
    instance.get("/readyz").await
}

async fn not_ready_for(instance: &Instance, words: &[&str]) {
    let what = format!("readiness to tell of {words:?}");
    within(Duration::from_secs(60), &what, async || {
        let (status, body) = readiness(instance).await?;
        (status == 503 && words.iter().all(|word| body.contains(word))).then_some(())
    })
    .await;
}

async fn ready(instance: &Instance) {
    within(Duration::from_secs(60), "readiness", async || {
        readiness(instance).await.and_then(|(status, _)| (status == 200).then_some(()))
    })
    .await;
}

/// Starts with nothing there, waits and says so, works once everything is there, and
/// ends in time while the database is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_waits_for_broker_and_database() {
    let (seed, _) = chance();
    let deployment = Deployment::prepare().await;
    let (code, lines) = ended(deployment.command(&["check"]));
    assert_eq!(code, 0, "{}", lines.join("\n"));
    assert!(lines.iter().all(|line| line.starts_with("ok ")), "{}", lines.join("\n"));

    let kafka = Proxy::start().await;
    let postgres = PostgresProxy::before(&deployment.database.options()).await;
    kafka.set_away(true);
    postgres.set_away(true);
    let options = postgres.through(deployment.database.options());
    let server = format!("127.0.0.1:{}", options.get_port());
    let url = sqlx::ConnectOptions::to_url_lossy(&options).to_string();
    let through = [("TRUNKLINE_KAFKA__BROKERS", kafka.address.clone()), ("TRUNKLINE_POSTGRES__URL", url)];
    let mut instance = deployment.instance_with("a", &[], &through);
    not_ready_for(&instance, &[&kafka.address, &server, "postgres.url"]).await;
    assert_eq!(instance.get("/healthz").await, Some((200, "ok\n".to_owned())));
    println!("{:?}", readiness(&instance).await);
    assert!(!instance.process.has_ended());

    postgres.set_away(false);
    kafka.set_away(false);
    ready(&instance).await;
    deployment.goes_on().await;

    kafka.set_away(true);
    not_ready_for(&instance, &[&kafka.address]).await;
    kafka.set_away(false);
    ready(&instance).await;
    deployment.goes_on().await;

    postgres.set_away(true);
    not_ready_for(&instance, &[&server]).await;
    assert_eq!(instance.get("/healthz").await, Some((200, "ok\n".to_owned())));
    instance.process.signal(Signal::TERM);
    let status = instance.process.wait(ENDED);
    assert!(status.success(), "SIGTERM without a database ends with {status}");
    deployment.ends_well(seed, &mut []).await;
}

/// What is away is told once, again when it changes, and once a minute: not with every try of
/// every client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_away_do_not_fill_the_log() {
    let deployment = Deployment::prepare().await;
    let away =
        [("TRUNKLINE_KAFKA__BROKERS", NO_KAFKA.to_owned()), ("TRUNKLINE_LAG__MODE", "shadow".to_owned())];
    let instance = deployment.instance_with("a", &[], &away);
    not_ready_for(&instance, &[NO_KAFKA]).await;
    let lines = || instance.process.log().lines().count();
    // First every part says it for itself. Then counted over so long at least: on a slow machine
    // more time passes for the same number.
    const COUNTED: Duration = Duration::from_secs(20);
    tokio::time::sleep(COUNTED).await;
    let first = lines();
    tokio::time::sleep(COUNTED).await;
    let more = lines() - first;
    println!("{first} lines in the first {COUNTED:?}, {more} in the next");
    assert!(instance.process.log().contains(NO_KAFKA));
    assert!(first <= 15 * COUNTED.as_secs() as usize, "{first} lines");
    assert!(more <= 5 * COUNTED.as_secs() as usize, "{more} lines");
}

/// Asked anew, brokers on a loaded host answer no sooner: waits grow instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_answer_slowly_make_no_stage_start_anew() {
    let (seed, _) = chance();
    let deployment = Deployment::prepare().await;
    let kafka = Proxy::start().await;
    // Longer than the first question waits for its answer.
    kafka.set_delay(Duration::from_millis(1_700));
    let through = [("TRUNKLINE_KAFKA__BROKERS", kafka.address.clone())];
    let instance = deployment.instance_with("a", &[], &through);
    let slowly = "stages to be told that it takes long, and to get their partitions in the end";
    let told = Cell::new(false);
    within(Duration::from_secs(300), slowly, async || {
        let says = readiness(&instance).await.is_some_and(|(_, body)| body.contains(&kafka.address));
        told.set(told.get() || says);
        (told.get() && instance.process.log().contains("assigned")).then_some(())
    })
    .await;
    let log = instance.process.log();
    kafka.set_delay(Duration::ZERO);
    assert!(!log.contains("starting another"), "a worker was started anew:\n{log}");
    ready(&instance).await;
    deployment.goes_on().await;
    deployment.ends_well(seed, &mut [instance]).await;
}
