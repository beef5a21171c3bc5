//! What holds for single campaigns as it stands in the configuration.

use jiff::civil::Date;
use toml::Value as Toml;

use super::item::Item;
use crate::model::Timestamp;
use crate::model::compliance::{Calendar, Estimates};

/// Names every campaign that has no entry of its own.
pub(super) const EVERY_OTHER: &str = "*";

/// One campaign's entry; what it leaves out is as for all.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignEntry {
    pub id: String,
    pub time_zone: Option<String>,
    pub began_at: Option<Timestamp>,
    pub cap: Option<f64>,
    pub attempts_per_month: Option<u64>,
    pub estimates: Option<Estimates>,
}

/// What is allowed, for people.
pub(super) const ALLOWED: &str = "a list of { id, time_zone, began_at, cap, attempts_per_month, machines_among_abandoned, \
     persons_among_machines, estimate_source, estimate_date }: ids all different, * for every other campaign, time_zone \
     of the IANA database, began_at such as 2026-01-31T08:00:00Z, cap and estimates from 0 to 1, attempts_per_month a whole number, estimates with their \
     source and date (2026-01-31) or none of the four";

const SHARE: &str = "a number from 0 to 1";

/// One of a list; `None` after telling what is not allowed.
pub(super) fn read(item: &mut Item<'_>) -> Option<CampaignEntry> {
    let id = item.text("id", "1 to 200 characters", |id| (1..=200).contains(&id.chars().count()));
    let time_zone =
        optional(item, "time_zone", "a time zone of the IANA database, such as Europe/London", |text| {
            Calendar::new(text, Timestamp::default()).ok().map(|_| text.to_owned())
        });
    let began_at = optional(item, "began_at", "a time such as 2026-01-31T08:00:00Z", |text| {
        text.parse::<Timestamp>().ok()
    });
    let cap = share(item, "cap");
    let attempts_per_month = item.field("attempts_per_month").and_then(|value| {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        if number.is_none() {
            item.fault("attempts_per_month", "a whole number, 0 or more");
        }
        number
    });
    let machines = share(item, "machines_among_abandoned");
    let persons = share(item, "persons_among_machines");
    let source = optional(item, "estimate_source", "text that is not empty", |text| {
        (!text.trim().is_empty()).then(|| text.to_owned())
    });
    let date = optional(item, "estimate_date", "a date such as 2026-01-31", |text| {
        text.parse::<Date>().ok().map(|date| date.to_string())
    });
    let estimates = match (machines, persons, source, date) {
        (None, None, None, None) => None,
        (Some(machines_among_abandoned), Some(persons_among_machines), Some(source), Some(date)) => {
            Some(Estimates { machines_among_abandoned, persons_among_machines, source, date })
        }
        _ => {
            let all = "estimates need all of machines_among_abandoned, persons_among_machines, estimate_source and estimate_date";
            item.fault("estimate_source", all);
            return None;
        }
    };
    Some(CampaignEntry { id: id?.to_owned(), time_zone, began_at, cap, attempts_per_month, estimates })
}

fn optional<T>(
    item: &mut Item<'_>,
    field: &'static str,
    allowed: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let value = item.field(field)?;
    let read = value.as_str().and_then(read);
    if read.is_none() {
        item.fault(field, allowed);
    }
    read
}

fn share(item: &mut Item<'_>, field: &'static str) -> Option<f64> {
    let number = match item.field(field)? {
        Toml::Float(number) => Some(*number),
        Toml::Integer(number) => Some(*number as f64),
        _ => None,
    };
    let number = number.filter(|number| (0.0..=1.0).contains(number));
    if number.is_none() {
        item.fault(field, SHARE);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::super::item::{Fault, list};
    use super::*;

    fn read_text(text: &str) -> Result<Vec<CampaignEntry>, Vec<Fault>> {
        let table: toml::Table = format!("campaigns = {text}").parse().unwrap();
        list(table["campaigns"].as_array().unwrap(), read, |entry| &entry.id)
    }

    const GOOD: &str = r#"[{ id = "a", time_zone = "Europe/London", began_at = "2026-01-31T08:00:00Z", cap = 0.02,
        machines_among_abandoned = 0.1, persons_among_machines = 0, estimate_source = "sample", estimate_date = "2026-01-31" },
        { id = "*", cap = 0, attempts_per_month = 15000 }]"#;

    #[test]
    fn entries_are_read_and_mistakes_refused() {
        let entries = read_text(GOOD).unwrap();
        assert_eq!((entries[0].cap, entries[1].cap), (Some(0.02), Some(0.0)));
        assert_eq!(entries[0].estimates.as_ref().unwrap().source, "sample");
        assert_eq!((entries[0].attempts_per_month, entries[1].attempts_per_month), (None, Some(15_000)));
        assert_eq!(entries[1].estimates, None);
        for (from, to, place) in [
            ("Europe/London", "Mars/Olympus", "[1].time_zone"),
            ("2026-01-31T08:00:00Z", "yesterday", "[1].began_at"),
            ("cap = 0.02", "cap = 3", "[1].cap"),
            ("= 15000", "= -1", "[2].attempts_per_month"),
            ("estimate_date = \"2026-01-31\"", "cap = 0.02", "[1].estimate_source"),
            ("\"*\"", "\"a\"", "[2].name"),
            ("\"sample\"", "\" \"", "[1].estimate_source"),
        ] {
            let text = if place == "[1].estimate_source" && from.starts_with("estimate_date") {
                GOOD.replace(", estimate_date = \"2026-01-31\"", "")
            } else {
                GOOD.replace(from, to)
            };
            assert_eq!(read_text(&text).unwrap_err()[0].place, place, "{from} as {to}");
        }
    }
}
