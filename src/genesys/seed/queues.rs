//! Who is available in a queue.

use serde_json::{Map, Value};

use super::super::path::PathSegment;
use super::super::queues::Available;

pub(crate) fn availability_path(queue_id: &str) -> String {
    format!("/api/v2/analytics/queues/{}/availability", PathSegment(queue_id))
}

/// What a percentage goes by: the seed says no more than that there is one.
const PERCENTAGES: &[&str] = &["percentage", "availabilityPercentage", "availabilityPercent"];
/// A percentage or a share: up to 1 it is a share.
const AVAILABILITY: &str = "availability";
const AGENTS: &[&str] = &["availableAgents", "agentsAvailable"];

/// Reads an availability; where it is told twice, either will do. The error says which value
/// is impossible.
pub(crate) fn read_availability(body: &[u8]) -> Result<Available, String> {
    let read: Map<String, Value> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let given = |name: &&str| read.get(*name).filter(|value| !value.is_null());
    let percentage = |value: &Value| value.as_f64().filter(|value| (0.0..=100.0).contains(value));
    let share = |percentage: f64| if percentage <= 1.0 { percentage } else { percentage / 100.0 };
    let told = PERCENTAGES.iter().filter_map(given).find_map(percentage).map(|percentage| percentage / 100.0);
    let told = told.or_else(|| given(&AVAILABILITY).and_then(percentage).map(share));
    let Some(availability) = told else {
        let mut names = PERCENTAGES.iter().chain([&AVAILABILITY]);
        return Err(match names.find_map(|name| Some((name, given(name)?))) {
            None => format!("none of {}, {AVAILABILITY} is given", PERCENTAGES.join(", ")),
            Some((name, value)) => {
                let shown: String = value.to_string().chars().take(80).collect();
                format!("{name} is {shown}; it must be a number from 0 to 100")
            }
        });
    };
    let count = |value: &Value| value.as_u64().and_then(|count| u32::try_from(count).ok());
    let agents = match AGENTS.iter().filter_map(given).collect::<Vec<_>>().as_slice() {
        [] => None,
        told => Some(told.iter().copied().find_map(count).ok_or("an impossible number of agents")?),
    };
    Ok(Available { availability, agents })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_become_fractions_and_impossible_ones_are_told() {
        let read = |text: &str| read_availability(text.as_bytes());
        assert_eq!(read(r#"{"percentage":42}"#), Ok(Available { availability: 0.42, agents: None }));
        assert_eq!(
            read(r#"{"availability":0,"availableAgents":0,"queueId":"q"}"#),
            Ok(Available { availability: 0.0, agents: Some(0) })
        );
        let half = Ok(Available { availability: 0.5, agents: None });
        for twice in [
            r#"{"availability":0.5,"availabilityPercentage":50}"#,
            r#"{"availabilityPercentage":50,"availability":50}"#,
            r#"{"availabilityPercentage":null,"availability":0.5}"#,
            r#"{"availabilityPercentage":"n/a","availability":50}"#,
            r#"{"availability":-1,"percentage":50}"#,
        ] {
            assert_eq!(read(twice), half, "{twice}");
        }
        let agents = r#"{"percentage":50,"availableAgents":3,"agentsAvailable":3}"#;
        assert_eq!(read(agents), Ok(Available { availability: 0.5, agents: Some(3) }));
        for wrong in
            [r#"{"percentage":100.5}"#, r#"{"percentage":-1}"#, "{}", r#"{"percentage":"4"}"#, "<html>"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(r#"{"percentage":1,"availableAgents":-1}"#).is_err());
    }
}
