//! The worlds a policy is tried in: one campaign, one day of eight hours.

use simulator::{Answering, CampaignScenario};

/// Seconds of a simulated day.
pub(super) const DAY_SECONDS: u64 = 28_800;
/// When the answer rate of the world `jump` jumps.
pub(super) const JUMP_SECONDS: u64 = 14_400;

/// What happens on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(super) enum World {
    /// A quarter of the called answer, all day.
    Steady,
    /// The answer rate walks at random between 8 % and 50 %.
    Walk,
    /// 15 % answer until noon, 40 % after it.
    Jump,
    /// As `walk`; half of the agents leave for two hours in the middle of the day.
    Shift,
    /// As `walk`; calls take twice as long as the policy was told.
    Handle,
}

impl World {
    pub(super) fn name(self) -> &'static str {
        match self {
            World::Steady => "steady",
            World::Walk => "walk",
            World::Jump => "jump",
            World::Shift => "shift",
            World::Handle => "handle",
        }
    }

    /// The campaign of this world with so many agents.
    pub(super) fn campaign(self, agents: u32) -> CampaignScenario {
        let walking = Answering::Drifting { start: 0.25, min: 0.08, max: 0.50, per_minute: 0.01 };
        let answering = match self {
            World::Steady => Answering::Constant { rate: 0.25 },
            World::Jump => Answering::Steps { steps: vec![(0, 0.15), (JUMP_SECONDS, 0.40)] },
            World::Walk | World::Shift | World::Handle => walking,
        };
        CampaignScenario {
            id: format!("{}-{agents}", self.name()),
            name: self.name().to_owned(),
            agents,
            dial_rate: 1.0,
            min_dial_rate: 1.0,
            max_dial_rate: 10.0,
            answering,
            talk_seconds: if self == World::Handle { 2.0 * TOLD_HANDLE_SECONDS } else { TOLD_HANDLE_SECONDS },
            talk_variation: 0.7,
            wrap_up_seconds: 0.0,
            break_every_seconds: 0.0,
            break_seconds: 0.0,
            shift_seconds: 2 * DAY_SECONDS,
            away_seconds: 0,
            login_spread_seconds: 60,
            half_away: (self == World::Shift).then_some((10_800, 18_000)),
            ..CampaignScenario::default()
        }
    }
}

/// Mean handle time that policies are told, seconds.
pub(super) const TOLD_HANDLE_SECONDS: f64 = 150.0;
