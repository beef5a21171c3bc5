//! Configurations, right and wrong, as they are read.

#[path = "load_tests/organizations.rs"]
mod organizations;
#[path = "load_tests/secrets.rs"]
mod secrets;

use std::io::Write;

use super::*;
use crate::model::decision::Mode;

const MINIMUM: &[(&str, &str)] = &[
    ("TRUNKLINE_POSTGRES__URL", "postgres://u:canary-password@localhost/db"),
    ("TRUNKLINE_GENESYS__BASE_URL", "http://127.0.0.1:1"),
    ("TRUNKLINE_GENESYS__CLIENT_ID", "id"),
    ("TRUNKLINE_GENESYS__CLIENT_SECRET", "canary-secret"),
];

fn source(file: &str, environment: &[(&str, &str)]) -> (Source, tempfile::NamedTempFile) {
    let mut written = tempfile::NamedTempFile::new().unwrap();
    written.write_all(file.as_bytes()).unwrap();
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    (Source { file: Some(written.path().to_owned()), environment }, written)
}

#[test]
fn the_example_is_a_configuration_once_the_required_is_given() {
    let (source, _file) = source(&Config::example(), MINIMUM);
    let config = load(&source, Needs::Everything).unwrap();
    assert_eq!(config.dial.mode, Some(Mode::Shadow));
    assert_eq!(config.dial.interval.as_secs(), 30);
    assert_eq!(config.genesys.requests_per_minute, 300);
}

#[test]
fn every_problem_is_told_at_once_with_key_value_and_what_is_allowed() {
    let file = r#"
        [dial]
        mode = "on"
        intervall = "30s"
        target = 1.5
        campaigns = ["a", "a"]
        [kafka]
        brokers = "nowhere"
        group.id = "mine"
        security.protocol = "sideways"
        [http]
        listen = "0.0.0.0:8080"
        [influx]
        url = "http://127.0.0.1:8086"
    "#;
    let (source, _file) = source(file, &[("TRUNKLINE_DIAL__INTERVAL", "1 fortnight")]);
    let problems = load(&source, Needs::Everything).unwrap_err();
    let mut keys: Vec<_> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "dial.campaigns",
            "dial.interval",
            "dial.intervall",
            "dial.mode",
            "dial.target",
            "genesys.base_url",
            "genesys.client_id",
            "genesys.client_secret",
            "http.listen",
            "influx.bucket",
            "influx.org",
            "influx.token",
            "kafka.brokers",
            "kafka.group.id",
            "kafka.security.protocol",
            "postgres.url",
        ]
    );
    let told = problems.to_string();
    for part in
        ["did you mean dial.interval?", "\"on\"", "one of shadow, live, off", "from 0.01 to 1", "1 fortnight"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
}

#[test]
fn the_environment_wins_and_secrets_come_from_files() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"from-a-file\n").unwrap();
    let path = secret.path().to_str().unwrap();
    let mut environment: Vec<_> = MINIMUM[..3].to_vec();
    environment.extend([
        ("TRUNKLINE_GENESYS__CLIENT_SECRET_FILE", path),
        ("TRUNKLINE_DIAL__CAMPAIGNS", "a, b"),
        ("TRUNKLINE_KAFKA__SECURITY_PROTOCOL", "ssl"),
    ]);
    let (source, _file) = source("[dial]\ncampaigns = [\"x\"]\n", &environment);
    let config = load(&source, Needs::Everything).unwrap();
    assert_eq!(config.dial.campaigns, ["a", "b"]);
    assert!(config.kafka_properties.contains_key("security.protocol"));
    assert_eq!(config.genesys.client_secret.expose_secret(), "from-a-file");
}

#[test]
fn a_command_needs_only_what_it_works_with() {
    let (source, _file) = source("[dial]\nmode = \"on\"\n", &MINIMUM[..1]);
    let keys = |needs| -> Vec<String> {
        load(&source, needs).unwrap_err().0.into_iter().map(|problem| problem.key).collect()
    };
    assert_eq!(keys(Needs::Postgres), ["dial.mode"]);
    assert_eq!(keys(Needs::Kafka), ["dial.mode"]);
    assert_eq!(keys(Needs::Everything).len(), 4);
}

