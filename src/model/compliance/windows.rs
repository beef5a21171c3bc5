//! The five windows, in the campaign's local time.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan as _};
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Days of a successive period (16 CFR 310.4(b)(4)(i), 47 CFR 64.1200(a)(7)).
const PERIOD_DAYS: i64 = 30;
const HOUR_MS: i64 = 3_600_000;
/// Windows named in one answer at most: a month of hours with all that end in them.
const MOST_WINDOWS: usize = 2_000;

/// Which windows figures are counted over.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Clock hours.
    Hour,
    /// From local midnight to local midnight: 23 to 25 hours.
    Day,
    /// The 24 hours that end at a full hour, or now.
    #[serde(rename = "rolling_24h")]
    Rolling24h,
    /// Successive periods of 30 local days from the campaign's first day; they do not roll.
    #[serde(rename = "period_30d")]
    Period30d,
    /// From the campaign's first day on.
    Life,
}

impl WindowKind {
    pub const ALL: [WindowKind; 5] =
        [WindowKind::Hour, WindowKind::Day, WindowKind::Rolling24h, WindowKind::Period30d, WindowKind::Life];

    pub fn name(self) -> &'static str {
        match self {
            WindowKind::Hour => "hour",
            WindowKind::Day => "day",
            WindowKind::Rolling24h => "rolling_24h",
            WindowKind::Period30d => "period_30d",
            WindowKind::Life => "life",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One window: from `start` on and before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub kind: WindowKind,
    pub start: Timestamp,
    pub end: Timestamp,
    /// The local day it is filed under: the one it begins on; of a rolling window and of the
    /// campaign's life the one whose last moment or whose part it ends with.
    pub day: Date,
}

/// A campaign's local time and its first day.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    first_day: Date,
}

/// Why there is no calendar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time zone of the IANA database, such as Europe/London")]
pub struct CalendarError(pub String);

impl Calendar {
    /// `began_at` is any moment of the campaign's first day.
    ///
    /// # Errors
    /// When there is no such time zone.
    pub fn new(time_zone: &str, began_at: Timestamp) -> Result<Self, CalendarError> {
        let zone = TimeZone::get(time_zone).map_err(|_| CalendarError(time_zone.to_owned()))?;
        let first_day = local_day(&zone, began_at);
        Ok(Self { zone, first_day })
    }

    /// The local day of a moment.
    pub fn day_of(&self, at: Timestamp) -> Date {
        local_day(&self.zone, at)
    }

    /// A local day.
    pub fn day(&self, day: Date) -> Window {
        Window { kind: WindowKind::Day, start: self.midnight(day), end: self.midnight(next(day, 1)), day }
    }

    /// The clock hour that holds `at`.
    pub fn hour(&self, at: Timestamp) -> Window {
        let start = Timestamp::from_millis(full_hour_ms(at));
        let end = Timestamp::from_millis(start.as_millis() + HOUR_MS);
        Window { kind: WindowKind::Hour, start, end, day: self.day_of(start) }
    }

    /// The 24 hours before `end`.
    pub fn rolling(&self, end: Timestamp) -> Window {
        let start = Timestamp::from_millis(end.as_millis() - 24 * HOUR_MS);
        let last = Timestamp::from_millis(end.as_millis() - 1);
        Window { kind: WindowKind::Rolling24h, start, end, day: self.day_of(last) }
    }

    /// The `number`-th period of 30 days, from 1.
    pub fn period(&self, number: u32) -> Window {
        let day = next(self.first_day, PERIOD_DAYS * (i64::from(number.max(1)) - 1));
        let end = self.midnight(next(day, PERIOD_DAYS));
        Window { kind: WindowKind::Period30d, start: self.midnight(day), end, day }
    }

    /// Which period holds `at`; 1 for what is before the first day.
    pub fn period_number(&self, at: Timestamp) -> u32 {
        let since = self.day_of(at).duration_since(self.first_day);
        let days = since.as_hours() / 24;
        u32::try_from(days.div_euclid(PERIOD_DAYS) + 1).unwrap_or(1).max(1)
    }

