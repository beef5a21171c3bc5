//! Who is available in queues: one observation query for all of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::super::queues::Available;
use super::aggregates;
use crate::model::outcome::SentRequest;

const ON_QUEUE: &str = "oOnQueueUsers";

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
/// empty. The error says what makes no sense.
pub(super) fn read(body: &[u8]) -> Result<BTreeMap<String, OnQueue>, String> {
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
        count: Option<u32>,
    }
    let reply: aggregates::Reply<Dimensions, Observed> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut found: BTreeMap<String, OnQueue> = BTreeMap::new();
    for aggregates::Group { group, data } in reply.results {
        let Some(queue_id) = group.queue_id else { continue };
        let of = found.entry(queue_id).or_default();
        for observed in data.into_iter().filter(|observed| observed.metric == ON_QUEUE) {
            let count = observed.stats.and_then(|stats| stats.count).unwrap_or(0);
            match observed.qualifier.as_deref() {
                Some("IDLE") => of.idle += count,
                Some("INTERACTING") => of.interacting += count,
                Some("COMMUNICATING") => of.communicating += count,
                Some("NOT_RESPONDING") => of.not_responding += count,
                _ => {}
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
        let queue = found[QUEUE];
        assert_eq!(queue, OnQueue { idle: 3, interacting: 5, communicating: 0, not_responding: 1 });
        assert_eq!(queue.available(), Available { availability: 3.0 / 9.0, agents: Some(3) });
        assert_eq!(queue.busy(), 5);
        assert_eq!(OnQueue::default().available().availability, 0.0, "nobody on queue");
        assert!(!found.contains_key("another"), "not told is not known");
        assert!(read(b"{}").unwrap().is_empty());
        assert!(read(br#"{"results":[{"group":{"queueId":"a"},"data":[{"metric":"oOnQueueUsers","qualifier":"IDLE","stats":{"count":-1}}]}]}"#).is_err());
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
