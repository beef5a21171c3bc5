//! A broker and a database of a test's own, to be killed and started again.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Both end with this value, or with the process of the test.
pub(crate) struct Services {
    /// Addresses of the brokers.
    pub kafka: String,
    /// Address of the brokers' second listener.
    pub proxied: String,
    /// URL of the server's owner.
    pub postgres: String,
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    Kafka,
    Postgres,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Service::Kafka => "kafka",
            Service::Postgres => "postgres",
        }
    }
}

impl Services {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With further properties of the broker.
    pub(crate) fn start_with(broker: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("t-{}-services", uuid::Uuid::now_v7().simple()));
        let path = folder.display().to_string();
        let told = services_with(&["start", "--owner", &std::process::id().to_string(), &path], broker);
        let variable = |name: &str| {
            let found = told.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            found.unwrap_or_else(|| panic!("no {name} in: {told}")).to_owned()
        };
        Self {
            kafka: variable("TRUNKLINE_TEST_KAFKA"),
            proxied: variable("TRUNKLINE_TEST_KAFKA_PROXY_UPSTREAM"),
            postgres: variable("TRUNKLINE_TEST_POSTGRES"),
            folder,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, service: Service) {
        services(&[service.name(), "kill", &self.folder.display().to_string()]);
    }

    /// On the same port, with the same data; returns once it serves.
    pub(crate) fn start_again(&self, service: Service) {
        services(&[service.name(), "start", &self.folder.display().to_string()]);
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let mut remove = script();
        let _ = remove.args(["remove", &self.folder.display().to_string()]).stderr(Stdio::null()).status();
    }
}

fn script() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services.sh"))
}

/// Runs a verb of the script, which must succeed, and answers what it prints.
fn services(arguments: &[&str]) -> String {
    services_with(arguments, "")
}

fn services_with(arguments: &[&str], broker: &str) -> String {
    let done = script()
        .args(arguments)
        .env("KAFKA_EXTRA_SETTINGS", broker)
        .stdin(Stdio::null())
        .output()
        .expect("the script runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "services.sh {arguments:?}: {}\n{said}", done.status);
    String::from_utf8_lossy(&done.stdout).into_owned()
}
