//! What of a month's allowance is used, what it will come to and cost, and how polls make room
//! for actions. Pure: the moment is passed in.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::Timestamp;

/// What a month covers, and what is paid beyond it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Units a month; `None` where nobody has said.
    pub per_month: Option<u64>,
    /// Money for each unit beyond, in the currency of the configuration; `None` where unknown.
    pub price: Option<f64>,
}

/// What campaigns may use of call attempts in a month.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowances {
    /// Of all campaigns together: what the licences cover.
    pub all: Terms,
    /// What single campaigns may use, by id.
    pub campaigns: BTreeMap<String, u64>,
    /// What each campaign without an own entry may use.
    pub every_other: Option<u64>,
}

impl Allowances {
    /// One campaign's own; attempts have the price they have for all.
    pub fn of_campaign(&self, id: &str) -> Terms {
        Terms { per_month: self.campaigns.get(id).copied().or(self.every_other), price: self.all.price }
    }

    /// Whether any campaign is limited by itself.
    pub fn limit_campaigns(&self) -> bool {
        self.every_other.is_some() || !self.campaigns.is_empty()
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Units since the month began.
    pub month_to_date: u64,
    /// Units a second as they come now.
    pub per_second: f64,
}

/// How a month stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Units since the month began, UTC.
    pub month_to_date: u64,
    /// Units by the month's end, if they go on coming as they do now.
    pub forecast: u64,
    /// Units the month covers; null where nobody has said.
    pub allowance: Option<u64>,
    /// Units left of it; 0 once it is used up.
    pub left: Option<u64>,
    /// Share of it that is used; above 1 once more than it was used.
    pub used: Option<f64>,
    /// What the units beyond it cost so far.
    pub cost: Option<f64>,
    /// What they will have cost by the month's end.
    pub forecast_cost: Option<f64>,
}

/// Of an allowance, the share from which on people are told.
pub const WARN_AT: f64 = 0.8;

impl Standing {
    pub fn new(terms: Terms, counted: Counted, at: Timestamp) -> Self {
        let Counted { month_to_date, per_second } = counted;
        let to_come = (per_second.max(0.0) * seconds_left(at)).round();
        // Saturates: floats beyond the range do.
        let forecast = month_to_date.saturating_add(to_come as u64);
        let cost = |units: u64| {
            let beyond = units.saturating_sub(terms.per_month?);
            Some(beyond as f64 * terms.price?)
        };
        Self {
            month_to_date,
            forecast,
            allowance: terms.per_month,
            left: terms.per_month.map(|allowance| allowance.saturating_sub(month_to_date)),
            used: terms.per_month.map(|allowance| month_to_date as f64 / allowance.max(1) as f64),
            cost: cost(month_to_date),
            forecast_cost: cost(forecast),
        }
    }

    /// Whether nothing is left.
    pub fn is_used_up(&self) -> bool {
        self.left == Some(0)
    }

    /// What people are to be told, if anything.
    pub fn warning(&self) -> Option<Warning> {
        match self.used? {
            _ if self.is_used_up() => Some(Warning::UsedUp),
            used if used >= WARN_AT => Some(Warning::NearlyUsed),
            _ => None,
        }
    }
}

/// How far an allowance is used. Each is told once a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    NearlyUsed,
    UsedUp,
}

/// Seconds until the month ends, UTC.
fn seconds_left(at: Timestamp) -> f64 {
    const LONGER_THAN_A_MONTH: Duration = Duration::from_secs(32 * 86_400);
    let end = at.month().plus(LONGER_THAN_A_MONTH).month();
    end.millis_since(at) as f64 / 1_000.0
}

/// Calls a second, as they would be if nobody were slowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Of those that only look: polls wait for each other's sake.
    pub polls: f64,
    /// Of everybody else: actions, and what other programs call.
    pub others: f64,
}

/// Of an allowance, the share that polls leave to actions.
const KEPT_FOR_ACTIONS: f64 = 0.05;
/// Polls come this many times as far apart at most: what nobody looks at cannot be acted on.
pub const GREATEST_STRETCH: f64 = 10.0;
/// The stretches there are, so that the points of time at which polls come do not wander.
const STRETCHES: [f64; 8] = [1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 7.5, GREATEST_STRETCH];

