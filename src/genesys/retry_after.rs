//! `Retry-After`: seconds, whole or not, or an HTTP date.

use std::time::Duration;

use crate::clock;
use crate::model::Timestamp;

/// How long to wait from now on, for a reply that has just come; see [`retry_after_at`].
pub fn retry_after(value: &str, date: Option<&str>, limit: Duration) -> Option<Duration> {
    retry_after_at(value, date, clock::now(), limit)
}

/// How long to wait from now on. A date counts from the reply's own `Date` where
/// it has one, so that clocks that differ do no harm. Waits longer than `limit`
/// are cut to it; a value that cannot be read is as if absent.
fn retry_after_at(value: &str, date: Option<&str>, now: Timestamp, limit: Duration) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        if seconds.is_nan() || seconds < 0.0 {
            return None;
        }
        return Some(Duration::try_from_secs_f64(seconds).unwrap_or(limit).min(limit));
    }
    let until = http_date(value)?;
    let from = date.and_then(|date| http_date(date.trim())).unwrap_or(now);
    let wait_ms = u64::try_from(until.millis_since(from)).unwrap_or(0);
    Some(Duration::from_millis(wait_ms).min(limit))
}

fn http_date(value: &str) -> Option<Timestamp> {
    httpdate::parse_http_date(value).ok().map(Timestamp::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);

    fn read(value: &str, date: Option<&str>) -> Option<f64> {
        // 2026-01-02T03:04:05Z
        let now = Timestamp::from_millis(1_767_323_045_000);
        retry_after_at(value, date, now, LIMIT).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn all_spellings_are_read() {
        assert_eq!(read("12", None), Some(12.0));
        assert_eq!(read(" 0.25 ", None), Some(0.25));
        assert_eq!(read("0", None), Some(0.0));
        assert_eq!(read("Fri, 02 Jan 2026 03:04:15 GMT", None), Some(10.0));
        assert_eq!(read("Friday, 02-Jan-26 03:04:15 GMT", None), Some(10.0));
        assert_eq!(read("Fri Jan  2 03:04:15 2026", None), Some(10.0));
    }

    #[test]
    fn a_date_counts_from_the_replys_own_clock() {
        let date = Some("Fri, 02 Jan 2026 02:00:00 GMT");
        assert_eq!(read("Fri, 02 Jan 2026 02:00:07 GMT", date), Some(7.0));
        assert_eq!(read("Fri, 02 Jan 2026 01:59:00 GMT", date), Some(0.0), "already past");
        assert_eq!(read("Fri, 02 Jan 2026 03:04:15 GMT", Some("yesterday")), Some(10.0));
    }

    #[test]
    fn absurd_waits_are_cut_and_nonsense_is_absent() {
        for value in ["601", "1e300", "inf", "Fri, 02 Jan 2099 03:04:15 GMT"] {
            assert_eq!(read(value, None), Some(600.0), "{value}");
        }
        for value in ["", "soon", "-1", "NaN", "12 seconds", "2026-01-02T03:04:15Z"] {
            assert_eq!(read(value, None), None, "{value}");
        }
    }
}