#[test]
fn no_secret_is_ever_printed() {
    let (source, _file) = source("kafka.ssl.key.password = \"canary-key\"\n", MINIMUM);
    let config = load(&source, Needs::Everything).unwrap();
    let everything = format!("{config:?}");
    assert!(!everything.contains("canary"), "{everything}");
}

/// A secret in every place that holds one. No part of it that is long enough to be told from
/// chance may stand in a message: see [`shows_canary`].
const CANARIES: &str = r#"
[kafka]
sasl.password = "canary-CANARY-canary"
ssl.key.pem = "canary-CANARY-canary"
[postgres]
url = "postgres://trunkline:canary-CANARY-canary@localhost/db"
[genesys]
client_secret = "canary-CANARY-canary"
[influx]
token = "canary-CANARY-canary"
[http]
api_keys = [{ name = "a", role = "read", sha256 = "canary-CANARY-canary" }]
[alerts]
webhooks = [{ name = "ops", url = "https://x.example/canary-CANARY-canary", secrets = ["whsec_canary-CANARY-canary"] }]
[[lag.clusters]]
name = "other"
brokers = "127.0.0.1:9092"
properties = { "sasl.password" = "canary-CANARY-canary", "ssl.key.password" = "canary-CANARY-canary" }
"#;

fn shows_canary(told: &str) -> bool {
    ["anary", "CANA", "NARY"].iter().any(|part| told.contains(part))
}

fn told(file: &str, environment: &[(&str, &str)]) -> String {
    let (source, _file) = source(file, environment);
    load(&source, Needs::Everything)
        .map_or_else(|problems| problems.to_string(), |config| format!("{config:?}"))
}

#[test]
fn one_wrong_character_anywhere_shows_no_secret() {
    for at in 0..CANARIES.len() {
        for wrong in
            ["", "\"", "'", "\\", "[", "]", "{", "}", "=", "#", ".", ",", "\n", " ", "@", "/", "\u{e9}"]
        {
            let file =
                format!("{}{wrong}{}", &CANARIES[..at], &CANARIES[at + usize::from(wrong.is_empty())..]);
            let told = told(&file, &[]);
            assert!(!shows_canary(&told), "{wrong:?} at {at}: {told}");
        }
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    let files = [
        "kafka.sasl.passwort = \"canary\"",
        "kafka.sasl.username.password = \"canary\"",
        "kafka.security.protocol = \"canary\"",
        "kafka.brokers = \"SASL_SSL://me:canary@broker:9092\"",
        "genesys.client_secret = canary",
        "genesys.client_secret = [\"canary\"]",
        "genesys.client_id = [\"canary\"]",
        "genesys.clientsecret = \"canary\"",
        "genesys.base_url = \"https://me:canary@api.example\"",
        "genesys.base_url = \"https://:canary@api.example\"",
        "genesys.login_url = \"https://login.example?token=canary\"",
        "influx.url = \"http://me:canary@influx.example:8086\"",
        "influx.url = \"me:canary@influx.example:8086\"",
        "postgres.url = \"mysql://me:canary@localhost/db\"",
        "postgres.url = \"postgres://me:12/canary@localhost/db\"",
        "postgres.url = \"postgres://me:12?canary=@localhost/db\"",
        "postgres.url = \"postgres://me:12#canary@localhost/db\"",
        "http.api_keys = [{ name = \"a\", role = \"canary\", key = \"canary\" }]",
        "http.api_keys = [\"canary\"]",
        "http.api_keys = \"canary\"",
        "alerts.webhooks = \"https://x.example/canary\"",
        "alerts.webhooks = [{ name = \"a\", url = \"https://:canary@x.example\", secret = \"canary\" }]",
        "lag.clusters = [{ name = \"a\", brokers = \"me:canary@b\", properties = { \"sasl.passwort\" = \"canary\" } }]",
        "lag.clusters = [{ name = \"a\", brokers = \"b:1\", \"sasl.password\" = \"canary\" }]",
    ];
    for file in files {
        let (source, _file) = source(file, &MINIMUM[..0]);
        let problems = load(&source, Needs::Kafka).expect_err(file);
        assert!(!shows_canary(&problems.to_string()), "{file}: {problems}");
        let section = file.split(['.', ' ']).next().unwrap();
        let located = problems.0.iter().any(|problem| {
            problem.key.starts_with(section) || problem.allowed.starts_with("TOML: line 1, column")
        });
        assert!(located, "{file}: {problems}");
    }
    for variable in
        ["TRUNKLINE_KAFKA__SASL_PASSWORT", "TRUNKLINE_GENESYS__CLIENTSECRET", "TRUNKLINE_POSTGRES__URL"]
    {
        assert!(!shows_canary(&told("", &[(variable, "canary")])), "{variable}");
        let named = told("", &[(&format!("{variable}_FILE"), "canary")]);
        assert!(!shows_canary(&named), "{named}");
    }
}

#[test]
fn what_is_wrong_in_a_list_is_told_with_its_place() {
    let file = r#"
        http.api_keys = [{ name = "a", role = "read", sha256 = "00" }, { name = "b", role = "king", sha256 = "00" }]
        [[lag.clusters]]
        name = "other"
        brokers = "nowhere"
        properties.sasl.passwort = "x"
    "#;
    let (source, _file) = source(file, MINIMUM);
    let problems = load(&source, Needs::Everything).unwrap_err();
    let keys: Vec<_> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "http.api_keys[1].sha256",
            "http.api_keys[2].role",
            "http.api_keys[2].sha256",
            "lag.clusters[1].brokers",
            "lag.clusters[1].properties.sasl.passwort"
        ]
    );
    assert!(problems.to_string().contains("did you mean sasl.password?"), "{problems}");
}

