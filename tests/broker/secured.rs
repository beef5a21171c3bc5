//! Brokers and a database that speak TLS and ask who comes: `trunkline check` gets in with what is right, and what is wrong
//! has a message of its own.

use std::process::Command;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::support::certificates::Certificates;
use super::support::services::Services;
use super::support::within;

/// Where and as whom a program goes.
#[derive(Clone)]
struct Way {
    broker: String,
    protocol: &'static str,
    password: &'static str,
    authority: String,
}

/// What `trunkline check` says of the brokers; `None` where all is well.
fn problem(way: &Way) -> Option<String> {
    let unreached = "http://127.0.0.1:1";
    let checked = Command::new(env!("CARGO_BIN_EXE_trunkline"))
        .args(["check", "--json", "--config", "/dev/null"])
        .envs([
            ("TRUNKLINE_KAFKA__BROKERS", &*way.broker),
            ("TRUNKLINE_KAFKA__SECURITY_PROTOCOL", way.protocol),
            ("TRUNKLINE_KAFKA__SASL_MECHANISM", "PLAIN"),
            ("TRUNKLINE_KAFKA__SASL_USERNAME", "trunkline"),
            ("TRUNKLINE_KAFKA__SASL_PASSWORD", way.password),
            ("TRUNKLINE_KAFKA__SSL_CA_LOCATION", &way.authority),
            ("TRUNKLINE_POSTGRES__URL", "postgres://nobody@127.0.0.1:1/none"),
            ("TRUNKLINE_GENESYS__BASE_URL", unreached),
            ("TRUNKLINE_GENESYS__CLIENT_ID", "id"),
            ("TRUNKLINE_GENESYS__CLIENT_SECRET", "secret"),
            ("TRUNKLINE_HTTP__LISTEN", "127.0.0.1:0"),
        ])
        .output()
        .expect("it runs");
    let said = String::from_utf8(checked.stdout).expect("text");
    assert!(!said.contains(way.password), "{said}");
    let told: serde_json::Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}\n{}", String::from_utf8_lossy(&checked.stderr)));
    let mut findings = told["findings"].as_array().expect("findings").iter();
    let found =
        findings.find(|finding| finding["what"].as_str().is_some_and(|name| name.starts_with("Kafka at")));
    let found = found.unwrap_or_else(|| panic!("nothing about Kafka: {said}"));
    (found["ok"] == false).then(|| found["problem"].as_str().expect("a problem").to_owned())
}

fn with_host(address: &str, host: &str) -> String {
    address.replace("127.0.0.1", host)
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_with_tls_and_passwords_let_in_who_should_and_each_mistake_is_named() {
    let certificates = Certificates::make();
    let properties = format!(
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.proxied.ssl.keystore.type=PEM
listener.name.proxied.ssl.keystore.location={}
listener.name.proxied.sasl.enabled.mechanisms=PLAIN
listener.name.proxied.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_trunkline=\"right-password\";",
        certificates.path("store.pem").display()
    );
    let services = tokio::task::spawn_blocking(move || Services::start_with(&properties)).await.unwrap();
    let right = Way {
        broker: services.proxied.clone(),
        protocol: "SASL_SSL",
        password: "right-password",
        authority: certificates.path("authority.pem").display().to_string(),
    };
    let ask = async |way: Way| tokio::task::spawn_blocking(move || problem(&way)).await.unwrap();
    // A broker that was just started may take longer for its first handshake than is waited for it.
    let first = within(Duration::from_secs(60), "the broker's first handshake", async || {
        let said = ask(right.clone()).await;
        let too_slow = said.as_ref().is_some_and(|problem| problem.contains("did not answer"));
        (!too_slow).then_some(said)
    })
    .await;
    assert_eq!(first, None);

    let other = certificates.path("other.pem").display().to_string();
    let untrusted = ask(Way { authority: other, ..right.clone() }).await.expect("refused");
    assert!(untrusted.contains("not trusted here; let `kafka.ssl.ca.location`"), "{untrusted}");
    let elsewhere = Way { broker: with_host(&right.broker, "localhost"), ..right.clone() };
    let other_host = ask(elsewhere).await.expect("refused");
    assert!(other_host.contains("certificate is not for localhost; write the broker"), "{other_host}");
    let password = ask(Way { password: "wrong-password", ..right.clone() }).await.expect("refused");
    assert!(
        password.contains("Authentication failed") && password.contains("`kafka.sasl.password`"),
        "{password}"
    );
    let plain = ask(Way { protocol: "PLAINTEXT", ..right }).await.expect("refused");
    assert!(plain.contains("did not answer"), "{plain}");
}

/// What `trunkline database status` says.
fn status(database: &str) -> Result<(), String> {
    let asked = Command::new(env!("CARGO_BIN_EXE_trunkline"))
        .args(["database", "status", "--config", "/dev/null"])
        .env("TRUNKLINE_POSTGRES__URL", database)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    if said.contains("trunkline: ") { Err(said) } else { Ok(()) }
}

/// Gives a running server a certificate: it must own the files, and nobody else may read the key.
async fn secure(server: &PgConnectOptions, certificates: &Certificates) {
    let mut owner = server.connect().await.expect("answers");
    for name in ["server.key", "server.pem"] {
        let text = certificates.read(name);
        let write = format!("umask 077; cat > {name}");
        let lines = text.trim().lines().map(|line| format!("('{line}')")).collect::<Vec<_>>().join(",");
        let sql = format!("COPY (SELECT * FROM (VALUES {lines}) AS lines) TO PROGRAM '{write}'");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut owner).await.expect("written");
    }
    for setting in ["ssl_cert_file = 'server.pem'", "ssl_key_file = 'server.key'", "ssl = on"] {
        let sql = format!("ALTER SYSTEM SET {setting}");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut owner).await.expect("set");
    }
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut owner).await.expect("reads its settings");
    owner.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_taken_for_the_right_one_by_its_certificate_alone() {
    let certificates = Certificates::make();
    let services = tokio::task::spawn_blocking(Services::start).await.unwrap();
    let server: PgConnectOptions = services.postgres.parse().expect("a URL");
    secure(&server, &certificates).await;
    let verified = |authority: &str| {
        let file = certificates.path(authority).display().to_string();
        format!("{}?sslmode=verify-full&sslrootcert={file}", services.postgres)
    };
    let ask = async |database: String| tokio::task::spawn_blocking(move || status(&database)).await.unwrap();
    // The server reads its settings a moment later.
    super::support::until("the database to be reached", async || ask(verified("authority.pem")).await.ok())
        .await;
    let options: PgConnectOptions = verified("authority.pem").parse().expect("a URL");
    let mut connection = options.connect().await.expect("connects");
    let encrypted: bool = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .expect("answers");
    assert!(encrypted);

    let untrusted = ask(verified("other.pem")).await.expect_err("refused");
    assert!(untrusted.contains("TLS") && untrusted.contains("UnknownIssuer"), "{untrusted}");
    let elsewhere = with_host(&verified("authority.pem"), "localhost");
    let other_host = ask(elsewhere).await.expect_err("refused");
    assert!(other_host.contains("TLS") && other_host.contains("not valid for name"), "{other_host}");
}
