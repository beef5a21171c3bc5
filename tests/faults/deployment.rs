//! Instances of the program on topics, a database and a platform of a test's own.

use std::time::Duration;

use trunkline::simulator::{self, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Running, Scenario, Simulator};

use crate::support::evidence::Scene;
use crate::support::postgres::TestDatabase;
use crate::support::process::Process;

/// A tick of 30 s takes one second.
const SPEED: f64 = 30.0;

pub struct Deployment {
    pub simulator: Running,
    pub scene: Scene,
    environment: Vec<(String, String)>,
    _database: TestDatabase,
}

impl Deployment {
    /// Topics, database and platform are there; no instance runs yet.
    pub async fn prepare(scenario: Scenario) -> Self {
        // Another test of this process may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let brokers =
            std::env::var("TRUNKLINE_TEST_KAFKA").expect("TRUNKLINE_TEST_KAFKA is not set: run `make test`");
        let topic_prefix = format!("t-{}-", uuid::Uuid::now_v7().simple());
        let database = TestDatabase::create().await;
        let simulator = Simulator::start(simulator::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            speed: SPEED,
            scenario,
            requests_per_window: 100_000,
            rival_every_seconds: Some(60),
            ..simulator::Settings::default()
        })
        .await
        .expect("the simulator starts");
        let campaigns: Vec<String> =
            simulator.overview().campaigns.into_iter().map(|campaign| campaign.id).collect();
        let environment: Vec<(String, String)> = [
            ("KAFKA__BROKERS", brokers.clone()),
            ("KAFKA__TOPIC_PREFIX", topic_prefix.clone()),
            ("KAFKA__PARTITIONS", "4".to_owned()),
            ("POSTGRES__URL", database.url()),
            ("GENESYS__BASE_URL", simulator.api_url()),
            ("GENESYS__CLIENT_ID", DEMO_CLIENT_ID.to_owned()),
            ("GENESYS__CLIENT_SECRET", DEMO_CLIENT_SECRET.to_owned()),
            ("GENESYS__REQUESTS_PER_MINUTE", "100000".to_owned()),
            ("DIAL__MODE", "live".to_owned()),
            ("DIAL__INTERVAL", "1s".to_owned()),
            ("DIAL__CAMPAIGNS", campaigns.join(",")),
        ]
        .into_iter()
        .map(|(name, value)| (format!("TRUNKLINE_{name}"), value))
        .collect();
        for arguments in [["database", "migrate"], ["topics", "apply"]] {
            let mut done = Process::start(arguments[0], &arguments, &environment);
            assert!(done.wait(Duration::from_secs(60)).success(), "trunkline {arguments:?}");
        }
        let owner = database.owner().await;
        let scene = Scene { brokers, topic_prefix, owner, simulator: simulator.api_url() };
        Self { simulator, scene, environment, _database: database }
    }

    /// One more instance with its own HTTP port.
    pub fn instance(&self, name: &str, stages: Option<&str>) -> Instance {
        let port = free_port();
        let mut environment = self.environment.clone();
        environment.push(("TRUNKLINE_HTTP__LISTEN".to_owned(), format!("127.0.0.1:{port}")));
        environment.push(("TRUNKLINE_INSTANCE__NAME".to_owned(), name.to_owned()));
        let mut arguments = vec!["run"];
        arguments.extend(stages.map(|stages| ["--stages", stages]).into_iter().flatten());
        Instance { process: Process::start(name, &arguments, &environment), port }
    }

    /// Campaigns that have a decision in the audit younger than `since`, in milliseconds.
    pub async fn campaigns_decided_since(&self, since_ms: i64) -> i64 {
        let sql =
            "SELECT count(DISTINCT key) FROM audit.decisions WHERE decided_at > to_timestamp($1 / 1000.0)";
        let counted = sqlx::query_scalar(sql).bind(since_ms as f64).fetch_one(&self.scene.owner).await;
        counted.expect("the audit can be asked")
    }
}

pub struct Instance {
    pub process: Process,
    port: u16,
}

impl Instance {
    /// Campaign observations this instance has made, by its own account.
    pub async fn polls(&self) -> f64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        let Ok(reply) = reqwest::get(&url).await else { return 0.0 };
        let page = reply.text().await.unwrap_or_default();
        page.lines()
            .filter(|line| line.starts_with("trunkline_campaign_polls_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
