//! What is changed at run time: facts like all others, each with who and when.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pause::{Extent, Pause};
use super::{Timestamp, object};

/// One setting as it is in force. The newest of its scope counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Setting<'a> {
    /// What it is about: `maintenance/<id>`, `route/<configurationId>`, `pause/<loop>` …
    pub scope: Cow<'a, str>,
    /// `null`: withdrawn, as if it had never been set.
    pub value: Value,
    /// Counts the changes of all scopes, from 1: a later change has a greater one.
    pub revision: u64,
    /// Who changed it: the name of an API key, or the user of the command line.
    pub who: Cow<'a, str>,
    pub when: Timestamp,
}

/// Scopes of maintenance windows begin so; the window's id follows.
pub const MAINTENANCE: &str = "maintenance/";

/// While it is open, flows are not rolled back. The value of scope `maintenance/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// Absent: all flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<String>,
    pub from: Timestamp,
    /// Closing a window early moves this to the time of closing.
    pub until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Scopes of routing weights begin so; the configuration's id follows.
pub const ROUTE: &str = "route/";

/// Weights that stand for those of a routing configuration. The value of scope
/// `route/<configurationId>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteWeights {
    /// By destination, 0 or more; those that are not named keep their own.
    pub weights: BTreeMap<String, f64>,
}

/// How all campaigns are dialled, the scope without an id; those of one campaign begin with
/// [`DIAL_CAMPAIGN`].
pub const DIAL: &str = "dial";
pub const DIAL_CAMPAIGN: &str = "dial/";

/// A rule for dial rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DialPolicy {
    Pacing,
    Proportional,
}

impl DialPolicy {
    pub fn name(self) -> &'static str {
        match self {
            DialPolicy::Pacing => "pacing",
            DialPolicy::Proportional => "proportional",
        }
    }

    /// The policy of this name.
    pub fn named(name: &str) -> Option<Self> {
        [DialPolicy::Pacing, DialPolicy::Proportional].into_iter().find(|policy| policy.name() == name)
    }
}

/// A policy beside the live one, or none although the configuration names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DialShadow {
    None,
    #[serde(untagged)]
    Policy(DialPolicy),
}

/// What stands for the configuration's rule and its numbers: the value of the scopes `dial` and
/// `dial/<campaignId>`. What a campaign's own does not name, that of all campaigns does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DialSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<DialPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_policy: Option<DialShadow>,
    /// Share of live answers that may be abandoned on average, over 0 and at most `cap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// Share of live answers that must not be passed, over 0 and below 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<f64>,
    /// Mean handle time before it was measured, seconds, 1 to 86 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle_seconds: Option<f64>,
    /// The campaign's local time minus UTC, minutes, −840 to 840: its days begin there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utc_offset_minutes: Option<i32>,
    /// Answer rate that `proportional` aims at, 0.01 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<f64>,
}

impl DialSettings {
    /// Those of a campaign over those of all.
    #[must_use]
    pub fn or(self, general: Self) -> Self {
        Self {
            policy: self.policy.or(general.policy),
            shadow_policy: self.shadow_policy.or(general.shadow_policy),
            goal: self.goal.or(general.goal),
            cap: self.cap.or(general.cap),
            handle_seconds: self.handle_seconds.or(general.handle_seconds),
            utc_offset_minutes: self.utc_offset_minutes.or(general.utc_offset_minutes),
            target: self.target.or(general.target),
        }
    }

    /// What cannot be, by field.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let numbers = [
            ("goal", self.goal, 0.001, 0.5),
            ("cap", self.cap, 0.001, 0.5),
            ("handleSeconds", self.handle_seconds, 1.0, 86_400.0),
            ("utcOffsetMinutes", self.utc_offset_minutes.map(f64::from), -840.0, 840.0),
            ("target", self.target, 0.01, 1.0),
        ];
        let outside = numbers.into_iter().filter_map(|(name, value, least, greatest)| {
            let value = value.filter(|value| !(least..=greatest).contains(value))?;
            Some((name, format!("{name} is {value}; {least} to {greatest} are possible")))
        });
        let mut problems: Vec<_> = outside.collect();
        if let (Some(goal), Some(cap)) = (self.goal, self.cap)
            && goal > cap
        {
            problems.push(("goal", format!("goal {goal} is over cap {cap}")));
        }
        problems
    }

    fn check(&self) -> Result<(), String> {
        self.problems().into_iter().next().map_or(Ok(()), |(_, problem)| Err(problem))
    }
}

impl RouteWeights {
    fn is_usable(&self) -> bool {
        !self.weights.is_empty() && self.weights.values().all(|weight| weight.is_finite() && *weight >= 0.0)
    }
}

impl MaintenanceWindow {
    /// Whether it is about this flow.
    pub fn is_about(&self, flow_id: &str) -> bool {
        self.flow_id.as_deref().is_none_or(|flow| flow == flow_id)
    }

    /// Whether it is open at this time.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether it is open at any time of `length` from `from` on.
    pub fn overlaps(&self, from: Timestamp, length: Duration) -> bool {
        self.from < from.plus(length) && from < self.until
    }
}

