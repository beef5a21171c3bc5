//! The program as a process: what it says where something is wrong around it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET};

use crate::support::kafka;
use crate::support::postgres::TestDatabase;
use crate::support::process::Process;
use crate::support::simulated::{self, CAMPAIGN, Organization};

const PATIENCE: Duration = Duration::from_secs(120);

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (format!("TRUNKLINE_{name}"), (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tries_everything_that_is_configured_and_tells_all_that_is_wrong() {
    let organization = Organization::start(simulated::settings()).await;
    let (own, _database) = TestDatabase::migrated().await;
    let kafka = kafka::settings();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = format!(
        r#"[{{ name = "inside", url = "https://127.0.0.1/canary-path", secrets = ["{}"] }}]"#,
        crate::support::receiver::SECRET
    );
    let environment = environment(&[
        ("KAFKA__BROKERS", &kafka.brokers),
        ("KAFKA__TOPIC_PREFIX", &kafka.topic_prefix),
        ("POSTGRES__URL", &own.url()),
        ("GENESYS__BASE_URL", &organization.running.api_url()),
        ("GENESYS__CLIENT_ID", DEMO_CLIENT_ID),
        ("GENESYS__CLIENT_SECRET", DEMO_CLIENT_SECRET),
        ("DIAL__CAMPAIGNS", CAMPAIGN),
        ("ROLLBACK__FLOWS", "no-such-flow"),
        ("ROUTE__QUEUES", "no-such-queue"),
        ("ROUTE__JOURNAL", "/dev/null/journal"),
        ("INFLUX__URL", "http://127.0.0.1:1"),
        ("INFLUX__ORG", "o"),
        ("INFLUX__BUCKET", "b"),
        ("INFLUX__TOKEN", "canary-token"),
        ("LAG__CLUSTERS", r#"[{ name = "dead", brokers = "127.0.0.1:1" }]"#),
        ("ALERTS__WEBHOOKS", &receiver),
        ("HTTP__LISTEN", &taken.local_addr().unwrap().to_string()),
    ]);
    let mut check = Process::start("check", &["check", "--json"], &environment);
    let told = check.line().expect("a report");
    assert_eq!(check.wait(PATIENCE).code(), Some(1));
    assert!(!["canary-path", "canary-token"].iter().any(|secret| told.contains(secret)), "{told}");
    let report: Value = serde_json::from_str(&told).unwrap();
    let problem_of = |what: &str| {
        let found = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["what"].as_str().unwrap().contains(what));
        found.unwrap_or_else(|| panic!("nothing about {what}: {told}"))["problem"].as_str().map(str::to_owned)
    };
    for (what, expected) in [
        ("flow no-such-flow", "rollback.flows"),
        ("queue no-such-queue", "route.queues"),
        ("InfluxDB at http://127.0.0.1:1", "influx.url"),
        ("lag.clusters dead at 127.0.0.1:1", "brokers and properties"),
        ("receiver inside", "alerts.private_receivers"),
        ("http.listen", "in use"),
        ("route.journal", "/dev/null is no folder"),
    ] {
        let problem = problem_of(what).unwrap_or_else(|| panic!("{what} is good: {told}"));
        assert!(problem.contains(expected), "{what}: {problem}");
    }
    for good in ["configuration", "Kafka at", "Postgres", ": token", CAMPAIGN] {
        assert_eq!(problem_of(good), None, "{good}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reads_what_an_organisation_has_set_names_missing_permissions_and_changes_nothing() {
    let mut settings = simulator::Settings { dialect: simulator::Dialect::Platform, ..simulated::settings() };
    settings.scenario.flows =
        vec![simulator::FlowScenario { name: "Menu".into(), ..simulator::FlowScenario::default() }];
    settings.scenario = settings.scenario.with_ids();
    let flow = settings.scenario.flows[0].id.clone();
    for lacking in ["analytics:flowAggregate:view", "analytics:queueObservation:view"] {
        assert!(settings.clients[0].scopes.remove(lacking), "{lacking}");
    }
    let organization = Organization::start(settings).await;
    let lock = json!({ "userId": "5f0e1d2c-3b4a-4958-8776-655443322107", "name": "A Person" });
    organization.control(Method::PUT, &format!("/flows/{flow}/lock"), Some(lock)).await;
    let rule = json!({
        "name": "Slow down", "campaignIds": [CAMPAIGN],
        "actionType": "setCampaignMaxCallsPerAgent", "maxCallsPerAgent": 1.0,
    });
    organization.control(Method::PUT, "/campaign-rules", Some(json!([rule]))).await;
    let environment = environment(&[
        // Neither is there: they are told, and the rest is looked at all the same.
        ("KAFKA__BROKERS", "127.0.0.1:1"),
        ("POSTGRES__URL", "postgres://nobody@127.0.0.1:1/none"),
        ("GENESYS__DIALECT", "platform"),
        ("GENESYS__BASE_URL", &organization.running.api_url()),
        ("GENESYS__CLIENT_ID", DEMO_CLIENT_ID),
        ("GENESYS__CLIENT_SECRET", DEMO_CLIENT_SECRET),
        ("DIAL__MODE", "live"),
        ("DIAL__CAMPAIGNS", CAMPAIGN),
        ("ROLLBACK__MODE", "live"),
        ("ROLLBACK__SOURCE", "polled"),
        ("ROLLBACK__FLOWS", &flow),
        ("HTTP__LISTEN", "127.0.0.1:0"),
    ]);
    let mut check = Process::start("check", &["check", "--json"], &environment);
    let told = check.line().expect("a report");
    assert_eq!(check.wait(PATIENCE).code(), Some(1));
    let report: Value = serde_json::from_str(&told).unwrap();
    let says = |what: &str, part: &str, text: &str| {
        let mut findings = report["findings"].as_array().unwrap().iter();
        let found = findings.any(|finding| {
            finding["what"].as_str().unwrap().contains(what)
                && finding[part].as_str().is_some_and(|said| said.contains(text))
        });
        assert!(found, "{what}, {part}: nothing of {text:?} in {told}");
    };
    says("dial: statistics", "problem", "analytics:queueObservation:view");
    says("rollback: measures of flows", "problem", "analytics:flowAggregate:view");
    says("rollback: flow", "problem", "locked by A Person");
    says("the platform's own abandon rate", "note", "divided by");
    says("dial: campaign", "note", "its own abandonRate is");
    says("dial: campaign", "note", "\"Slow down\" changes it as well");
    says("dial: campaign", "note", "low-max-calls alert");
    says("allowance", "note", "calls");

    let asked = organization.requests().await;
    let others: Vec<&Value> = asked.iter().filter(|it| it["origin"] == "api" && !only_reads(it)).collect();
    assert!(asked.len() > 10 && others.is_empty(), "{others:?}");
}

fn only_reads(entry: &Value) -> bool {
    let path = entry["path"].as_str().unwrap();
    let begins_a_query = path.ends_with("/query") || path.ends_with("/query/realtime");
    let reads =
        entry["method"] == "GET" || path == "/oauth/token" || (entry["method"] == "POST" && begins_a_query);
    reads && entry["effect"].is_null()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with every program of `PATH` but one.
fn path_without(program: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for file in
        std::env::split_paths(&path).filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten()
    {
        if file.file_name() != program {
            // The first one of a name is the one that would be found.
            let _ = std::os::unix::fs::symlink(file.path(), folder.path().join(file.file_name()));
        }
    }
    folder
}

/// Processes whose command line names the folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let command_lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let text = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&text).replace('\0', " "))
    });
    command_lines.filter(|line| line.contains(&folder) && !line.contains("watch-owner")).collect()
}

/// Runs the demo, which must fail; answers what it said and the folder it worked in.
fn failing_demo(variables: &[(&str, &str)]) -> (String, PathBuf) {
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut demo = Process::start("demo", &["demo", "--for", "1s"], &variables);
    let folder = root().join(".local").join(format!("demo-{}", demo.id()));
    assert_eq!(demo.wait(PATIENCE).code(), Some(1));
    (demo.log(), folder)
}

#[test]
fn a_demo_that_cannot_start_says_why_and_leaves_nothing() {
    let without_java = path_without("java");
    let (said, folder) = failing_demo(&[("PATH", &without_java.path().display().to_string())]);
    assert!(said.contains("java not found") && said.contains("setup.sh services"), "{said}");
    assert!(!folder.exists(), "{} is left", folder.display());

    let (said, folder) = failing_demo(&[("SERVICES_WAIT_SECONDS", "0")]);
    assert!(said.contains("was not ready within 0 s"), "{said}");
    assert!(!folder.exists(), "{} is left", folder.display());
    assert_eq!(processes_of(&folder), Vec::<String>::new());
}
