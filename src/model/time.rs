//! Points in time with the precision the topics promise.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Milliseconds since the Unix epoch, UTC. On the wire RFC 3339 with exactly
/// three decimals (`2026-01-02T03:04:05.678Z`).
///
/// Range: years 0001 to 9999, which is what RFC 3339 can spell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    pairs
};

/// `0001-01-01T00:00:00Z` and `9999-12-31T23:59:59.999Z`.
const RANGE_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

impl Timestamp {
    /// The earliest point in time that can be written down.
    pub const MIN: Timestamp = Timestamp(*RANGE_MS.start());

    /// Values outside the range of RFC 3339 are moved to its nearest end.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(*RANGE_MS.start(), *RANGE_MS.end()))
    }

    /// Seconds since the Unix epoch, which must be in range.
    pub(super) const fn from_seconds(seconds: i64) -> Self {
        Self(seconds * 1_000)
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Milliseconds from `earlier` to `self`; negative when `earlier` is later.
    pub fn millis_since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0
    }

    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }

    pub fn minus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_millis(self.0.saturating_sub(millis))
    }

    /// The beginning of its month, UTC.
    pub fn month(self) -> Self {
        let (year, month, _) = civil_from_days(self.0.div_euclid(86_400_000));
        Self(days_from_civil(year, month, 1) * 86_400_000)
    }

    /// Writes `2026-01-02T03:04:05.678Z` without allocating: this runs several
    /// times for every record.
    fn write(self) -> [u8; 24] {
        let days = self.0.div_euclid(86_400_000);
        let millis_of_day = self.0.rem_euclid(86_400_000);
        let (year, month, day) = civil_from_days(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |at: usize, below_100: i64| {
            text[at..at + 2].copy_from_slice(&PAIRS[below_100 as usize]);
        };
        put(0, year / 100);
        put(2, year % 100);
        put(5, month);
        put(8, day);
        put(11, millis_of_day / 3_600_000);
        put(14, millis_of_day / 60_000 % 60);
        put(17, millis_of_day / 1_000 % 60);
        let millis = millis_of_day % 1_000;
        put(20, millis / 10);
        text[22] = b'0' + (millis % 10) as u8;
        text
    }

    /// Reads exactly the form that `write` produces; `None` sends the caller
    /// to the full parser.
    fn read_own_form(text: &[u8]) -> Option<Self> {
        let text: &[u8; 24] = text.try_into().ok()?;
        let number = |from: usize, to: usize| {
            text[from..to].iter().try_fold(0i64, |value, byte| {
                byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
            })
        };
        let marks = text[4] == b'-'
            && text[7] == b'-'
            && text[10] == b'T'
            && text[13] == b':'
            && text[16] == b':'
            && text[19] == b'.'
            && text[23] == b'Z';
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let in_range = year >= 1
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        (marks && in_range).then_some(())?;
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Self(seconds * 1_000 + number(20, 23)?))
    }
}

/// Proleptic Gregorian calendar by era arithmetic: H. Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The Unix epoch where the clock stands before it.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.write()).expect("ASCII digits"))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an RFC 3339 time with an offset.
#[derive(Debug, thiserror::Error)]
#[error("not an RFC 3339 time such as 2026-01-02T03:04:05.678Z: {0}")]
pub struct TimestampError(jiff::Error);

impl FromStr for Timestamp {
    type Err = TimestampError;

    /// Any RFC 3339 time; digits beyond the millisecond are cut off.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(timestamp) = Self::read_own_form(text.as_bytes()) {
            return Ok(timestamp);
        }
        let parsed: jiff::Timestamp = text.parse().map_err(TimestampError)?;
        Ok(Self::from_millis(parsed.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.write()).expect("ASCII digits"))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339, UTC, milliseconds"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_millisecond_survives_the_wire(millis in RANGE_MS) {
            let written = Timestamp(millis).to_string();
            prop_assert_eq!(Timestamp::read_own_form(written.as_bytes()), Some(Timestamp(millis)));
        }

        #[test]
        fn our_calendar_agrees_with_jiff(millis in RANGE_MS) {
            let theirs = jiff::Timestamp::from_millisecond(millis).unwrap();
            prop_assert_eq!(Timestamp(millis).to_string(), format!("{theirs:.3}"));
        }
    }

    #[test]
    fn other_spellings_are_read_and_nonsense_is_refused() {
        let expected = Timestamp::from_millis(1_767_323_045_678);
        for text in
            ["2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678999Z", "2026-01-02T04:04:05.678+01:00"]
        {
            assert_eq!(text.parse::<Timestamp>().unwrap(), expected, "{text}");
        }
        for text in ["", "now", "2026-02-30T00:00:00.000Z", "2026-01-02T03:04:05.678"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