/// How many times as far apart polls are to come, from 1 to [`GREATEST_STRETCH`], so that what is
/// left of the allowance lasts to the month's end. Actions are never slowed: they have the first
/// claim on what is left.
pub fn poll_stretch(allowance: Option<u64>, month_to_date: u64, demand: Demand, at: Timestamp) -> f64 {
    let Some(allowance) = allowance else { return 1.0 };
    let left = allowance as f64 * (1.0 - KEPT_FOR_ACTIONS) - month_to_date as f64;
    let room = left / seconds_left(at).max(1.0) - demand.others;
    let lasts = |stretch: &f64| room >= 0.0 && demand.polls / stretch <= room;
    STRETCHES.into_iter().find(lasts).unwrap_or(GREATEST_STRETCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_is_forecast_and_priced_beyond_its_allowance() {
        // Ten days of 30 left: 864 000 s.
        let now = at("2026-06-21T00:00:00.000Z");
        let terms = Terms { per_month: Some(20_000), price: Some(0.005) };
        let counted = Counted { month_to_date: 15_000, per_second: 0.01 };
        let standing = Standing::new(terms, counted, now);
        assert_eq!((standing.forecast, standing.left, standing.used), (23_640, Some(5_000), Some(0.75)));
        assert_eq!((standing.cost, standing.forecast_cost), (Some(0.0), Some(3_640.0 * 0.005)));
        assert_eq!(standing.warning(), None);
        let more = |month_to_date| Standing::new(terms, Counted { month_to_date, ..counted }, now);
        assert_eq!(more(16_000).warning(), Some(Warning::NearlyUsed));
        assert_eq!(more(19_999).warning(), Some(Warning::NearlyUsed));
        assert_eq!((more(20_000).warning(), more(20_000).left), (Some(Warning::UsedUp), Some(0)));
        assert_eq!(more(21_000).cost, Some(5.0));
        let unsaid = Standing::new(Terms::default(), counted, now);
        assert_eq!((unsaid.left, unsaid.cost, unsaid.warning()), (None, None, None));
        assert_eq!(unsaid.forecast, 23_640);
        let nothing = Standing::new(Terms { per_month: Some(0), price: None }, Counted::default(), now);
        assert_eq!(nothing.warning(), Some(Warning::UsedUp));
    }

    #[test]
    fn months_end_where_the_calendar_says() {
        let left = |text| seconds_left(at(text));
        assert_eq!(left("2026-02-28T23:59:59.000Z"), 1.0);
        assert_eq!(left("2028-02-28T00:00:00.000Z"), 2.0 * 86_400.0);
        assert_eq!(left("2026-12-31T00:00:00.000Z"), 86_400.0);
        assert_eq!(left("2026-01-01T00:00:00.000Z"), 31.0 * 86_400.0);
    }

    #[test]
    fn polls_make_room_for_what_acts() {
        let now = at("2026-06-21T00:00:00.000Z");
        let stretch =
            |allowance, used, polls, others| poll_stretch(allowance, used, Demand { polls, others }, now);
        assert_eq!(stretch(None, 10, 100.0, 1.0), 1.0, "nothing is said");
        // 0.95 of 1 M less 86 000 makes exactly one call a second.
        assert_eq!(stretch(Some(1_000_000), 86_000, 1.0, 0.0), 1.0);
        assert_eq!(stretch(Some(1_000_000), 86_000, 2.0, 0.0), 2.0);
        assert_eq!(stretch(Some(1_000_000), 86_000, 2.0, 0.5), 5.0, "actions go first");
        assert_eq!(stretch(Some(1_000_000), 86_000, 2.0, 1.0), GREATEST_STRETCH);
        assert_eq!(stretch(Some(1_000_000), 2_000_000, 0.1, 0.0), GREATEST_STRETCH, "used up");
    }

    proptest! {
        /// What is left lasts to the month's end, unless polls are as slow as they get.
        #[test]
        fn slowed_polls_leave_the_allowance_whole(
            allowance in 1_u64..10_000_000,
            share in 0.0..1.2f64,
            polls in 0.0..20.0f64,
            others in 0.0..2.0f64,
            second in 0_i64..2_591_000,
        ) {
            let used = (allowance as f64 * share) as u64;
            let now = at("2026-06-01T00:00:00.000Z").plus(Duration::from_secs(second.unsigned_abs()));
            let stretch = poll_stretch(Some(allowance), used, Demand { polls, others }, now);
            prop_assert!((1.0..=GREATEST_STRETCH).contains(&stretch));
            if stretch < GREATEST_STRETCH {
                let total = used as f64 + (polls / stretch + others) * seconds_left(now);
                prop_assert!(total <= allowance as f64 * (1.0 - KEPT_FOR_ACTIONS) + 1.0, "{total}");
            }
        }
    }
}
