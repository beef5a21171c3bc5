//! Documents made from the code's own declarations. `tests/rules/documents.rs`
//! checks that the files say what the code does, and writes them on request.

use serde_json::Value;

use super::asyncapi;
use crate::config::{Config, KEYS, environment_name};
use crate::console::{self, Access};
use crate::metrics::{self, Kind};
use crate::model::conversation::OUTCOME_RULES;
use crate::topics::{self, Cleanup, Topic};

/// A file below the project's root and what it must hold.
pub struct Document {
    pub path: String,
    pub text: String,
}

/// Every document that is made from the code.
pub fn all() -> Vec<Document> {
    let whole = |path: String, text: String| Document { path, text };
    let mut documents: Vec<Document> = topics::ALL
        .iter()
        .filter_map(|topic| {
            let schema = topics::json_schema(topic)?;
            let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
            Some(whole(format!("schemas/{}.schema.json", topic.name), text))
        })
        .collect();
    let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("plain data") + "\n";
    documents.push(whole("schemas/asyncapi.json".into(), pretty(&asyncapi::document(kept))));
    documents.push(whole("schemas/openapi.json".into(), pretty(&console::openapi_document())));
    documents.push(whole("trunkline.example.toml".into(), Config::example()));
    documents.extend(reference());
    documents
}

/// The tables under `docs/reference/`.
fn reference() -> impl Iterator<Item = Document> {
    let pages = [
        ("commands", "Commands", COMMANDS_HEAD, commands_table()),
        ("configuration", "Configuration", CONFIGURATION_HEAD, configuration_table()),
        ("http", "HTTP", HTTP_HEAD, routes_table()),
        ("metrics", "Metrics", METRICS_HEAD, metrics_table()),
        ("outcomes", "Outcomes of flows", OUTCOMES_HEAD, outcomes_table()),
        ("topics", "Topics", TOPICS_HEAD, topics_table()),
    ];
    pages.into_iter().map(|(name, title, head, table)| Document {
        path: format!("docs/reference/{name}.md"),
        text: format!("# {title}\n\n{head}\n\nMade from the code; `make test` checks it.\n\n{table}"),
    })
}

const COMMANDS_HEAD: &str = "`trunkline COMMAND --help` has the options of each.";

const CONFIGURATION_HEAD: &str = "\
A file (`trunkline.toml` here, or `--config FILE`), overridden by the environment. Any key can be read from a file with
`…_FILE`. In `[kafka]` every librdkafka property is welcome by its own name, such as `security.protocol`; in the environment
as `TRUNKLINE_KAFKA__SECURITY_PROTOCOL`.

Logs go to stderr, as lines on a terminal and JSON elsewhere; `RUST_LOG` chooses what. Spans go to the collector that
`OTEL_EXPORTER_OTLP_ENDPOINT` names.";

const HTTP_HEAD: &str = "\
HTTP listens on loopback as long as no `http.api_keys` are configured; with keys, requests carry `Authorization: Bearer KEY`.
Errors are RFC 9457 problem documents. `schemas/openapi.json` is what `/openapi.json` answers.";

const METRICS_HEAD: &str = "`GET /metrics` in Prometheus' text format.";

const OUTCOMES_HEAD: &str = "\
Each `flow.end` and `flow.outcome` event counts as one interaction with its flow. Upper and lower case and underscores do not
matter; words that are not listed count as `other`. Only `error` counts as an error of the flow.";

const TOPICS_HEAD: &str = "\
Values are JSON with a schema and examples under `schemas/`; an AsyncAPI document there describes all of them. Read with
`isolation.level=read_committed`. Headers: `traceparent`, `content-type`, `trunkline-schema`; dead letters and late events keep
key, value, headers and time byte for byte and add `trunkline-error-*`.";

fn commands_table() -> String {
    use clap::CommandFactory;
    let mut table = String::from("| command | does |\n|---|---|\n");
    for command in
        super::Arguments::command().get_subcommands().filter(|command| command.get_name() != "help")
    {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        table.push_str(&format!("| `{}` | {about} |\n", command.get_name()));
    }
    table
}

fn routes_table() -> String {
    let mut table = String::from("| route | does | needs |\n|---|---|---|\n");
    for route in console::ROUTES.iter() {
        let needs = match route.access {
            Access::Open => "–".to_owned(),
            Access::Needs(role) => format!("a key with role `{}`, once keys are configured", role.name()),
        };
        let method = route.method.name().to_uppercase();
        table.push_str(&format!("| `{method} {}` | {} | {needs} |\n", route.path, route.summary));
    }
    table
}

fn topics_table() -> String {
    let mut table = String::from("| topic | key | value | kept |\n|---|---|---|---|\n");
    for topic in topics::ALL {
        table.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            topic.name,
            topic.key,
            topic.description,
            kept(topic)
        ));
    }
    table
}

fn outcomes_table() -> String {
    let mut table = String::from("| event | value | outcome | meaning |\n|---|---|---|---|\n");
    for rule in OUTCOME_RULES {
        let outcome = rule.outcome.name();
        table.push_str(&format!(
            "| `{}` | `{}` | {outcome} | {} |\n",
            rule.event_type, rule.value, rule.meaning
        ));
    }
    table
}

fn kept(topic: &Topic) -> String {
    match topic.cleanup {
        Cleanup::Delete { retention } => format!("{} days", retention.as_secs() / 86_400),
        Cleanup::Compact => "compacted".into(),
    }
}

fn configuration_table() -> String {
    let mut table = String::from("| key | environment | default | what |\n|---|---|---|---|\n");
    for key in KEYS {
        table.push_str(&format!(
            "| `{}` | `{}` | {} | {} Allowed: {}. |\n",
            key.name,
            environment_name(key.name),
            key.default.map_or_else(|| "–".to_owned(), |default| format!("`{default}`")),
            key.help,
            key.kind.allowed()
        ));
    }
    table
}

fn metrics_table() -> String {
    let mut table = String::from("| metric | kind | labels | what |\n|---|---|---|---|\n");
    for metric in metrics::ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        table.push_str(&format!(
            "| `{}` | {kind} | {} | {} |\n",
            metric.name,
            metric.labels.join(", "),
            metric.help
        ));
    }
    table
}
