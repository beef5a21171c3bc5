//! No key that takes a secret shows it.

use super::{MINIMUM, shows_canary, told};
use crate::config::keys;
use crate::config::kind::Kind;

/// A value with the canary in each place of a secret; none for what is shown as it is. Whoever
/// adds a kind says here what of it is secret, and every key of it is covered.
fn secrets(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Secret => &["\"canary\"", "[\"canary\"]", "{ inner = \"canary\" }", "7.5e1canary"],
        Kind::PostgresUrl => {
            &["\"postgres://me:canary@h/d\"", "\"mysql://me:canary@h/d\"", "\"me:canary@h\""]
        }
        Kind::Url(_) => &["\"https://me:canary@h\"", "\"https://h/?token=canary\"", "\"me:canary@h\""],
        Kind::Brokers => &["\"SASL_SSL://me:canary@h:1\"", "\"me:canary@h:1\""],
        Kind::ApiKeys => &[
            "[{ name = \"a\", role = \"read\", sha256 = \"canary\" }]",
            "[{ name = \"a\", role = \"read\", key = \"canary\" }]",
            "[{ name = \"a\", rule = \"canary\" }]",
        ],
        Kind::Webhooks => &[
            "[{ name = \"a\", url = \"https://h/canary?token=canary\", secrets = [\"whsec_canary\"] }]",
            "[{ name = \"a\", url = \"https://h\", secret = \"canary\" }]",
            "[{ name = \"a\", url = \"ftp://me:canary@h/canary\", secrets = [\"canary\"] }]",
        ],
        Kind::Clusters => &[
            "[{ name = \"a\", brokers = \"h:1\", properties = { \"sasl.password\" = \"canary\" } }]",
            "[{ name = \"a\", brokers = \"h:1\", properties = { \"sasl.passwort\" = \"canary\" } }]",
            "[{ name = \"a\", brokers = \"me:canary@h\", password = \"canary\" }]",
        ],
        Kind::Organizations => &[
            "[{ name = \"a\", base_url = \"http://h\", client_id = \"i\", client_secret = \"canary\", x = 1 }]",
            "[{ name = \"a\", base_url = \"http://me:canary@h\", client_id = \"i\", client_secret_file = \"canary\" }]",
            "[{ name = \"canary!\", client_secrets = \"canary\" }]",
        ],
        Kind::Text
        | Kind::OneOf(_)
        | Kind::Integer { .. }
        | Kind::Number { .. }
        | Kind::Duration { .. }
        | Kind::Address
        | Kind::List
        | Kind::Campaigns
        | Kind::TimeZone => &[],
    }
}

#[test]
fn no_key_that_may_hold_a_secret_shows_it_right_or_wrong_or_misspelt() {
    let mut covered = Vec::new();
    for key in keys::KEYS {
        for value in secrets(key.kind) {
            covered.push(key.name);
            let name = key.name;
            for file in [
                format!("{name} = {value}"),
                format!("{name}x = {value}"),
                format!("{}x{} = {value}", &name[..1], &name[1..]),
                format!("{name} = {value} oops"),
                format!("{name} = {value}\n{name} = {value}"),
            ] {
                for environment in [&[][..], MINIMUM] {
                    let told = told(&file, environment);
                    assert!(!shows_canary(&told), "{file}: {told}");
                }
            }
            let bare = value.trim_matches('"');
            let variable = crate::config::environment_name(name);
            for variable in [variable.clone(), format!("{variable}X"), variable.replacen("__", "_", 1)] {
                let told = told("", &[(&variable, bare)]);
                assert!(!shows_canary(&told), "{variable} = {bare}: {told}");
            }
        }
    }
    // Those there were when this was written.
    for known in [
        "postgres.url",
        "http.api_keys",
        "genesys.client_secret",
        "genesys.organizations",
        "lag.clusters",
        "alerts.webhooks",
        "compliance.signing_key",
        "influx.token",
    ] {
        assert!(covered.contains(&known), "{known}");
    }
}
