//! Secrets in every place that takes one, watched for in all that a run says: logs at their
//! most talkative, metrics, readiness, errors.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest, Sha256};
use simulator::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET};
use trunkline::clock;
use trunkline::config::{Kind, environment_name};
use trunkline::model::decision::{DecisionId, Loop};
use trunkline::topics::OUTCOMES;

use crate::support::kafka::{self, produce};
use crate::support::postgres::TestDatabase;
use crate::support::process::Process;
use crate::support::receiver::{self, Manner, Receiver};
use crate::support::simulated::{self, CAMPAIGN, Organization};
use crate::support::within;

const PATIENCE: Duration = Duration::from_secs(120);
/// What is looked for, in capitals or not, and as base64 has it.
const CANARY: &str = "canary-4f1c2d-canary-4f1c2d";

/// Part of an instance's environment.
type Pairs = Vec<(&'static str, String)>;

/// An instance that listens on a port of its own.
struct Instance {
    process: Process,
    url: String,
    http: reqwest::Client,
}

impl Instance {
    fn start(name: &str, pairs: Pairs) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let sha256: String = Sha256::digest(CANARY).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut environment: Vec<_> =
            pairs.into_iter().map(|(name, value)| (format!("TRUNKLINE_{name}"), value)).collect();
        environment.extend([
            ("RUST_LOG".to_owned(), "trace".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned()),
            ("OTEL_EXPORTER_OTLP_HEADERS".to_owned(), format!("authorization=Bearer%20{CANARY}")),
            ("TRUNKLINE_INSTANCE__NAME".to_owned(), name.to_owned()),
            ("TRUNKLINE_HTTP__LISTEN".to_owned(), address.to_string()),
            (
                "TRUNKLINE_HTTP__API_KEYS".to_owned(),
                format!("[{{ name = \"ops\", role = \"operate\", sha256 = \"{sha256}\" }}]"),
            ),
        ]);
        let process = Process::start(name, &["run"], &environment);
        Self { process, url: format!("http://{address}"), http: reqwest::Client::new() }
    }

    async fn get(&self, path: &str) -> Option<String> {
        let reply = self.http.get(format!("{}{path}", self.url)).bearer_auth(CANARY).send().await.ok()?;
        reply.text().await.ok()
    }

    /// Waits until the log says all of this, then ends; answers everything that was said.
    async fn said(mut self, marks: &[&str]) -> String {
        within(PATIENCE, "everything to have been said", async || {
            let log = self.process.log();
            marks.iter().all(|mark| log.contains(mark)).then_some(())
        })
        .await;
        let mut said = String::new();
        for path in ["/metrics", "/readyz", "/v1/decisions", "/v1/decisions?limit=x", "/v1/settings/x"] {
            // Its log may be ahead of its listening.
            said += &within(PATIENCE, path, async || self.get(path).await).await;
        }
        self.process.signal(Signal::TERM);
        self.process.wait(PATIENCE);
        said + &self.process.log()
    }
}

fn assert_holds_no_secret(said: &str, secrets: &[&str]) {
    for line in said.lines() {
        for secret in secrets {
            assert!(!line.contains(secret), "{}", &line[..line.floor_char_boundary(2_000)]);
        }
    }
}

