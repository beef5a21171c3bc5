//! Notes the numbers that this instance's rules go by, so that its decisions can be taken again
//! whatever the configuration is then.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::settings;
use crate::config::Config;
use crate::postgres::Database;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(10);

/// What is to be noted.
pub(super) struct NotedNumbers {
    numbers: serde_json::Value,
    database: Database,
}

impl NotedNumbers {
    pub(super) fn new(config: &Config, database: Database) -> Self {
        let numbers = serde_json::to_value(settings::numbers(config)).expect("numbers are JSON");
        Self { numbers, database }
    }

    /// Runs until `stop`.
    pub(super) async fn keep(self, stop: CancellationToken) {
        let noting = async {
            while let Err(error) =
                self.database.note_rule_numbers(&self.numbers, env!("CARGO_PKG_VERSION")).await
            {
                tracing::debug!(%error, "the rules' numbers are not noted yet");
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = noting => stop.cancelled().await,
            () = stop.cancelled() => {}
        }
    }
}