/// What can be set where: why this value cannot, if it cannot. `null` withdraws anything.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn check(scope: &str, value: &Value) -> Result<(), String> {
    let id = scope.split_once('/').filter(|(_, id)| !id.is_empty());
    match id {
        Some(("route", _)) if value.is_null() => Ok(()),
        Some(("route", _)) => match object::of::<RouteWeights>(value) {
            Ok(weights) if weights.is_usable() => Ok(()),
            Ok(_) => Err("route/<configurationId> takes at least one weight, none below 0".to_owned()),
            Err(error) => Err(format!(
                "route/<configurationId> takes {{\"weights\": {{\"<destinationId>\": 70}}}}: {error}"
            )),
        },
        Some(("maintenance", _)) if value.is_null() => Ok(()),
        Some(("maintenance", _)) => match object::of::<MaintenanceWindow>(value) {
            Ok(window) if window.from < window.until => Ok(()),
            Ok(_) => Err("a maintenance window must end after it begins".to_owned()),
            Err(error) => {
                Err(format!("maintenance/<id> takes a window {{flowId, from, until, reason}}: {error}"))
            }
        },
        Some(("pause", extent)) => {
            extent.parse::<Extent>()?;
            if value.is_null() {
                return Ok(());
            }
            let pause = object::of::<Pause>(value);
            pause.map_err(|error| format!("pause/<loop> takes {{\"reason\": \"…\"}}: {error}"))?.check()
        }
        _ if scope == DIAL || matches!(id, Some(("dial", _))) => match value {
            Value::Null => Ok(()),
            value => object::of::<DialSettings>(value)
                .map_err(|error| {
                    format!(
                        "{scope} takes {{\"policy\": \"pacing\", \"goal\": 0.02, \"cap\": 0.03, …}}: {error}"
                    )
                })
                .and_then(|settings| settings.check().map_err(|told| format!("{scope}: {told}"))),
        },
        _ => Err(format!(
            "{scope:?} is no scope: there are dial, dial/<campaignId>, maintenance/<id>, route/<configurationId> and pause/<loop>"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_where_the_next_may_begin() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let window = MaintenanceWindow { flow_id: None, from: at(60), until: at(120), reason: None };
        assert!(window.covers(at(60)) && !window.covers(at(120)) && !window.covers(at(59)));
        let minute = Duration::from_secs(60);
        assert!(window.overlaps(at(1), minute) && window.overlaps(at(119), minute));
        assert!(!window.overlaps(at(0), minute) && !window.overlaps(at(120), minute));
        assert!(window.is_about("any"));
        assert!(!MaintenanceWindow { flow_id: Some("f".into()), ..window }.is_about("g"));
    }

    #[test]
    fn only_what_is_understood_can_be_set() {
        use serde_json::json;
        let window = |until: &str| json!({"from": "2026-01-02T03:04:05.678Z", "until": until});
        assert_eq!(check("maintenance/1", &window("2026-01-02T03:05:05.678Z")), Ok(()));
        assert!(check("maintenance/1", &window("2026-01-02T03:04:05.678Z")).is_err(), "no length");
        assert!(check("maintenance/1", &json!({"from": 1})).is_err());
        assert_eq!(check("route/a", &json!({"weights": {"q": 0.0, "r": 70}})), Ok(()));
        assert_eq!(check("route/a", &Value::Null), Ok(()));
        assert_eq!(check("pause/all", &json!({"reason": "storm"})), Ok(()));
        assert_eq!(check("pause/dial", &Value::Null), Ok(()));
        for (scope, value) in [
            ("pause/dials", Value::Null),
            ("pause/dial", json!({"reason": " "})),
            ("pause/dial", json!(["x"])),
        ] {
            assert!(check(scope, &value).is_err(), "{scope} {value}");
        }
        assert_eq!(check("dial", &json!({"policy": "pacing", "shadowPolicy": "none"})), Ok(()));
        assert_eq!(
            check("dial/c", &json!({"goal": 0.01, "cap": 0.02, "shadowPolicy": "proportional"})),
            Ok(())
        );
        assert_eq!(check("dial/c", &Value::Null), Ok(()));
        for value in [
            json!({"policy": "adaptive"}),
            json!({"shadowPolicy": "adaptive"}),
            json!({"goal": 0.04, "cap": 0.03}),
            json!({"cap": 3}),
            json!({"utcOffsetMinutes": 900}),
            json!({"minDialRate": 1}),
        ] {
            assert!(check("dial/c", &value).is_err(), "{value}");
        }
        for (scope, value) in
            [("route/", json!({})), ("dial", json!(1)), ("", json!({})), ("route/a", json!(1))]
        {
            assert!(check(scope, &value).is_err(), "{scope}");
        }
        assert!(
            check("maintenance/1", &json!([null, "2026-01-02T03:04:05.678Z", "2026-01-02T03:05:05.678Z"]))
                .is_err()
        );
        for value in [
            json!({}),
            json!([{"q": 1}]),
            json!({"weights": {}}),
            json!({"weights": {"q": -1}}),
            json!({"value": {}}),
        ] {
            assert!(check("route/a", &value).is_err(), "{value}");
        }
    }
}
