//! Instances of the program on topics, a database and a platform of a test's own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use simulator::{self, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Running, Scenario, Simulator};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::support::checker::violations;
use crate::support::evidence::Scene;
use crate::support::postgres::TestDatabase;
use crate::support::process::Process;
use crate::support::within;

/// A tick of 30 s takes one second.
const SPEED: f64 = 30.0;

/// The longest that work may stand still while others take it over.
const TAKEN_OVER: Duration = Duration::from_secs(90);

/// Every instance ends within this when it is asked to.
pub(crate) const ENDED: Duration = Duration::from_secs(10);

/// Somebody else changes its campaigns now and then.
fn restless(scenario: Scenario) -> simulator::Settings {
    simulator::Settings {
        speed: SPEED,
        scenario,
        rival_every_seconds: Some(60),
        requests_per_window: 100_000,
        ..simulator::Settings::default()
    }
}

/// Whose turn the machine is: tests that measure times have it alone.
static MACHINE: RwLock<()> = RwLock::const_new(());

enum Turn {
    Beside { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl Turn {
    async fn beside() -> Self {
        Turn::Beside { _guard: MACHINE.read().await }
    }

    async fn alone() -> Self {
        Turn::Alone { _guard: MACHINE.write().await }
    }
}

pub(crate) struct Deployment {
    pub simulator: Running,
    pub scene: Scene,
    pub database: TestDatabase,
    environment: Vec<(String, String)>,
    _turn: Turn,
}

impl Deployment {
    /// Topics, database and platform are there; no instance runs yet.
    pub(crate) async fn prepare() -> Self {
        Self::of(Scenario::default()).await
    }

    /// The same while no other deployment of this process runs.
    pub(crate) async fn prepare_alone() -> Self {
        let brokers = std::env::var("TRUNKLINE_TEST_KAFKA").expect("TRUNKLINE_TEST_KAFKA is not set");
        let organisation = restless(Scenario::default());
        Self::prepare_in(Turn::alone().await, brokers, TestDatabase::create().await, organisation).await
    }

    /// The same with another organisation.
    pub(crate) async fn of(scenario: Scenario) -> Self {
        let brokers =
            std::env::var("TRUNKLINE_TEST_KAFKA").expect("TRUNKLINE_TEST_KAFKA is not set: run `make test`");
        Self::prepare_with(brokers, TestDatabase::create().await, restless(scenario)).await
    }

    /// The same with another organisation that speaks this dialect.
    pub(crate) async fn speaking(scenario: Scenario, dialect: simulator::Dialect) -> Self {
        let brokers = std::env::var("TRUNKLINE_TEST_KAFKA").expect("TRUNKLINE_TEST_KAFKA is not set");
        let organisation = simulator::Settings { dialect, ..restless(scenario) };
        Self::prepare_with(brokers, TestDatabase::create().await, organisation).await
    }

    /// An organisation at a speed of its own, dialled at its pace: the program knows how fast its time
    /// goes.
    pub(crate) async fn paced(organisation: simulator::Settings) -> Self {
        let brokers = std::env::var("TRUNKLINE_TEST_KAFKA").expect("TRUNKLINE_TEST_KAFKA is not set");
        let speed = organisation.speed;
        let organisation = simulator::Settings { requests_per_window: 100_000, ..organisation };
        let mut deployment = Self::prepare_with(brokers, TestDatabase::create().await, organisation).await;
        let milliseconds = |seconds: f64| format!("{}ms", (seconds / speed * 1_000.0) as u64);
        deployment.configure(&[
            ("DIAL__INTERVAL", milliseconds(30.0)),
            ("GENESYS__BUDGET_WINDOW", milliseconds(60.0)),
        ]);
        deployment
    }

    /// An organisation that speaks its own dialect and allows so many calls in each of its minutes.
    pub(crate) async fn short_of_calls(scenario: Scenario, speed: f64, requests: u32) -> Self {
        let brokers = std::env::var("TRUNKLINE_TEST_KAFKA").expect("TRUNKLINE_TEST_KAFKA is not set");
        let minute = Duration::from_secs_f64(60.0 / speed);
        let organisation = simulator::Settings {
            dialect: simulator::Dialect::Platform,
            speed,
            scenario,
            requests_per_window: requests,
            budget_window: minute,
            ..simulator::Settings::default()
        };
        let mut deployment = Self::prepare_with(brokers, TestDatabase::create().await, organisation).await;
        deployment.configure(&[
            ("GENESYS__REQUESTS_PER_MINUTE", requests.to_string()),
            ("GENESYS__BUDGET_WINDOW", format!("{}ms", minute.as_millis())),
            ("DIAL__INTERVAL", format!("{}ms", minute.as_millis() / 2)),
        ]);
        deployment
    }

    fn configure(&mut self, settings: &[(&str, String)]) {
        for (name, value) in settings {
            let name = format!("TRUNKLINE_{name}");
            self.environment.retain(|(known, _)| *known != name);
            self.environment.push((name, value.clone()));
        }
    }

    pub(crate) async fn prepare_on(brokers: String, database: TestDatabase) -> Self {
        Self::prepare_with(brokers, database, restless(Scenario::default())).await
    }

    async fn prepare_with(
        brokers: String,
        database: TestDatabase,
        organisation: simulator::Settings,
    ) -> Self {
        Self::prepare_in(Turn::beside().await, brokers, database, organisation).await
    }

    async fn prepare_in(
        turn: Turn,
        brokers: String,
        database: TestDatabase,
        organisation: simulator::Settings,
    ) -> Self {
        let dialect = match organisation.dialect {
            simulator::Dialect::Platform => "platform",
            _ => "seed",
        };
        // Another test of this process may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let topic_prefix = format!("t-{}-", uuid::Uuid::now_v7().simple());
        let simulator =
            Simulator::start(simulator::Settings { listen: ([127, 0, 0, 1], 0).into(), ..organisation })
                .await
                .expect("the simulator starts");
        let campaigns: Vec<String> =
            simulator.overview().campaigns.into_iter().map(|campaign| campaign.id).collect();
        let environment: Vec<(String, String)> = [
            ("KAFKA__BROKERS", brokers.clone()),
            ("KAFKA__TOPIC_PREFIX", topic_prefix.clone()),
            ("KAFKA__PARTITIONS", "4".to_owned()),
            ("POSTGRES__URL", database.url()),
            ("GENESYS__DIALECT", dialect.to_owned()),
            ("GENESYS__BASE_URL", simulator.api_url()),
            ("GENESYS__CLIENT_ID", DEMO_CLIENT_ID.to_owned()),
            ("GENESYS__CLIENT_SECRET", DEMO_CLIENT_SECRET.to_owned()),
            ("GENESYS__REQUESTS_PER_MINUTE", "100000".to_owned()),
            ("DIAL__MODE", "live".to_owned()),
            ("DIAL__INTERVAL", "1s".to_owned()),
            ("DIAL__CAMPAIGNS", campaigns.join(",")),
            // It would watch the groups of all other tests as well.
            ("LAG__MODE", "off".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (format!("TRUNKLINE_{name}"), value))
        .collect();
        let owner = database.owner().await;
        let scene = Scene { brokers, topic_prefix, owner, simulator: simulator.api_url() };
        let deployment = Self { simulator, scene, database, environment, _turn: turn };
        for arguments in [["database", "migrate"], ["topics", "apply"]] {
            let mut done = deployment.command(&arguments);
            assert!(done.wait(Duration::from_secs(60)).success(), "trunkline {arguments:?}");
        }
        deployment
    }

    /// The program with this deployment's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Process {
        Process::start(arguments[0], arguments, &self.environment)
    }

    /// One more instance of all roles, with its own HTTP port.
    pub(crate) fn instance(&self, name: &str) -> Instance {
        self.instance_with(name, &[], &[])
    }

    /// One more instance whose environment differs in these.
    pub(crate) fn instance_with(
        &self,
        name: &str,
        options: &[&str],
        differing: &[(&str, String)],
    ) -> Instance {
        let port = free_port();
        let mut environment = self.environment.clone();
        environment.push(("TRUNKLINE_HTTP__LISTEN".to_owned(), format!("127.0.0.1:{port}")));
        environment.push(("TRUNKLINE_INSTANCE__NAME".to_owned(), name.to_owned()));
        environment.extend(differing.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let arguments = [&["run"], options].concat();
        Instance { process: Process::start(name, &arguments, &environment), port }
    }

    /// Until every campaign has been decided on from now, and the audit has it.
    pub(crate) async fn goes_on(&self) {
        let since_ms = now_ms();
        let campaigns = self.simulator.overview().campaigns.len() as i64;
        within(TAKEN_OVER, "every campaign to be decided on", async || {
            (self.campaigns_decided_since(since_ms).await == campaigns).then_some(())
        })
        .await;
    }

    /// Ends the instances, has what is left worked off, and judges all they left behind.
    pub(crate) async fn ends_well(&self, seed: u64, instances: &mut [Instance]) {
        // Where little was changed there is little to judge; slow brokers leave a run hardly begun.
        within(TAKEN_OVER, "a change at the platform", async || {
            (!self.scene.effects().await.is_empty()).then_some(())
        })
        .await;
        for instance in instances.iter() {
            instance.process.signal(Signal::TERM);
        }
        for instance in instances {
            let status = instance.process.wait(ENDED);
            assert!(status.success(), "SIGTERM ends with {status}");
        }
        // Without the poller nothing new comes in; what is there is worked off.
        let mut rest = self.instance_with("rest", &["--stages", "windowing,dialing,actuator,audit"], &[]);
        let mut found = Vec::new();
        let end = Instant::now() + TAKEN_OVER;
        while Instant::now() < end {
            found = violations(&self.scene.evidence().await);
            if found.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let told: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "seed {seed}:\n{}", told.join("\n"));
        let evidence = self.scene.evidence().await;
        println!(
            "{} statistics, {} decisions, {} effects",
            evidence.stats.len(),
            evidence.decisions.len(),
            evidence.effects.len()
        );
        rest.process.signal(Signal::TERM);
        assert!(rest.process.wait(ENDED).success());
    }

    /// Campaigns that have a decision in the audit younger than `since`, in milliseconds.
    async fn campaigns_decided_since(&self, since_ms: i64) -> i64 {
        let sql = "SELECT count(DISTINCT key) FROM audit.decisions WHERE loop = 'dial' AND decided_at > to_timestamp($1 / 1000.0)";
        let counted = sqlx::query_scalar(sql).bind(since_ms as f64).fetch_one(&self.scene.owner).await;
        counted.expect("the audit can be asked")
    }
}

pub(crate) struct Instance {
    pub process: Process,
    pub port: u16,
}

impl Instance {
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Status and body of a GET; `None` while nothing listens.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let reply = reqwest::get(format!("http://127.0.0.1:{}{path}", self.port)).await.ok()?;
        Some((reply.status().as_u16(), reply.text().await.ok()?))
    }

    /// Campaign observations this instance has made, by its own account.
    pub(crate) async fn polls(&self) -> f64 {
        self.counted("trunkline_campaign_polls_total").await
    }

    /// A counter over all its labels; 0 while nothing listens.
    pub(crate) async fn counted(&self, counter: &str) -> f64 {
        let Some((_, page)) = self.get("/metrics").await else { return 0.0 };
        page.lines()
            .filter(|line| line.starts_with(counter))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Until both have observed campaigns: each holds part of the work.
pub(crate) async fn both_work(first: &Instance, second: &Instance) {
    within(TAKEN_OVER, "both instances to observe campaigns", async || {
        (first.polls().await > 0.0 && second.polls().await > 0.0).then_some(())
    })
    .await;
}

/// Chance with a seed that is printed, or given in `TRUNKLINE_TEST_SEED`.
pub(crate) fn chance() -> (u64, ChaCha8Rng) {
    let seed: u64 = std::env::var("TRUNKLINE_TEST_SEED")
        .map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("TRUNKLINE_TEST_SEED is a number"));
    println!("seed {seed}");
    (seed, ChaCha8Rng::seed_from_u64(seed))
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292 million")
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
