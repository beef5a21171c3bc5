//! Documents say what the code does. `TRUNKLINE_WRITE_DOCUMENTS=1 cargo test --test
//! rules` writes them anew.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use simulator::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Scenario};
use trunkline::cli::documents;
use trunkline::config::{self, Needs, Source};
use trunkline::model::decision::Mode;
use trunkline::topics::{self, Values};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn files_made_from_the_code_are_current() {
    let write = std::env::var_os("TRUNKLINE_WRITE_DOCUMENTS").is_some();
    let mut stale = Vec::new();
    for document in documents::all() {
        let found = fs::read_to_string(root().join(&document.path)).unwrap_or_default();
        if found == document.text {
            continue;
        }
        if write {
            let path = root().join(&document.path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            fs::write(path, document.text).expect("written");
        } else {
            stale.push(document.path);
        }
    }
    assert!(
        stale.is_empty(),
        "not current: {stale:?}; write them with TRUNKLINE_WRITE_DOCUMENTS=1 cargo test --test rules"
    );
}

/// The environment that docker-compose.yml gives trunkline, read as far as that file needs:
/// `NAME: value`, and `NAME: >-` with indented lines below.
fn compose_environment() -> HashMap<String, String> {
    let text = fs::read_to_string(root().join("docker-compose.yml")).expect("UTF-8");
    let mut environment = HashMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, value)) = line.trim().split_once(": ") else { continue };
        if !name.starts_with("TRUNKLINE_") {
            continue;
        }
        let mut value = value.to_owned();
        if value == ">-" {
            let folded = std::iter::from_fn(|| lines.next_if(|line| line.starts_with("    ")));
            value = folded.map(str::trim).collect::<Vec<_>>().join(" ");
        }
        environment.insert(name.to_owned(), value);
    }
    environment
}

#[test]
fn the_compose_file_shows_every_loop_with_the_simulators_own_client_and_objects() {
    let source = Source { file: Some("/dev/null".into()), environment: compose_environment() };
    let config = config::load(&source, Needs::Everything).unwrap_or_else(|problems| panic!("{problems}"));
    let scenario = Scenario::default().with_ids();
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let campaigns = scenario.campaigns.into_iter().map(|campaign| campaign.id).collect();
    assert_eq!(config.dial.campaigns, sorted(campaigns));
    assert_eq!(config.rollback.flows, sorted(scenario.flows.into_iter().map(|flow| flow.id).collect()));
    assert_eq!(config.route.queues, sorted(scenario.queues.into_iter().map(|queue| queue.id).collect()));
    let modes = [config.dial.mode, config.rollback.mode, config.lag.mode, config.route.mode];
    assert_eq!(modes, [Some(Mode::Live); 4]);
    let groups: Vec<_> = scenario.consumer_groups.into_iter().map(|group| group.name).collect();
    assert!(!config.lag.analytics_groups.is_empty());
    assert!(config.lag.analytics_groups.iter().all(|group| groups.contains(group)), "{groups:?}");
    assert_eq!(config.genesys.client_id, DEMO_CLIENT_ID);
    assert_eq!(config.genesys.client_secret.expose_secret(), DEMO_CLIENT_SECRET);
}

#[test]
fn the_compose_file_builds_its_image_once() {
    let text = fs::read_to_string(root().join("docker-compose.yml")).expect("UTF-8");
    let builds = text.lines().filter(|line| line.trim_start().starts_with("build: .")).count();
    assert_eq!(builds, 1);
}

#[test]
fn every_reference_of_the_topics_description_leads_somewhere() {
    let asyncapi = documents::all().into_iter().find(|document| document.path == "schemas/asyncapi.json");
    let text = asyncapi.expect("a document").text;
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let references: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("\"$ref\": \"")?.strip_suffix('"')).collect();
    assert!(references.len() > topics::ALL.len(), "{references:?}");
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn what_a_request_may_leave_out_is_not_required_in_its_description() {
    let document = trunkline::console::openapi_document();
    let is_taken = |method: &str, path: &str, body: serde_json::Value| {
        let content = &document["paths"][path][method]["requestBody"]["content"];
        let mut schema = content["application/json"]["schema"].clone();
        schema["components"] = document["components"].clone();
        jsonschema::is_valid(&schema, &body)
    };
    let destination = serde_json::json!({"type": "QUEUE_ID", "id": "a"});
    let rule = serde_json::json!({"id": "r", "destination": destination, "weight": 1});
    let configuration = serde_json::json!({"id": "c", "name": "C", "rules": [rule]});
    assert!(is_taken("put", "/v1/routes/{configurationId}", configuration));
    assert!(is_taken("post", "/v1/maintenance-windows", serde_json::json!({})));
}

fn examples(topic: &str) -> Vec<PathBuf> {
    let folder = root().join("schemas/examples").join(topic);
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    found.sort();
    found
}

#[test]
fn every_topic_has_two_examples_that_follow_its_schema_and_one_that_does_not_would_be_seen() {
    for topic in topics::ALL {
        let Values::Json(_) = topic.values else { continue };
        let schema = topics::json_schema(topic).expect("has a schema");
        let validator = jsonschema::validator_for(&schema).expect("a valid schema");
        let examples = examples(topic.name);
        assert!(examples.len() >= 2, "{} has {} examples", topic.name, examples.len());
        for path in examples {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        }
        assert!(!validator.is_valid(&serde_json::json!({})), "{}: an empty object passes", topic.name);
    }
}

/// Figures of the table rows in a text: each number as it is written, without its zeros.
fn figures(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().map(|line| line.trim().trim_matches('|')).filter(|line| {
        line.contains('|') && line.trim_start().starts_with(|letter: char| letter.is_ascii_digit())
    });
    // The document says once per row how many runs there were, the command in every cell.
    let figure = |cell: &str| cell.trim().replace(".0 %", " %").replace(" of 200", "");
    rows.map(|row| row.split('|').map(figure).collect()).collect()
}

#[test]
fn the_table_of_the_rollback_rule_is_what_the_command_beside_it_prints() {
    let document = fs::read_to_string(root().join("docs/rollback.md")).expect("the document");
    let command = document.split('`').find(|text| text.starts_with("trunkline evaluate rollback"));
    let arguments = command.expect("the command").split(' ').skip(1);
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_trunkline")).args(arguments).output();
    let ran = ran.expect("it runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let printed = figures(&String::from_utf8(ran.stdout).expect("text"));
    assert!(printed.len() > 20, "{printed:?}");
    assert_eq!(figures(&document), printed);
}
