//! What is played before settings are changed at run time, and what is refused: on the command line, over HTTP and in
//! the console alike.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use trunkline::model::Timestamp;
use trunkline::postgres::Database;

use super::{Environment, environment, fill, recording, run};
use crate::support::postgres::TestDatabase;
use crate::support::process::Process;
use crate::support::{kafka, until};

/// The same value with all its times so much later.
fn later(value: &Value, by: Duration) -> Value {
    match value {
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(at) => json!(at.plus(by)),
            Err(_) => value.clone(),
        },
        Value::Array(items) => items.iter().map(|item| later(item, by)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), later(field, by)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Campaigns with a record of the last minutes, under the demo's numbers.
struct Dialled {
    own: TestDatabase,
    database: Database,
    /// One that dials with care, and would lose many answers at its greatest rate.
    campaign: String,
    /// Without `require_replay`.
    loose: Environment,
    strict: Environment,
}

async fn dialled() -> Dialled {
    let (own, database) = TestDatabase::migrated().await;
    let recording = recording();
    let now = Timestamp::from_millis(time_now());
    let by = Duration::from_millis(now.millis_since(recording.header.to).unsigned_abs());
    let is_dial = |decision: &&Value| decision["loop"] == "dial";
    let decisions: Vec<Value> =
        recording.decisions.iter().filter(is_dial).map(|decision| later(decision, by)).collect();
    fill(&database, &recording, &decisions).await;
    let campaign = careful_campaign(&decisions);
    let numbers = recording.header.numbers.last().unwrap();
    let window = (60_000.0 / numbers.dial.pacing.time_scale).round();
    let (window, tick) = (format!("{window}ms"), format!("{}ms", numbers.dial_tick_ms));
    let watched = format!("{campaign},never-dialled");
    let pairs = |required| {
        let pairs = [
            ("GENESYS__BUDGET_WINDOW", window.as_str()),
            ("DIAL__INTERVAL", tick.as_str()),
            ("DIAL__CAMPAIGNS", watched.as_str()),
        ];
        environment(&own, &[&pairs[..], &[("SETTINGS__REQUIRE_REPLAY", required)]].concat())
    };
    let (loose, strict) = (pairs("no"), pairs("yes"));
    Dialled { own, database, campaign, loose, strict }
}

fn time_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The campaign that would answer most calls per idle agent at its greatest rate, of those that abandon little now.
fn careful_campaign(decisions: &[Value]) -> String {
    let keys: BTreeSet<&str> = decisions.iter().map(|decision| decision["key"].as_str().unwrap()).collect();
    let answers_per_agent = |key: &str| {
        let of =
            || decisions.iter().filter(|decision| decision["key"] == key).map(|decision| &decision["inputs"]);
        let sum = |name: &str| of().filter_map(|inputs| inputs[name].as_f64()).sum::<f64>();
        let (attempts, answers, abandoned) = (sum("attempted"), sum("answered"), sum("abandoned"));
        let greatest = of().next().unwrap()["maxDialRate"].as_f64().unwrap();
        if abandoned > 0.02 * answers { 0.0 } else { greatest * answers / attempts }
    };
    let most =
        keys.into_iter().max_by(|one, other| answers_per_agent(one).total_cmp(&answers_per_agent(other)));
    let most = most.unwrap();
    assert!(answers_per_agent(most) > 1.5, "{most} would abandon nobody");
    most.to_owned()
}

/// Dials as fast as the campaign may.
const RECKLESS: &str = r#"{"policy": "proportional", "target": 0.99}"#;
const CAREFUL: &str = r#"{"goal": 0.001}"#;

async fn set(database: &Database, scope: &str) -> Option<Value> {
    database.setting(scope).await.unwrap().map(|setting| setting.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_breaks_a_cap_is_refused_on_the_command_line() {
    let Dialled { database, campaign, loose, strict, own: _own } = dialled().await;
    let scope = format!("dial/{campaign}");
    let (code, _, log) = run(&["settings", "set", &scope, RECKLESS], &strict);
    assert_eq!((code, set(&database, &scope).await), (1, None), "{log}");
    for told in
        [&*campaign, "under what is in force", "its cap is 3 %", "trunkline recommend dial --campaign"]
    {
        assert!(log.contains(told), "{told:?} is not in {log}");
    }
    // A change does not raise the cap that it is judged by.
    let raised = r#"{"policy": "proportional", "target": 0.99, "cap": 0.5}"#;
    let (code, _, log) = run(&["settings", "set", &scope, raised], &strict);
    assert!(code == 1 && log.contains("its cap is 3 %"), "{log}");
    // Of all campaigns that are watched one has no record: nobody knows what it would come to.
    let (code, _, log) = run(&["settings", "set", "dial", CAREFUL], &strict);
    assert!(code == 1 && log.contains("never-dialled is watched, and no decision"), "{log}");
    assert!(log.contains("settings.require_replay = \"no\""), "{log}");
    assert!(database.settings_history(None, 1).await.unwrap().is_empty());

    let (code, said, log) = run(&["settings", "set", &scope, CAREFUL], &strict);
    assert_eq!((code, said.trim()), (0, "revision 1"), "{log}");
    // Nobody watches it: there is nothing to judge.
    assert_eq!(run(&["settings", "set", "dial/elsewhere", RECKLESS], &strict).0, 0);
    // What decides beside the rule breaks nothing.
    assert_eq!(run(&["settings", "set", "dial", r#"{"shadowPolicy": "proportional"}"#], &strict).0, 0);
    assert_eq!(run(&["pause", "dial", "--reason", "a pause is never judged"], &strict).0, 0);

    // Taking a change back is a change: what was let through before is not let through again.
    assert_eq!(run(&["settings", "set", &scope, RECKLESS], &loose).0, 0);
    assert_eq!(run(&["settings", "set", &scope, CAREFUL], &strict).0, 0, "less is abandoned");
    let (code, _, log) = run(&["settings", "undo", &scope], &strict);
    assert!(code == 1 && log.contains("its cap is 3 %"), "{log}");
    assert_eq!(set(&database, &scope).await, Some(serde_json::from_str(CAREFUL).unwrap()));

    // A dry run tells and changes nothing, whatever is required.
    let newest = database.settings_history(None, 1).await.unwrap();
    let (code, said, log) = run(&["settings", "set", &scope, RECKLESS, "--dry-run", "--json"], &strict);
    let played: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said} {log}"));
    assert!(code == 0 && played["complete"] == true, "{said}");
    assert!(played["different"].as_u64() > Some(0), "{said}");
    assert_eq!(
        Some(played["items"].as_array().unwrap().len() as u64),
        played["different"].as_u64().map(|different| different.min(20)),
        "{said}"
    );
    let counted = played["actions"].as_array().unwrap().iter().filter_map(|pair| pair["decisions"].as_u64());
    assert_eq!(Some(counted.sum::<u64>()), played["decisions"].as_u64());
    assert_eq!(database.settings_history(None, 1).await.unwrap(), newest);
}

/// A console that requires replays, as its own process, and where it is.
async fn console(dialled: &Dialled) -> (Process, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (kafka, listen) = (kafka::settings(), format!("127.0.0.1:{port}"));
    let more = [
        ("KAFKA__BROKERS", kafka.brokers.as_str()),
        ("KAFKA__TOPIC_PREFIX", kafka.topic_prefix.as_str()),
        ("GENESYS__BASE_URL", "http://127.0.0.1:1"),
        ("GENESYS__CLIENT_ID", "nobody"),
        ("GENESYS__CLIENT_SECRET", "nothing"),
        ("HTTP__LISTEN", listen.as_str()),
    ];
    let environment = [dialled.strict.clone(), environment(&dialled.own, &more)].concat();
    let process = Process::start("console", &["run", "--stages", "console"], &environment);
    let url = format!("http://{listen}");
    until("the console to answer", async || reqwest::get(format!("{url}/healthz")).await.ok()).await;
    (process, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_it_is_refused_alike() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dialled = dialled().await;
    let (_process, url) = console(&dialled).await;
    let (campaign, database) = (&dialled.campaign, &dialled.database);
    let scope = format!("dial/{campaign}");
    let client = reqwest::Client::new();
    let send = async |method: reqwest::Method, path: &str, value: &str| -> (StatusCode, Value) {
        let asked = client.request(method, format!("{url}/v1/settings/{path}"));
        let answer =
            asked.header("content-type", "application/json").body(value.to_owned()).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    };
    let at = format!("dial%2F{campaign}");
    let (status, problem) = send(reqwest::Method::PUT, &at, RECKLESS).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("urn:trunkline:problem:breaks-cap"))
    );
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&**campaign) && detail.contains("its cap is 3 %"), "{problem}");
    let (status, problem) = send(reqwest::Method::PUT, "dial%2Fnever-dialled", CAREFUL).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::CONFLICT, &json!("urn:trunkline:problem:not-reviewed"))
    );

    let (status, played) = send(reqwest::Method::POST, &format!("{at}/dry-run"), RECKLESS).await;
    assert_eq!(status, StatusCode::OK, "{played}");
    assert!(played["different"].as_u64() > Some(0) && played["items"][0]["key"] == **campaign, "{played}");
    let (status, problem) = send(reqwest::Method::POST, "pause%2Fdial/dry-run", "null").await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::BAD_REQUEST, &json!("urn:trunkline:problem:bad-body"))
    );
    assert_eq!(set(database, &scope).await, None, "nothing was changed so far");

    let (status, setting) = send(reqwest::Method::PUT, &at, CAREFUL).await;
    assert_eq!((status, &setting["revision"]), (StatusCode::OK, &json!(1)), "{setting}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_shows_what_it_would_have_come_to_and_refuses_the_last_word() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dialled = dialled().await;
    let (_process, url) = console(&dialled).await;
    let campaign = &dialled.campaign;
    let client = reqwest::Client::new();
    let page = client.get(format!("{url}/settings")).send().await.unwrap().text().await.unwrap();
    let token = page.split_once("name=\"csrf\" value=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let form = async |more: &[(&str, &str)]| -> (StatusCode, String) {
        let fields = [
            ("campaign", campaign.as_str()),
            ("policy", "proportional"),
            ("target", "0.99"),
            ("csrf", token.as_str()),
        ];
        let sent = client.post(format!("{url}/settings/dial")).form(&[&fields[..], more].concat());
        let answer = sent.header("accept", "text/html").send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let (status, page) = form(&[]).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert!(
        page.contains("decisions would have been others") && page.contains("The first differences"),
        "{page}"
    );
    let (status, page) = form(&[("before", "null"), ("confirmed", "yes")]).await;
    assert!(status == StatusCode::CONFLICT && page.contains("its cap is 3 %"), "{status} {page}");
    assert_eq!(set(&dialled.database, &format!("dial/{campaign}")).await, None);
}