#[test]
fn every_key_comes_from_a_file_and_never_from_two_places_of_the_environment() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"from-a-file\n").unwrap();
    let path = secret.path().to_str().unwrap();
    let mut environment = MINIMUM.to_vec();
    environment.extend([
        ("TRUNKLINE_KAFKA__SASL_PASSWORD_FILE", path),
        ("TRUNKLINE_GENESYS__REGION_FILE", path),
        ("TRUNKLINE_KAFKA__DEBUG", "broker"),
    ]);
    let (given, _file) = source("", &environment);
    let config = load(&given, Needs::Everything).unwrap();
    assert_eq!(config.kafka_properties["sasl.password"].expose_secret(), "from-a-file");
    assert_eq!(config.genesys.region.as_deref(), Some("from-a-file"));
    assert_eq!(config.kafka_properties["debug"].expose_secret(), "broker");

    environment
        .extend([("TRUNKLINE_KAFKA__SASL_PASSWORD", "x"), ("TRUNKLINE_GENESYS__CLIENT_SECRET_FILE", path)]);
    let (given, _file) = source("", &environment);
    let problems = load(&given, Needs::Everything).unwrap_err();
    let keys: Vec<_> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["genesys.client_secret", "kafka.sasl.password"], "{problems}");
    assert!(problems.to_string().contains("TRUNKLINE_KAFKA__SASL_PASSWORD_FILE"), "{problems}");
}

#[test]
fn the_file_takes_every_property_that_the_environment_takes() {
    let (source, _file) =
        source("[kafka]\ndebug = \"broker\"\nretries = 7\nssl.ca.location = \"/ca\"\n", MINIMUM);
    let config = load(&source, Needs::Everything).unwrap();
    let names: Vec<_> = config.kafka_properties.keys().map(String::as_str).collect();
    assert_eq!(names, ["debug", "retries", "ssl.ca.location"]);
}

