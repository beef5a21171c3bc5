//! Maintenance windows: settings of their own kind.

use std::time::Duration;

use uuid::Uuid;

use super::settings::SettingError;
use super::{Database, Error};
use crate::model::Timestamp;
use crate::model::settings::{MAINTENANCE, MaintenanceWindow, Setting};

/// Longest window: a week. One that is forgotten must not switch the guard off for good.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(7 * 86_400);
/// Longest reason, in bytes.
const REASON_LIMIT: usize = 2_000;
/// Windows listed at most.
const LIST_LIMIT: u32 = 1_000;

impl Database {
    /// Opens a window for one flow, or for all, from now on.
    ///
    /// # Errors
    /// When it would be longer than [`LONGEST_WINDOW`], or as [`change_setting`](Self::change_setting).
    pub async fn open_maintenance(
        &self,
        flow_id: Option<&str>,
        length: Duration,
        reason: Option<&str>,
        who: &str,
    ) -> Result<Setting<'static>, SettingError> {
        let scope = format!("{MAINTENANCE}{}", Uuid::now_v7());
        self.change_setting(&scope, who, |now, _| {
            if length.is_zero() || length > LONGEST_WINDOW {
                let days = LONGEST_WINDOW.as_secs() / 86_400;
                return Err(format!("a window is longer than nothing and at most {days} days long"));
            }
            if flow_id.is_some_and(|flow| flow.is_empty() || flow.len() > 512) {
                return Err("flowId must have 1 to 512 bytes".to_owned());
            }
            if reason.is_some_and(|reason| reason.len() > REASON_LIMIT) {
                return Err(format!("reason must have at most {REASON_LIMIT} bytes"));
            }
            Ok(to_value(&MaintenanceWindow {
                flow_id: flow_id.map(str::to_owned),
                from: now,
                until: now.plus(length),
                reason: reason.map(str::to_owned),
            }))
        })
        .await
    }

    /// Closes a window now, if it is not over already. `None` where there is none.
    ///
    /// # Errors
    /// As [`change_setting`](Self::change_setting).
    pub async fn close_maintenance(
        &self,
        id: &str,
        who: &str,
    ) -> Result<Option<Setting<'static>>, SettingError> {
        let scope = format!("{MAINTENANCE}{id}");
        if Uuid::try_parse(id).is_err() || self.setting(&scope).await?.is_none() {
            return Ok(None);
        }
        let change = |now: Timestamp, setting: Option<&Setting<'static>>| {
            let value = setting.map(|setting| setting.value.clone()).ok_or("it is withdrawn")?;
            let mut window: MaintenanceWindow =
                serde_json::from_value(value).map_err(|error| format!("it is no window: {error}"))?;
            window.until = window.until.min(now);
            Ok(to_value(&window))
        };
        self.change_setting(&scope, who, change).await.map(Some)
    }

    /// Windows that are open by the database's clock, newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn open_maintenance_windows(&self) -> Result<Vec<Setting<'static>>, Error> {
        let now: i64 =
            sqlx::query_scalar("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint")
                .fetch_one(self.pool())
                .await
                .map_err(|error| self.explain(error))?;
        let now = Timestamp::from_millis(now);
        let mut windows = self.settings(MAINTENANCE, LIST_LIMIT).await?;
        windows.retain(|setting| {
            let window = serde_json::from_value::<MaintenanceWindow>(setting.value.clone());
            window.is_ok_and(|window| now < window.until)
        });
        Ok(windows)
    }
}

fn to_value(window: &MaintenanceWindow) -> serde_json::Value {
    serde_json::to_value(window).expect("own values are JSON")
}
