//! Values that are one of a few names.

use super::kind::{Kind, Value};
use super::setting::Setting;
use crate::model::compliance::Denominator;
use crate::model::decision::Mode;
use crate::model::flow::MinuteSource;
use crate::model::settings::DialPolicy;

/// An enumeration with the names its values have in the configuration.
macro_rules! choices {
    ($($(#[$about:meta])* $Choice:ident { $($Variant:ident = $name:literal),* })*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Choice {
            $($Variant),*
        }

        impl $Choice {
            pub(super) const KIND: Kind = Kind::OneOf(&[$($name),*]);
        }

        impl Setting for $Choice {
            fn of(value: Value) -> Option<Self> {
                match String::of(value)?.as_str() {
                    $($name => Some(Self::$Variant),)*
                    _ => None,
                }
            }
        }
    )*};
}

choices! {
    /// Which form of the platform's interface is spoken.
    Dialect { Seed = "seed", Platform = "platform" }
    /// What a change of a campaign sends.
    CampaignChange { Patch = "patch", Put = "put" }
    /// When a version is taken back.
    RollbackPolicy { Attributed = "attributed", Consecutive = "consecutive" }
    /// What stands for a version before that has had too few interactions.
    WithoutBaseline { Consecutive = "consecutive", Alert = "alert" }
    /// Which polled interactions are errors.
    ErrorMeasure { ExitReason = "exit_reason", Outcome = "outcome" }
    /// Whether something is done at all.
    Switch { On = "on", Off = "off" }
}

impl Switch {
    pub fn is_on(self) -> bool {
        self == Switch::On
    }
}

impl Setting for bool {
    fn of(value: Value) -> Option<Self> {
        match String::of(value)?.as_str() {
            "yes" | "allow" => Some(true),
            "no" | "refuse" => Some(false),
            _ => None,
        }
    }
}

/// `None` is off.
impl Setting for Option<Mode> {
    fn of(value: Value) -> Option<Self> {
        match String::of(value)?.as_str() {
            "live" => Some(Some(Mode::Live)),
            "shadow" => Some(Some(Mode::Shadow)),
            "off" => Some(None),
            _ => None,
        }
    }
}

impl Setting for DialPolicy {
    fn of(value: Value) -> Option<Self> {
        DialPolicy::named(&String::of(value)?)
    }
}

impl Setting for MinuteSource {
    fn of(value: Value) -> Option<Self> {
        match String::of(value)?.as_str() {
            "events" => Some(MinuteSource::Events),
            "polled" => Some(MinuteSource::Polled),
            _ => None,
        }
    }
}

impl Setting for Denominator {
    fn of(value: Value) -> Option<Self> {
        match String::of(value)?.as_str() {
            "calls_that_reached_queue" => Some(Denominator::CallsThatReachedQueue),
            "all_calls" => Some(Denominator::AllCalls),
            _ => None,
        }
    }
}
