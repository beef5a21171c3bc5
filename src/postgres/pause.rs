//! Loops stopped and started again: settings of their own kind.

use serde_json::Value;

use super::settings::SettingError;
use super::{Database, Error};
use crate::model::pause::{Extent, PAUSE, Pause, Pauses};

/// Pauses there can be, and room for scopes of a later release.
const LIST_LIMIT: u32 = 100;

impl Database {
    /// Stops a loop, or all. Stopped again, the newer reason stands.
    ///
    /// # Errors
    /// When the reason says nothing, or as [`change_setting`](Self::change_setting).
    pub async fn pause(&self, extent: Extent, reason: &str, who: &str) -> Result<Pauses, SettingError> {
        let pause = Pause { reason: reason.trim().to_owned() };
        pause.check().map_err(SettingError::Refused)?;
        let value = serde_json::to_value(&pause).expect("own values are JSON");
        let set = self.change_setting(&extent.scope(), who, |_, _| Ok(value)).await?;
        Ok(Pauses::of([&set]))
    }

    /// Lets a loop go on, or all: with `all` every pause ends. Returns those that ended.
    ///
    /// # Errors
    /// As [`change_setting`](Self::change_setting).
    pub async fn resume(&self, extent: Extent, who: &str) -> Result<Pauses, SettingError> {
        let mut ended = self.pauses().await?;
        ended.keep(|each| extent == Extent::All || each == extent);
        for (each, _) in ended.iter() {
            self.change_setting(&each.scope(), who, |_, _| Ok(Value::Null)).await?;
        }
        Ok(ended)
    }

    /// The pauses in force.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn pauses(&self) -> Result<Pauses, Error> {
        Ok(Pauses::of(&self.settings(PAUSE, LIST_LIMIT).await?))
    }
}