    /// The campaign's life up to `end`.
    pub fn life(&self, end: Timestamp) -> Window {
        let last = Timestamp::from_millis(end.as_millis() - 1);
        let start = self.midnight(self.first_day).min(last);
        Window { kind: WindowKind::Life, start, end, day: self.day_of(last) }
    }

    /// The window of a kind that is open at `now`.
    pub fn open(&self, kind: WindowKind, now: Timestamp) -> Window {
        match kind {
            WindowKind::Hour => self.hour(now),
            WindowKind::Day => self.day(self.day_of(now)),
            WindowKind::Rolling24h => self.rolling(now),
            WindowKind::Period30d => self.period(self.period_number(now)),
            WindowKind::Life => self.life(now),
        }
    }

    /// The windows of all kinds that ended in the full hours after `after` and by `upto`, hour by
    /// hour, and the hour up to which they are told: there may be too many for one answer. Rolling
    /// windows end with every full hour, the campaign's life is told with every local day.
    pub fn closed(&self, after: Timestamp, upto: Timestamp) -> (Vec<Window>, Timestamp) {
        let mut windows = Vec::new();
        let mut told_ms = full_hour_ms(after);
        while told_ms + HOUR_MS <= upto.as_millis() && windows.len() < MOST_WINDOWS {
            told_ms += HOUR_MS;
            self.add_closed(Timestamp::from_millis(told_ms), &mut windows);
        }
        (windows, Timestamp::from_millis(told_ms))
    }

    /// Those that end at a full hour or, where local midnight is none, within the hour before it.
    fn add_closed(&self, hour_end: Timestamp, windows: &mut Vec<Window>) {
        let hour_start = Timestamp::from_millis(hour_end.as_millis() - HOUR_MS);
        let midnight = self.midnight(self.day_of(hour_end));
        if midnight > hour_start {
            let yesterday = next(self.day_of(hour_end), -1);
            windows.push(self.day(yesterday));
            windows.push(self.life(midnight));
            let period = self.period(self.period_number(midnight).saturating_sub(1).max(1));
            if period.end == midnight {
                windows.push(period);
            }
        }
        windows.push(self.hour(hour_start));
        windows.push(self.rolling(hour_end));
    }

    /// The first moment of a local day; where a change of the clocks takes midnight away, the
    /// moment after it.
    fn midnight(&self, day: Date) -> Timestamp {
        let zoned = day.to_zoned(self.zone.clone()).and_then(|zoned| zoned.start_of_day());
        zoned.map_or(Timestamp::MIN, |zoned| Timestamp::from_millis(zoned.timestamp().as_millisecond()))
    }
}

fn full_hour_ms(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(HOUR_MS) * HOUR_MS
}

fn local_day(zone: &TimeZone, at: Timestamp) -> Date {
    let timestamp = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    zone.to_datetime(timestamp).date()
}

fn next(day: Date, days: i64) -> Date {
    day.saturating_add(days.days())
}

/// Length of a window.
impl Window {
    pub fn length(&self) -> SignedDuration {
        SignedDuration::from_millis(self.end.millis_since(self.start))
    }

    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn london(began: &str) -> Calendar {
        Calendar::new("Europe/London", at(began)).unwrap()
    }

    #[test]
    fn days_are_local_and_as_long_as_the_clocks_make_them() {
        let calendar = london("2026-03-01T12:00:00Z");
        for (day, start, end, hours) in [
            ("2026-03-28", "2026-03-28T00:00:00Z", "2026-03-29T00:00:00Z", 24),
            ("2026-03-29", "2026-03-29T00:00:00Z", "2026-03-29T23:00:00Z", 23),
            ("2026-10-25", "2026-10-24T23:00:00Z", "2026-10-26T00:00:00Z", 25),
        ] {
            let window = calendar.day(day.parse().unwrap());
            assert_eq!((window.start, window.end), (at(start), at(end)), "{day}");
            assert_eq!(window.length().as_hours(), hours, "{day}");
        }
        assert!(
            calendar.day_of(at("2026-03-29T22:59:59.999Z")) < calendar.day_of(at("2026-03-29T23:00:00Z"))
        );
        // Midnight does not exist on this day.
        let beirut = Calendar::new("Asia/Beirut", at("2026-01-01T00:00:00Z")).unwrap();
        let window = beirut.day("2026-03-29".parse().unwrap());
        assert_eq!((window.start, window.length().as_hours()), (at("2026-03-28T22:00:00Z"), 23));
    }