fn pairs(pairs: &[(&'static str, &str)]) -> Pairs {
    pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_run_says_holds_a_secret_while_everything_refuses_it() {
    let organization = Organization::start(simulated::settings()).await;
    let signing = format!("whsec_{}", STANDARD.encode(CANARY));
    let hook = format!(
        r#"[{{ name = "ops", url = "http://127.0.0.1:1/{CANARY}?token={CANARY}", secrets = ["{signing}"] }}]"#
    );
    let cluster = format!(
        r#"[{{ name = "other", brokers = "127.0.0.1:1", properties = {{ "security.protocol" = "sasl_plaintext", "sasl.mechanisms" = "PLAIN", "sasl.username" = "me", "sasl.password" = "{CANARY}" }} }}]"#
    );
    let mut given = pairs(&[
        ("KAFKA__BROKERS", "127.0.0.1:1"),
        ("KAFKA__TOPIC_PREFIX", "secrets-"),
        ("KAFKA__DEBUG", "all"),
        ("KAFKA__SECURITY_PROTOCOL", "sasl_ssl"),
        ("KAFKA__SASL_MECHANISMS", "PLAIN"),
        ("KAFKA__SASL_USERNAME", "me"),
        ("KAFKA__SASL_PASSWORD", CANARY),
        ("KAFKA__SSL_KEY_PASSWORD", CANARY),
        ("POSTGRES__URL", &format!("postgres://me:{CANARY}@127.0.0.1:1/db")),
        ("GENESYS__BASE_URL", &organization.running.api_url()),
        ("GENESYS__CLIENT_ID", DEMO_CLIENT_ID),
        ("GENESYS__CLIENT_SECRET", CANARY),
        ("DIAL__CAMPAIGNS", CAMPAIGN),
        ("INFLUX__URL", "http://127.0.0.1:1"),
        ("INFLUX__ORG", "o"),
        ("INFLUX__BUCKET", "b"),
        ("INFLUX__TOKEN", CANARY),
        ("LAG__CLUSTERS", &cluster),
        ("ALERTS__WEBHOOKS", &hook),
        ("ALERTS__PRIVATE_RECEIVERS", "allow"),
    ]);
    // And every key that is a secret by its declaration, those of tomorrow among them.
    let secrets = trunkline::config::KEYS.iter().filter(|key| matches!(key.kind, Kind::Secret));
    let names = secrets.map(|key| environment_name(key.name).trim_start_matches("TRUNKLINE_").to_owned());
    let more: Vec<String> = names.filter(|name| given.iter().all(|(known, _)| known != name)).collect();
    given.extend(more.into_iter().map(|name| (&*name.leak(), CANARY.to_owned())));
    let instance = Instance::start("refused", given);
    let said = instance.said(&["no new access token", "127.0.0.1:1", "librdkafka", "hyper_util"]).await;
    assert!(said.contains("connection refused"), "Postgres is told as it is");
    let basic = STANDARD.encode(format!("{DEMO_CLIENT_ID}:{CANARY}"));
    assert_holds_no_secret(&said, &["canary-4f1c2d", &basic, signing.trim_start_matches("whsec_")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_run_says_holds_a_secret_while_everything_takes_it() {
    let organization = Organization::start(simulated::settings()).await;
    let kafka = kafka::settings();
    let (own, database) = TestDatabase::migrated().await;
    let gone = Receiver::start(Manner::IsGone).await;
    let hook = format!(
        r#"[{{ name = "ops", url = "{}", secrets = ["{}", "{}"] }}]"#,
        gone.url,
        receiver::SECRET,
        receiver::OTHER_SECRET
    );
    // The server trusts everybody, whatever password they bring.
    let postgres = own.url().replacen('@', &format!(":{CANARY}@"), 1);
    assert!(postgres.contains(CANARY), "{postgres}");
    let given = pairs(&[
        ("KAFKA__BROKERS", &kafka.brokers),
        ("KAFKA__TOPIC_PREFIX", &kafka.topic_prefix),
        ("KAFKA__DEBUG", "conf,security"),
        ("KAFKA__SASL_PASSWORD", CANARY),
        ("POSTGRES__URL", &postgres),
        ("GENESYS__BASE_URL", &organization.running.api_url()),
        ("GENESYS__CLIENT_ID", DEMO_CLIENT_ID),
        ("GENESYS__CLIENT_SECRET", DEMO_CLIENT_SECRET),
        ("DIAL__CAMPAIGNS", CAMPAIGN),
        ("DIAL__INTERVAL", "1s"),
        ("LAG__MODE", "off"),
        ("ALERTS__WEBHOOKS", &hook),
        ("ALERTS__PRIVATE_RECEIVERS", "allow"),
    ]);
    let environment: Vec<_> =
        given.iter().map(|(name, value)| (format!("TRUNKLINE_{name}"), value.clone())).collect();
    let mut apply = Process::start("topics", &["topics", "apply"], &environment);
    assert!(apply.wait(PATIENCE).success(), "{}", apply.log());
    assert_holds_no_secret(&apply.log(), &["canary-4f1c2d"]);
    let instance = Instance::start("taken", given);
    let at = clock::now();
    let failed = json!({
        "decisionId": DecisionId::derive(Loop::Dial, "c", 1, at), "loop": "dial", "key": "c",
        "sequence": 1, "status": "failed", "reason": "refused", "attempts": 1, "finishedAt": at
    });
    produce(&kafka, &OUTCOMES, None, &[("c", failed.to_string().as_bytes())]).await;
    let said = instance.said(&["is switched off", "trunkline alerts enable ops", "sasl.password"]).await;
    let token = receiver::CANARY;
    let keys = [receiver::SECRET, receiver::OTHER_SECRET].map(|secret| secret.trim_start_matches("whsec_"));
    let basic = STANDARD.encode(format!("{DEMO_CLIENT_ID}:{DEMO_CLIENT_SECRET}"));
    assert_holds_no_secret(&said, &["canary-4f1c2d", token, keys[0], keys[1], DEMO_CLIENT_SECRET, &basic]);
    let kept = format!("{:?}", database.receivers().await.unwrap());
    assert_holds_no_secret(&kept, &[token]);
    drop(own);
}