#[test]
fn postgres_urls_are_taken_as_long_as_every_part_is_where_it_belongs() {
    let with = |url: &str| {
        let file = format!("postgres.url = {url:?}");
        let (source, _file) = source(&file, &MINIMUM[1..]);
        load(&source, Needs::Everything).is_ok()
    };
    for good in [
        "postgres://trunkline@127.0.0.1:5432/trunkline",
        "postgresql://u:p%40ss%2Fword@db.example/trunkline?sslmode=verify-full&sslrootcert=/ca.pem",
        "postgres://u:p@ss@db.example/db",
        "postgres://%2Fvar%2Frun%2Fpostgresql/db",
        "postgres:///db?host=/var/run/postgresql",
    ] {
        assert!(with(good), "{good}");
    }
    for wrong in ["postgres://u:1/2@h/db", "postgres://u:1?2@h/db", "postgres://u:1#2@h/db", "host=h user=u"]
    {
        assert!(!with(wrong), "{wrong}");
    }
}

const PLATFORM: &[(&str, &str)] = &[
    ("TRUNKLINE_POSTGRES__URL", "postgres://u@h/d"),
    ("TRUNKLINE_GENESYS__DIALECT", "platform"),
    ("TRUNKLINE_GENESYS__CLIENT_ID", "id"),
    ("TRUNKLINE_GENESYS__CLIENT_SECRET", "secret"),
];

fn on_the_platform(more: &[(&str, &str)]) -> Result<Config, Problems> {
    let mut environment = PLATFORM.to_vec();
    environment.extend(more);
    let (given, _file) = source("", &environment);
    load(&given, Needs::Everything)
}

#[test]
fn a_region_says_where_the_platform_is_and_where_its_tokens_come_from() {
    let hosts = |more: &[(&str, &str)]| {
        let genesys = on_the_platform(more).unwrap().genesys;
        (genesys.base_url, genesys.login_url.unwrap())
    };
    let pair = |base: &str, login: &str| (base.to_owned(), login.to_owned());
    const REGION: &str = "TRUNKLINE_GENESYS__REGION";
    const BASE: &str = "TRUNKLINE_GENESYS__BASE_URL";
    let ireland = pair("https://api.mypurecloud.ie", "https://login.mypurecloud.ie");
    assert_eq!(hosts(&[(REGION, "eu_west_1")]), ireland);
    assert_eq!(hosts(&[(BASE, "https://api.mypurecloud.ie")]), ireland);
    assert_eq!(hosts(&[(REGION, "eu-west-1"), (BASE, "https://api.mypurecloud.ie")]), ireland, "they agree");
    let gateway = "http://127.0.0.1:8089";
    assert_eq!(hosts(&[(REGION, "eu_west_1"), (BASE, gateway)]), pair(gateway, gateway), "the URL wins");
    let login = ("TRUNKLINE_GENESYS__LOGIN_URL", "https://login.example");
    assert_eq!(hosts(&[(REGION, "eu_west_1"), login]).1, "https://login.example");

    let problem = |more: &[(&str, &str)]| on_the_platform(more).unwrap_err().to_string();
    let contradiction = problem(&[(REGION, "us_east_1"), (BASE, "https://api.mypurecloud.ie")]);
    assert!(
        contradiction.contains("genesys.region") && contradiction.contains("eu_west_1"),
        "{contradiction}"
    );
    assert!(problem(&[(REGION, "europe")]).contains("eu_central_1"));
    assert!(problem(&[]).contains("genesys.base_url"));
}

#[test]
fn what_the_platform_cannot_do_is_said_before_it_is_tried() {
    let base = ("TRUNKLINE_GENESYS__BASE_URL", "http://127.0.0.1:1");
    let problems = on_the_platform(&[
        base,
        ("TRUNKLINE_LAG__ANALYTICS_GROUPS", "crm-sync"),
        ("TRUNKLINE_ROUTE__PLATFORM_PUBLISH", "yes"),
        ("TRUNKLINE_DIAL__MIN_RATE", "3"),
        ("TRUNKLINE_DIAL__MAX_RATE", "2"),
    ]);
    let problems = problems.unwrap_err();
    let keys: Vec<_> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["lag.analytics_groups", "route.platform_publish", "dial.min_rate"], "{problems}");
    let config = on_the_platform(&[base]).unwrap();
    assert_eq!(config.rollback.settling, Duration::from_secs(180), "analytics take minutes");
}