    #[test]
    fn periods_follow_each_other_from_the_first_day_and_do_not_roll() {
        let calendar = london("2026-03-10T18:00:00Z");
        let (first, second) = (calendar.period(1), calendar.period(2));
        assert_eq!(first.start, at("2026-03-10T00:00:00Z"), "the whole first day");
        assert_eq!((first.end, second.start), (at("2026-04-08T23:00:00Z"), at("2026-04-08T23:00:00Z")));
        assert_eq!(calendar.period_number(at("2026-04-08T22:59:59Z")), 1);
        assert_eq!(calendar.period_number(at("2026-04-08T23:00:00Z")), 2);
        assert_eq!(calendar.period_number(at("2026-01-01T00:00:00Z")), 1);
        assert_eq!(calendar.open(WindowKind::Period30d, at("2026-05-01T00:00:00Z")), second);
    }

    #[test]
    fn every_window_is_told_once_when_it_ends_however_the_time_is_cut() {
        let calendar = london("2026-03-10T18:00:00Z");
        let (from, to) = (at("2026-03-10T17:20:00Z"), at("2026-05-12T00:30:00Z"));
        let whole: Vec<Window> = cut(&calendar, from, to, 40 * HOUR_MS);
        let (first, reached) = calendar.closed(from, to);
        assert!(first.len() < whole.len() && reached < to, "too many for one answer");
        let (rest, reached) = calendar.closed(reached, to);
        assert_eq!(([first, rest].concat(), reached), (whole.clone(), at("2026-05-12T00:00:00Z")));
        for step_ms in [HOUR_MS / 3, HOUR_MS, 5 * HOUR_MS + 1] {
            assert_eq!(cut(&calendar, from, to, step_ms), whole, "{step_ms}");
        }
        let of = |kind| whole.iter().filter(|window| window.kind == kind).collect::<Vec<_>>();
        let days = of(WindowKind::Day);
        assert_eq!((days.len(), of(WindowKind::Life).len()), (63, 63));
        assert!(days.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(of(WindowKind::Period30d), [&calendar.period(1), &calendar.period(2)]);
        let hours = of(WindowKind::Hour);
        assert!(hours.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(hours.len(), of(WindowKind::Rolling24h).len());
        assert!(of(WindowKind::Rolling24h).iter().all(|window| window.length().as_hours() == 24));
    }

    fn cut(calendar: &Calendar, from: Timestamp, to: Timestamp, step_ms: i64) -> Vec<Window> {
        let mut told = Vec::new();
        let mut after = from;
        while after < to {
            let upto = Timestamp::from_millis(after.as_millis() + step_ms).min(to);
            let (windows, reached) = calendar.closed(after, upto);
            assert!(reached <= upto);
            told.extend(windows);
            after = upto;
        }
        told
    }

    /// Local midnight is at half past the hour.
    #[test]
    fn days_that_end_between_hours_are_told_with_the_hour() {
        let calendar = Calendar::new("Asia/Kolkata", at("2026-01-01T00:00:00Z")).unwrap();
        let told = cut(&calendar, at("2026-01-02T00:00:00Z"), at("2026-01-05T00:00:00Z"), HOUR_MS / 2);
        let days: Vec<_> = told.iter().filter(|window| window.kind == WindowKind::Day).collect();
        assert_eq!(
            days.iter().map(|window| window.day.to_string()).collect::<Vec<_>>(),
            ["2026-01-02", "2026-01-03", "2026-01-04"]
        );
        assert_eq!(days[0].end, at("2026-01-02T18:30:00Z"));
    }

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        let window = london("2026-03-01T12:00:00Z").day("2026-03-02".parse().unwrap());
        assert!(window.contains(window.start) && !window.contains(window.end));
        assert_eq!(Calendar::new("Mars/Olympus", window.start).unwrap_err().0, "Mars/Olympus");
    }
}
