//! Who is available in queues: one observation query for all of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::super::queues::Available;
use super::{Told, aggregates};
use crate::model::outcome::SentRequest;

const ON_QUEUE: &str = "oOnQueueUsers";

/// Agents who do one thing in a queue, at most; more cannot be true.
const AGENTS_LIMIT: f64 = 1e6;

/// Agents of a queue who have put themselves on queue, by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnQueue {
    pub idle: u32,
    pub interacting: u32,
    pub communicating: u32,
    pub not_responding: u32,
}

impl OnQueue {
    /// Agents with a conversation.
    pub(crate) fn busy(self) -> u32 {
        self.interacting.saturating_add(self.communicating)
    }

    /// Adds those who do what the qualifier says; others are not on queue.
    fn add(&mut self, qualifier: Option<&str>, count: f64) -> Result<(), String> {
        let held = match qualifier {
            Some("IDLE") => &mut self.idle,
            Some("INTERACTING") => &mut self.interacting,
            Some("COMMUNICATING") => &mut self.communicating,
            Some("NOT_RESPONDING") => &mut self.not_responding,
            _ => return Ok(()),
        };
        let sum = f64::from(*held) + count;
        if count < 0.0 || sum > AGENTS_LIMIT {
            return Err(format!(
                "{ON_QUEUE} counts {count} agents {}; 0 to {AGENTS_LIMIT} are possible",
                qualifier.unwrap_or_default()
            ));
        }
        *held = sum.round() as u32;
        Ok(())
    }

    /// Share of those on queue who are idle; nobody on queue is none available.
    pub(crate) fn available(self) -> Available {
        let all = f64::from(self.idle)
            + f64::from(self.interacting)
            + f64::from(self.communicating)
            + f64::from(self.not_responding);
        let availability = if all > 0.0 { f64::from(self.idle) / all } else { 0.0 };
        Available { availability, agents: Some(self.idle) }
    }
}

pub(super) fn observations_request(queue_ids: &[String]) -> SentRequest {
    SentRequest {
        method: "POST".to_owned(),
        path: "/api/v2/analytics/queues/observations/query".to_owned(),
        if_match: None,
        body: json!({
            "filter": aggregates::any_of("queueId", queue_ids.iter().map(String::as_str)),
            "metrics": [ON_QUEUE],
        }),
    }
}

/// Reads observations. A queue that is not in them is not known, which is not the same as
/// empty. Figures that cannot be true concern their queue alone. The error says what makes no sense.
pub(super) fn read(body: &[u8]) -> Result<BTreeMap<String, Told<OnQueue>>, String> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Dimensions {
        queue_id: Option<String>,
    }
    #[derive(Deserialize)]
    struct Observed {
        metric: String,
        qualifier: Option<String>,
        stats: Option<Stats>,
    }
    #[derive(Deserialize)]
    struct Stats {
        count: Option<f64>,
    }
    let reply: aggregates::Reply<Dimensions, Observed> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut found: BTreeMap<String, Told<OnQueue>> = BTreeMap::new();
    for aggregates::Group { group, data } in reply.results {
        let Some(queue_id) = group.queue_id else { continue };
        let of = found.entry(queue_id).or_insert_with(|| Ok(OnQueue::default()));
        for observed in data.into_iter().filter(|observed| observed.metric == ON_QUEUE) {
            let count = observed.stats.and_then(|stats| stats.count).unwrap_or(0.0);
            if let Ok(known) = of
                && let Err(problem) = known.add(observed.qualifier.as_deref(), count)
            {
                *of = Err(problem);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const QUEUE: &str = "2d0f3a52-6a6e-4f0b-8a3d-7f0d6a0b1e02";

    #[test]
    fn idle_agents_are_available_and_the_others_on_queue_are_not() {
        let found = read(include_bytes!("fixtures/queue_observations.json")).unwrap();
        let queue = found[QUEUE].clone().unwrap();
        assert_eq!(queue, OnQueue { idle: 3, interacting: 5, communicating: 0, not_responding: 1 });
        assert_eq!(queue.available(), Available { availability: 3.0 / 9.0, agents: Some(3) });
        assert_eq!(queue.busy(), 5);
        assert_eq!(OnQueue::default().available().availability, 0.0, "nobody on queue");
        assert!(!found.contains_key("another"), "not told is not known");
        assert!(read(b"{}").unwrap().is_empty());
    }

    #[test]
    fn absurd_figures_concern_their_queue_alone() {
        let counted = |id: &str, counts: &[&str]| {
            let data = counts.iter().map(|count| {
                format!(r#"{{"metric":"{ON_QUEUE}","qualifier":"IDLE","stats":{{"count":{count}}}}}"#)
            });
            format!(r#"{{"group":{{"queueId":"{id}"}},"data":[{}]}}"#, data.collect::<Vec<_>>().join(","))
        };
        let groups = [
            counted("less", &["-1", "3"]),
            counted("more", &["4294967295", "4294967295"]),
            counted("summed", &["999999", "2"]),
            counted("good", &["3", "4"]),
        ];
        let read = read(format!(r#"{{"results":[{}]}}"#, groups.join(",")).as_bytes()).unwrap();
        for absurd in ["less", "more", "summed"] {
            assert!(read[absurd].as_ref().unwrap_err().contains("IDLE"), "{absurd}");
        }
        assert_eq!(read["good"].as_ref().unwrap().idle, 7);
    }

    #[test]
    fn one_query_asks_about_all_queues() {
        let request = observations_request(&[QUEUE.to_owned()]);
        let example: Value =
            serde_json::from_str(include_str!("fixtures/queue_observations_query.json")).unwrap();
        assert_eq!(request.body["filter"], example["filter"]);
        assert_eq!(request.body["metrics"], json!([ON_QUEUE]));
    }
}
