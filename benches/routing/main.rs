//! Routing decisions over HTTP: rate and latency of the service with its durable counters,
//! beside the same server answering a constant and beside the naive design, one SQL update
//! per call, with the CPU of the server alone. Each server is a process of its own; this one is
//! the load.
//!
//! `TRUNKLINE_BENCH_SECONDS` (10) and `TRUNKLINE_BENCH_CONNECTIONS` (64) change its size.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a measurement may

#[path = "../harness/mod.rs"]
mod harness;
mod load;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool};
use tokio_util::sync::CancellationToken;
use trunkline::console::{Console, Metrics, NotPublished, RouteDecisions, Routing, Settings};
use trunkline::health::Health;
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::model::routing::{
    RouteAnswer, RouteConfiguration, RoutePublication, RouteRefusal, RouteSource,
};
use trunkline::postgres::routing::{Patience, RouteCounters};
use trunkline::postgres::{self, Database};
use trunkline::routing::{Publisher, Service, Unchanging, recorder};
use trunkline::topology::Routed;

use harness::measure::{cpu_seconds, peak_megabytes, percentile};
use harness::number;

const CONFIGURATION: &str = "5f0b1c1e-6c1f-4a0e-9d6e-6a3b0c1d2e3f";

fn main() {
    if !harness::is_bench() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match harness::part() {
        Some(part) => runtime.block_on(serve(&part)),
        None => runtime.block_on(orchestrate()),
    }
}

async fn orchestrate() {
    let url = std::env::var("TRUNKLINE_TEST_POSTGRES")
        .expect("TRUNKLINE_TEST_POSTGRES is not set: run `make bench`, which starts a Postgres");
    let (seconds, connections) =
        (number("TRUNKLINE_BENCH_SECONDS", 10), number("TRUNKLINE_BENCH_CONNECTIONS", 64));
    let mut lines = vec![
        format!("{connections} connections, {seconds} s each:"),
        String::new(),
        "| | a second | of the constant | p50 ms | p99 ms | CPU µs each | peak MB |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    let mut constant = None;
    for (part, what) in [
        ("constant", "the same server, a constant"),
        ("service", "routing decisions, recorded before they are given"),
        ("naive", "one SQL update per call"),
    ] {
        let database = scratch(&url).await;
        let (mut server, address) = start(part, &database.url);
        load::run(address, CONFIGURATION, "warm", connections, Duration::from_secs(2)).await;
        let process = server.id().to_string();
        let cpu_before = cpu_seconds(&process);
        let measured =
            load::run(address, CONFIGURATION, "v", connections, Duration::from_secs(seconds as u64)).await;
        let (cpu, memory) = (cpu_seconds(&process) - cpu_before, peak_megabytes(&process));
        server.kill().expect("killed");
        server.wait().expect("reaped");
        let decisions = measured.latencies.len() as f64;
        let rate = decisions / measured.elapsed.as_secs_f64();
        let ratio = rate / *constant.get_or_insert(rate);
        let at = |share| percentile(&measured.latencies, share).as_secs_f64() * 1e3;
        let what = match measured.not_exact {
            0 => what.to_owned(),
            some => format!("{what}; {some} answers were not exact"),
        };
        let (p50, p99, cpu) = (at(0.5), at(0.99), cpu * 1e6 / decisions);
        lines.push(format!(
            "| {what} | {rate:.0} | {ratio:.2} × | {p50:.1} | {p99:.1} | {cpu:.0} | {memory:.0} |"
        ));
        if part == "service" {
            let (answers, took) = record(&connect(&database.url)).await;
            let rate = answers as f64 / took.as_secs_f64();
            lines.push(format!("| the same, afterwards into the outbox | {rate:.0} | | | | | |"));
        }
        database.remove().await;
    }
    harness::tell("routing", &lines);
}

/// Turns the answers that are in the database into decisions for the audit; how many, and how long.
async fn record(database: &Database) -> (i64, Duration) {
    let shutdown = CancellationToken::new();
    let part = Health::default().part("routing-decisions");
    let begun = Instant::now();
    let week = Duration::from_secs(7 * 86_400);
    let recorder = tokio::spawn(recorder::run(database.clone(), Mode::Live, week, part, shutdown.clone()));
    let answers: i64 = sqlx::query_scalar("SELECT sum(decisions)::bigint FROM trunkline.route_counters")
        .fetch_one(database.pool())
        .await
        .expect("counted");
    while !database.recordable_routes().await.expect("asked").is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = begun.elapsed();
    shutdown.cancel();
    recorder.await.expect("ends");
    (answers, took)
}

/// The server of one part, once it listens.
fn start(part: &str, database: &str) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .arg("--bench")
        .env("TRUNKLINE_BENCH_PART", part)
        .env("TRUNKLINE_BENCH_DATABASE", database)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("an address");
    (child, line.trim().parse().expect("an address"))
}

/// A database of its own.
struct Scratch {
    url: String,
    name: String,
    server: PgConnectOptions,
}

