//! Which window is meant.

use jiff::civil::Date;

use crate::model::Timestamp;
use crate::model::compliance::{Calendar, Window, WindowKind};

/// What is allowed, for people.
pub(super) const ALLOWED: &str = "2026-01-31 (a local day), 2026-01-31T14 (an hour, UTC), 24h:2026-01-31T14:00:00Z (the 24 hours \
     before it), 30d:2 (the second period of 30 days) or life";

/// A period as it is written on the command line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Period {
    Day(Date),
    /// Any moment of it.
    Hour(Timestamp),
    /// Its end.
    Rolling24h(Timestamp),
    /// From 1.
    Period30d(u32),
    Life,
}

impl std::str::FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("must be {ALLOWED}");
        if text == "life" {
            return Ok(Self::Life);
        }
        if let Some(end) = text.strip_prefix("24h:") {
            return end.parse().map(Self::Rolling24h).map_err(|_| refused());
        }
        if let Some(number) = text.strip_prefix("30d:") {
            let number = number.parse().ok().filter(|number| *number >= 1).ok_or_else(refused)?;
            return Ok(Self::Period30d(number));
        }
        if let Some((day, hour)) = text.split_once('T') {
            let moment = format!("{day}T{hour}:00:00Z");
            return moment.parse().map(Self::Hour).map_err(|_| refused());
        }
        text.parse().map(Self::Day).map_err(|_| refused())
    }
}

impl Period {
    /// The window; a campaign's life ends with the last full hour.
    pub(super) fn window(self, calendar: &Calendar, now: Timestamp) -> Window {
        match self {
            Self::Day(day) => calendar.day(day),
            Self::Hour(at) => calendar.hour(at),
            Self::Rolling24h(end) => calendar.rolling(end),
            Self::Period30d(number) => calendar.period(number),
            Self::Life => calendar.life(calendar.hour(now).start),
        }
    }
}

/// A window in a file's name.
pub(super) fn file_name(window: &Window) -> String {
    let start = window.start.to_string()[..13].to_owned();
    match window.kind {
        WindowKind::Day => window.day.to_string(),
        WindowKind::Hour => start,
        WindowKind::Rolling24h => format!("24h-from-{start}"),
        WindowKind::Period30d => format!("30d-from-{}", window.day),
        WindowKind::Life => format!("life-to-{}", &window.end.to_string()[..13]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_written_shortly_and_mistakes_refused() {
        let now = "2026-03-03T10:20:00Z".parse().unwrap();
        let calendar = Calendar::new("Europe/London", "2026-01-05T10:00:00Z".parse().unwrap()).unwrap();
        for (text, name) in [
            ("2026-01-31", "2026-01-31"),
            ("2026-01-31T14", "2026-01-31T14"),
            ("24h:2026-01-31T14:00:00Z", "24h-from-2026-01-30T14"),
            ("30d:2", "30d-from-2026-02-04"),
            ("life", "life-to-2026-03-03T10"),
        ] {
            let window = text.parse::<Period>().unwrap().window(&calendar, now);
            assert_eq!(file_name(&window), name, "{text}");
        }
        for text in
            ["", "30d:0", "30d:x", "24h:yesterday", "2026-13-01", "2026-01-31T25", "day", "2026-01-31T1400"]
        {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
