//! Loops that people have stopped: they decide and record, and change nothing outside.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::decision::Loop;
use super::settings::Setting;

/// Scopes of pauses begin so; the [`Extent`] follows.
pub const PAUSE: &str = "pause/";

/// Reasons of outcomes begin so where nothing was sent because of a pause.
pub const PAUSED_BY: &str = "paused by ";

/// Longest reason, in characters.
pub const REASON_LIMIT: usize = 500;

/// The value of scope `pause/<loop>` and `pause/all`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Why, for those who find the loop stopped.
    #[schemars(length(min = 1, max = 500))]
    pub reason: String,
}

impl Pause {
    /// # Errors
    /// A sentence that says what a reason is.
    pub fn check(&self) -> Result<(), String> {
        let length = self.reason.trim().chars().count();
        if length == 0 || length > REASON_LIMIT || self.reason.chars().any(char::is_control) {
            return Err(format!(
                "a pause needs a reason of 1 to {REASON_LIMIT} characters without control characters"
            ));
        }
        Ok(())
    }
}

/// What is stopped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extent {
    All,
    One(Loop),
}

impl Extent {
    /// All there are, `all` first.
    pub fn every() -> impl Iterator<Item = Extent> {
        std::iter::once(Extent::All).chain(Loop::ALL.into_iter().map(Extent::One))
    }

    pub fn name(self) -> &'static str {
        match self {
            Extent::All => "all",
            Extent::One(of) => of.name(),
        }
    }

    /// The scope its setting has.
    pub fn scope(self) -> String {
        format!("{PAUSE}{}", self.name())
    }

    /// Of a setting's scope, where it is one of a pause.
    pub fn of_scope(scope: &str) -> Option<Self> {
        scope.strip_prefix(PAUSE)?.parse().ok()
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Extent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::every().find(|extent| extent.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::every().map(Extent::name).collect();
            format!("{text:?} is no loop: one of {}", names.join(", "))
        })
    }
}

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PauseInForce {
    pub r#loop: String,
    pub reason: String,
    /// The name of an API key, or the user of the command line.
    pub who: String,
    pub since: Timestamp,
    /// Of the setting that says so.
    pub revision: u64,
}

impl PauseInForce {
    /// `paused by alice: looking into abandoned calls`: how an outcome says it.
    pub fn told(&self) -> String {
        told(&self.who, &self.reason)
    }
}

/// How an outcome says that nothing was sent because of a pause.
pub fn told(who: &str, reason: &str) -> String {
    format!("{PAUSED_BY}{who}: {reason}")
}

/// All pauses in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pauses(BTreeMap<Extent, PauseInForce>);

impl Pauses {
    /// Of settings as they are in force; others than pauses are passed over.
    pub fn of<'s>(settings: impl IntoIterator<Item = &'s Setting<'s>>) -> Self {
        let read = |setting: &Setting<'_>| {
            let extent = Extent::of_scope(&setting.scope)?;
            let pause: Pause = serde_json::from_value(setting.value.clone()).ok()?;
            let in_force = PauseInForce {
                r#loop: extent.name().to_owned(),
                reason: pause.reason,
                who: setting.who.clone().into_owned(),
                since: setting.when,
                revision: setting.revision,
            };
            Some((extent, in_force))
        };
        Self(settings.into_iter().filter_map(read).collect())
    }

    /// What stops this loop: its own pause, or else that of all.
    pub fn stopping(&self, of: Loop) -> Option<&PauseInForce> {
        self.get(Extent::One(of)).or_else(|| self.get(Extent::All))
    }

    pub fn get(&self, extent: Extent) -> Option<&PauseInForce> {
        self.0.get(&extent)
    }

    /// That of all first.
    pub fn iter(&self) -> impl Iterator<Item = (Extent, &PauseInForce)> {
        self.0.iter().map(|(extent, pause)| (*extent, pause))
    }

    /// Leaves those that `wanted` names.
    pub fn keep(&mut self, wanted: impl Fn(Extent) -> bool) {
        self.0.retain(|extent, _| wanted(*extent));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn setting(scope: &'static str, value: Value) -> Setting<'static> {
        let when = Timestamp::from_millis(1_767_323_045_678);
        Setting { scope: scope.into(), value, revision: 7, who: "alice".into(), when }
    }

    #[test]
    fn a_loop_is_stopped_by_its_own_pause_or_by_that_of_all() {
        let settings = [
            setting("pause/dial", json!({"reason": "too many abandoned"})),
            setting("pause/rollback", Value::Null),
            setting("route/a", json!({"weights": {"q": 1}})),
        ];
        let pauses = Pauses::of(&settings);
        assert_eq!(pauses.stopping(Loop::Dial).unwrap().told(), "paused by alice: too many abandoned");
        assert_eq!((pauses.stopping(Loop::Rollback), pauses.stopping(Loop::Lag)), (None, None));
        let all = Pauses::of(&[setting("pause/all", json!({"reason": "storm"}))]);
        assert!(Loop::ALL.into_iter().all(|of| all.stopping(of).is_some()));
        assert_eq!(all.iter().next().unwrap().0, Extent::All);
    }

    #[test]
    fn extents_are_named_as_their_scopes_are() {
        for extent in Extent::every() {
            assert_eq!(extent.name().parse(), Ok(extent));
            assert_eq!(Extent::of_scope(&extent.scope()), Some(extent));
        }
        assert!("Dial".parse::<Extent>().is_err() && Extent::of_scope("maintenance/all").is_none());
    }

    #[test]
    fn a_reason_says_something_in_a_line() {
        let check = |reason: &str| Pause { reason: reason.to_owned() }.check();
        assert_eq!(check("abandonment is rising"), Ok(()));
        for wrong in ["", "  ", "a\nb", &"x".repeat(REASON_LIMIT + 1)] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