async fn scratch(server: &str) -> Scratch {
    let server = PgConnectOptions::from_str(server).expect("a URL");
    let name = format!("b_{}", uuid::Uuid::now_v7().simple());
    let mut connection = server.connect().await.expect("the server answers");
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.expect("created");
    let url = server.clone().database(&name).to_url_lossy().to_string();
    let database = connect(&url);
    database.migrate().await.expect("migrated");
    let rule = |id: &str, weight: u32| serde_json::json!({"id": id, "destination": {"type": "QUEUE_ID", "id": format!("queue-{id}")}, "weight": weight});
    let wanted = serde_json::json!({
        "id": CONFIGURATION, "name": "Support", "rules": [rule("a", 50), rule("b", 30), rule("c", 20)],
    });
    let wanted: RouteConfiguration = serde_json::from_value(wanted).expect("a configuration");
    database.save_route_draft(&wanted, "bench").await.expect("saved");
    database.publish_route(CONFIGURATION, "bench").await.expect("published");
    database.close().await;
    Scratch { url, name, server }
}

impl Scratch {
    async fn remove(self) {
        let mut connection = self.server.connect().await.expect("the server answers");
        let drop = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        sqlx::raw_sql(drop).execute(&mut connection).await.expect("dropped");
    }
}

fn connect(url: &str) -> Database {
    Database::connect(&postgres::Settings { url: url.to_owned().into(), ..Default::default() })
        .expect("a URL")
}

async fn serve(part: &str) {
    let url = std::env::var("TRUNKLINE_BENCH_DATABASE").expect("given by the load");
    let metrics = Metrics::install().expect("the first");
    let (database, health, shutdown) = (connect(&url), Health::default(), CancellationToken::new());
    let routing: Arc<dyn RouteDecisions> = match part {
        "constant" => Arc::new(Peer::Constant),
        "naive" => Arc::new(Peer::Naive(database.pool().clone())),
        _ => {
            let url = postgres::Settings { url: url.into(), ..Default::default() };
            let patience = Patience {
                statement: Duration::from_secs(2),
                idle_in_transaction: Duration::from_millis(500),
            };
            let counters = RouteCounters::new(&url, 4, patience).expect("a URL");
            let settings = trunkline::routing::Settings::default();
            let service = Service::new(settings, counters, Arc::new(Unchanging), &health, shutdown.clone());
            tokio::spawn(service.clone().run());
            let publisher = Publisher::new(database.clone(), None, Mode::Shadow, shutdown.clone());
            Arc::new(Routed::new(service, publisher))
        }
    };
    let settings = Settings { listen: ([127, 0, 0, 1], 0).into(), ..Settings::default() };
    let console = Console::bind(settings, database, health, metrics, None).expect("listens");
    println!("{}", console.address());
    console.with_routing(routing).serve(shutdown).await;
}

fn answer(conversation_id: &str, destination_id: &str, sequence: u64) -> Arc<RouteAnswer> {
    Arc::new(RouteAnswer {
        conversation_id: conversation_id.into(),
        configuration_id: CONFIGURATION.into(),
        destination_id: destination_id.into(),
        revision: 1,
        sequence: Some(sequence),
        source: RouteSource::Exact,
        decided_at: Timestamp::from_millis(1_767_323_045_678),
    })
}

/// What the service is measured beside.
enum Peer {
    /// The limit: everything but the decision.
    Constant,
    /// What one would write first: the row is updated once per call, nothing is remembered.
    Naive(PgPool),
}

async fn naive(pool: &PgPool, of: &str, id: &str) -> Result<Arc<RouteAnswer>, RouteRefusal> {
    let sequence: i64 = sqlx::query_scalar(
        "UPDATE trunkline.route_counters SET decisions = decisions + 1 WHERE configuration_id = $1
         RETURNING decisions",
    )
    .bind(of)
    .fetch_one(pool)
    .await
    .map_err(|error| RouteRefusal::Unavailable { id: of.to_owned(), reason: error.to_string() })?;
    let destination = ["queue-a", "queue-a", "queue-a", "queue-b", "queue-c"][sequence as usize % 5];
    Ok(answer(id, destination, sequence.unsigned_abs()))
}

impl RouteDecisions for Peer {
    fn decide<'a>(&'a self, of: &'a str, id: &'a str) -> Routing<'a, Result<Arc<RouteAnswer>, RouteRefusal>> {
        match self {
            Peer::Constant => Box::pin(async move { Ok(answer(id, "queue-a", 1)) }),
            Peer::Naive(pool) => Box::pin(naive(pool, of, id)),
        }
    }

    fn check(&self, _: &RouteConfiguration) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn check_weights<'a>(
        &'a self,
        _: &'a Database,
        _: &'a str,
        _: &'a BTreeMap<String, f64>,
    ) -> Routing<'a, Result<(), NotPublished>> {
        Box::pin(async { Ok(()) })
    }

    fn publish<'a>(&'a self, id: &'a str, _: &'a str) -> Routing<'a, Result<RoutePublication, NotPublished>> {
        Box::pin(async move { Err(NotPublished::Unknown(id.to_owned())) })
    }
}
