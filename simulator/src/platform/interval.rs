//! `start/end` and periods, as analytics take them.

use std::time::Duration;

use crate::input::invalid;
use crate::reply::Refusal;
use crate::time::Timestamp;

const DAY_MS: i64 = 86_400_000;
/// Pieces one query may cut its interval into.
const MAX_PIECES: i64 = 20_000;

/// From `start` up to, and without, `end`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Interval {
    /// # Errors
    /// 400 for anything but two times in order.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
        let times = text.split_once('/').and_then(|(start, end)| Some((time(start)?, time(end)?)));
        let (start, end) = times.filter(|(start, end)| start < end).ok_or_else(|| {
            invalid(format!("interval {text:?} must be start/end in ISO-8601, start before end"))
                .with_detail("invalid.date", "interval")
        })?;
        let of = |time: jiff::Timestamp| Timestamp::from_millis(time.as_millisecond());
        Ok(Self { start: of(start), end: of(end) })
    }

    pub(super) fn length_ms(self) -> i64 {
        self.end.millis_since(self.start)
    }

    /// # Errors
    /// 400 for a longer one.
    pub(super) fn check_days(self, max_days: i64) -> Result<(), Refusal> {
        if self.length_ms() <= max_days * DAY_MS {
            return Ok(());
        }
        Err(invalid(format!("interval must not be longer than {max_days} days"))
            .with_detail("invalid.value", "interval"))
    }

    /// Whether a moment lies on one of the UTC days the interval touches.
    pub(super) fn touches_day_of(self, at: Timestamp) -> bool {
        let day = |at: Timestamp| at.as_millis().div_euclid(DAY_MS);
        let last = Timestamp::from_millis(self.end.as_millis() - 1);
        (day(self.start)..=day(last)).contains(&day(at))
    }

    /// The interval in pieces of a period, the last one cut off at its end.
    ///
    /// # Errors
    /// 400 for no period, one under a minute, and too many pieces.
    pub(super) fn pieces(self, granularity: Option<&str>) -> Result<Vec<Self>, Refusal> {
        let Some(granularity) = granularity else { return Ok(vec![self]) };
        let wrong = || {
            let message = format!("granularity {granularity:?} must be an ISO-8601 period of at least PT1M");
            invalid(message).with_detail("invalid.value", "granularity")
        };
        let span: jiff::Span = granularity.parse().map_err(|_| wrong())?;
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        let length = span.to_duration(days).map_err(|_| wrong())?.as_millis();
        let length = i64::try_from(length).ok().filter(|ms| *ms >= 60_000).ok_or_else(wrong)?;
        if self.length_ms() / length > MAX_PIECES {
            return Err(invalid(format!(
                "granularity must cut the interval into at most {MAX_PIECES} pieces"
            )));
        }
        let mut pieces = Vec::new();
        let mut start = self.start;
        while start < self.end {
            let end = start.plus(Duration::from_millis(length.unsigned_abs())).min(self.end);
            pieces.push(Self { start, end });
            start = end;
        }
        Ok(pieces)
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(text: &str) -> Interval {
        Interval::read(text).unwrap()
    }

    #[test]
    fn an_interval_is_cut_by_its_granularity() {
        let hour = interval("2026-01-02T03:00:00.000Z/2026-01-02T04:10:00.000Z");
        let pieces: Vec<String> =
            hour.pieces(Some("PT30M")).unwrap().iter().map(Interval::to_string).collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[2], "2026-01-02T04:00:00.000Z/2026-01-02T04:10:00.000Z");
        assert_eq!(hour.pieces(None).unwrap(), [hour]);
        for wrong in ["PT30S", "30", "", "P", "-PT5M"] {
            assert!(hour.pieces(Some(wrong)).is_err(), "{wrong}");
        }
        let month = interval("2026-01-01T00:00Z/2026-02-01T00:00Z");
        assert!(month.pieces(Some("P1D")).unwrap().len() == 31 && month.pieces(Some("PT1M")).is_err());
    }

    #[test]
    fn days_are_those_of_utc_that_it_touches() {
        let asked = interval("2026-01-02T23:59:59.000Z/2026-01-03T00:00:00.000Z");
        let touches =
            |text: &str| asked.touches_day_of(interval(&format!("{text}/2030-01-01T00:00:00Z")).start);
        assert!(touches("2026-01-02T00:00:00Z") && touches("2026-01-02T23:59:59.999Z"));
        assert!(!touches("2026-01-03T00:00:00Z") && !touches("2026-01-01T23:59:59.999Z"));
        assert!(Interval::read("2026-01-02T00:00:00Z").is_err() && Interval::read("b/a").is_err());
        assert!(Interval::read("2026-01-02T00:00:00Z/2026-01-02T00:00:00Z").is_err());
        assert!(
            asked.check_days(1).is_ok()
                && interval("2026-01-01T00:00Z/2026-01-02T00:00:01Z").check_days(1).is_err()
        );
    }
}
