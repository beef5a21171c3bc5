//! A campaign's statistics: idle agents by its own statistics, calls by analytics' counters of
//! the day, busy agents by its queue.
//!
//! The statistics themselves count no abandoned call, and over what span they count the others
//! is not stated: attempts, answers and abandoned calls all come from one aggregate query, for
//! all campaigns together.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::campaigns::CampaignStatistics;
use super::Told;
use super::aggregates::{self, Row};
use super::campaigns::campaign_path;
use super::queues::OnQueue;
use crate::model::Timestamp;
use crate::model::outcome::SentRequest;

const ATTEMPTED: &str = "nOutboundAttempted";
const CONNECTED: &str = "nOutboundConnected";
const ABANDONED: &str = "nOutboundAbandoned";
const CAMPAIGN: &str = "outboundCampaignId";
const DAY_MS: i64 = 86_400_000;

/// Calls of a campaign since the UTC day began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub attempts: u64,
    pub answers: u64,
    pub abandoned: u64,
}

impl Counters {
    fn and(self, row: &Row) -> Told<Self> {
        let sum = |held: u64, metric: &str| {
            held.checked_add(row.count(metric)?).ok_or_else(|| format!("{metric} comes to no possible count"))
        };
        Ok(Self {
            attempts: sum(self.attempts, ATTEMPTED)?,
            answers: sum(self.answers, CONNECTED)?,
            abandoned: sum(self.abandoned, ABANDONED)?,
        })
    }
}

/// What a campaign's own statistics say, one by one or of many campaigns together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Idle {
    pub agents: Option<u32>,
    /// Share of attempts that were answered, over a span that the platform does not state.
    pub connect_ratio: Option<f64>,
}

pub(super) fn statistics_path(id: &str) -> String {
    format!("{}/stats", campaign_path(id))
}

/// Idle agents of many campaigns with one call.
pub(super) fn performance_request(ids: &[String]) -> SentRequest {
    SentRequest {
        method: "POST".to_owned(),
        path: "/api/v2/outbound/campaigns/performance/query".to_owned(),
        if_match: None,
        body: json!(ids),
    }
}

/// Calls of these campaigns from the beginning of the UTC day until `now`.
pub(super) fn counters_request(ids: &[String], now: Timestamp) -> SentRequest {
    let day = Timestamp::from_millis(now.as_millis().div_euclid(DAY_MS) * DAY_MS);
    // An interval that has no length is refused.
    let until = now.max(day.plus(std::time::Duration::from_secs(1)));
    SentRequest {
        method: "POST".to_owned(),
        path: "/api/v2/analytics/conversations/aggregates/query".to_owned(),
        if_match: None,
        body: json!({
            "interval": aggregates::interval(day, until),
            "groupBy": [CAMPAIGN],
            "filter": aggregates::any_of(CAMPAIGN, ids.iter().map(String::as_str)),
            "metrics": [ATTEMPTED, CONNECTED, ABANDONED],
        }),
    }
}

/// Reads counters; campaigns without a call are not in it. Figures that cannot be true concern
/// their campaign alone.
pub(super) fn read_counters(body: &[u8]) -> Result<BTreeMap<String, Told<Counters>>, String> {
    let mut found: BTreeMap<String, Told<Counters>> = BTreeMap::new();
    for row in aggregates::read(body)? {
        let Some(id) = row.of(CAMPAIGN) else { continue };
        let of = found.entry(id.to_owned()).or_insert_with(|| Ok(Counters::default()));
        *of = std::mem::replace(of, Ok(Counters::default())).and_then(|counters| counters.and(&row));
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatistics {
    contact_rate: Option<WireRate>,
    idle_agents: Option<u32>,
    effective_idle_agents: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRate {
    connect_ratio: Option<f64>,
}

impl WireStatistics {
    fn idle(self) -> Result<Idle, String> {
        let connect_ratio = self.contact_rate.and_then(|rate| rate.connect_ratio);
        if let Some(ratio) = connect_ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
            return Err(format!("contactRate.connectRatio is {ratio}; it is a share from 0 to 1"));
        }
        let effective = self.effective_idle_agents.filter(|agents| (0.0..=1e6).contains(agents));
        let agents = self.idle_agents.or(effective.map(|agents| agents.floor() as u32));
        Ok(Idle { agents, connect_ratio })
    }
}

/// Reads one campaign's statistics; everything in them is optional. The error says which value
/// is impossible.
pub(super) fn read_statistics(body: &[u8]) -> Result<Idle, String> {
    let wire: WireStatistics = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    wire.idle()
}

/// Reads many campaigns' statistics. Figures that cannot be true concern their campaign alone.
pub(super) fn read_performance(body: &[u8]) -> Result<BTreeMap<String, Told<Idle>>, String> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(default)]
        entities: Vec<Value>,
    }
    let reply: Reply = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    for (index, entity) in reply.entities.iter().enumerate() {
        let id = entity.pointer("/campaign/id").or_else(|| entity.get("id")).and_then(Value::as_str);
        let id = id.ok_or_else(|| format!("entities[{index}] names no campaign"))?;
        let wire = WireStatistics::deserialize(entity).map_err(|error| error.to_string());
        found.insert(id.to_owned(), wire.and_then(WireStatistics::idle));
    }
    Ok(found)
}

/// The statistics of one campaign. `before` are the counters at the poll before: the answer
/// rate is of the calls since, and the platform's own where none was placed.
///
/// # Errors
/// When nobody says how many agents are idle.
pub(super) fn join(
    idle: Idle,
    now: Counters,
    before: Option<Counters>,
    on_queue: Option<OnQueue>,
) -> Result<CampaignStatistics, String> {
    let agents_idle = idle.agents.or(on_queue.map(|queue| queue.idle));
    let agents_idle =
        agents_idle.ok_or("neither the campaign nor its queue says how many agents are idle")?;
    Ok(CampaignStatistics {
        answer_rate: answer_rate(idle.connect_ratio, now, before),
        agents_idle,
        agents_busy: on_queue.map_or(0, OnQueue::busy),
        calls_delivered: now.answers.saturating_sub(now.abandoned),
        attempts: Some(now.attempts),
        answers: Some(now.answers),
        abandoned: Some(now.abandoned),
        age: std::time::Duration::ZERO,
    })
}

fn answer_rate(told: Option<f64>, now: Counters, before: Option<Counters>) -> f64 {
    // A counter that fell began anew: what it says is since then.
    let before = before.filter(|before| now.attempts >= before.attempts && now.answers >= before.answers);
    let before = before.unwrap_or_default();
    let (attempts, answers) = (now.attempts - before.attempts, now.answers - before.answers);
    let of_the_day = || (now.attempts > 0).then(|| now.answers as f64 / now.attempts as f64);
    let since = (attempts > 0).then(|| answers as f64 / attempts as f64);
    // Answers come some seconds after their attempts: of few attempts they may be more.
    since.or(told).or_else(of_the_day).unwrap_or(0.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7b1b6a2e-1c0e-4d43-9b0e-0f6b9a1f2c01";

    #[test]
    fn one_query_asks_about_all_campaigns() {
        let now: Timestamp = "2026-01-02T03:30:00.000Z".parse().unwrap();
        let request = counters_request(&[ID.to_owned(), "other".to_owned()], now);
        let example: Value =
            serde_json::from_str(include_str!("fixtures/campaign_counters_query.json")).unwrap();
        assert_eq!(request.body["interval"], "2026-01-02T00:00:00.000Z/2026-01-02T03:30:00.000Z");
        assert_eq!(request.body["filter"]["predicates"][0], example["filter"]["predicates"][0]);
        assert_eq!(request.body["filter"]["type"], "or");
        assert_eq!(request.body["filter"]["predicates"][1]["value"], "other");
        let midnight: Timestamp = "2026-01-02T00:00:00.000Z".parse().unwrap();
        let at_midnight = counters_request(&[], midnight);
        assert_eq!(at_midnight.body["interval"], "2026-01-02T00:00:00.000Z/2026-01-02T00:00:01.000Z");
    }

    #[test]
    fn abandoned_calls_come_from_the_counters_and_idle_agents_from_the_statistics() {
        let idle = read_statistics(include_bytes!("fixtures/campaign_statistics.json")).unwrap();
        assert_eq!(idle, Idle { agents: Some(4), connect_ratio: Some(0.32) });
        let counters = read_counters(include_bytes!("fixtures/campaign_counters.json")).unwrap();
        let now = counters[ID].clone().unwrap();
        assert_eq!(now, Counters { attempts: 1_200, answers: 384, abandoned: 7 });
        let on_queue = OnQueue { idle: 3, interacting: 5, communicating: 1, not_responding: 1 };
        let joined =
            join(idle, now, Some(Counters { attempts: 1_100, answers: 359, abandoned: 6 }), Some(on_queue));
        let joined = joined.unwrap();
        assert_eq!((joined.answer_rate, joined.agents_idle, joined.agents_busy), (0.25, 4, 6));
        assert_eq!((joined.attempts, joined.answers, joined.abandoned), (Some(1_200), Some(384), Some(7)));
        assert_eq!(joined.calls_delivered, 377);
    }

    #[test]
    fn absurd_counters_concern_their_campaign_alone_and_never_overflow() {
        let row = |id: &str, attempts: &str| {
            let metric = format!(r#"{{"metric":"{ATTEMPTED}","stats":{{"count":{attempts}}}}}"#);
            format!(r#"{{"group":{{"{CAMPAIGN}":"{id}"}},"data":[{{"metrics":[{metric}]}}]}}"#)
        };
        let most = vec![row("most", "1e15"); 20_000];
        let rows = [vec![row("a", "7"), row("less", "-1"), row("less", "5"), row("a", "5")], most].concat();
        let read = read_counters(format!(r#"{{"results":[{}]}}"#, rows.join(",")).as_bytes()).unwrap();
        assert_eq!(read["a"].as_ref().unwrap().attempts, 12);
        assert!(read["less"].as_ref().unwrap_err().contains(ATTEMPTED), "{read:?}");
        assert!(read["most"].as_ref().unwrap_err().contains(ATTEMPTED));
    }

    #[test]
    fn an_answer_rate_is_of_the_calls_since_the_poll_before() {
        let counters = |attempts, answers| Counters { attempts, answers, abandoned: 0 };
        let rate = |told, now, before| answer_rate(told, now, before);
        assert_eq!(rate(Some(0.3), counters(10, 5), None), 0.5);
        assert_eq!(rate(Some(0.3), counters(10, 5), Some(counters(10, 5))), 0.3, "none was placed");
        assert_eq!(rate(None, counters(10, 5), Some(counters(10, 5))), 0.5);
        assert_eq!(rate(Some(0.3), counters(4, 1), Some(counters(1_000, 300))), 0.25, "they began anew");
        assert_eq!(rate(None, counters(11, 8), Some(counters(10, 5))), 1.0, "answers of earlier attempts");
        assert_eq!(rate(None, counters(0, 0), None), 0.0);
    }

    #[test]
    fn everything_is_optional_but_idle_agents_must_be_known_from_somewhere() {
        let nothing = read_statistics(b"{}").unwrap();
        assert_eq!(nothing, Idle::default());
        assert!(join(nothing, Counters::default(), None, None).is_err());
        let on_queue = OnQueue { idle: 3, ..OnQueue::default() };
        assert_eq!(join(nothing, Counters::default(), None, Some(on_queue)).unwrap().agents_idle, 3);
        assert_eq!(read_statistics(br#"{"effectiveIdleAgents":3.5}"#).unwrap().agents, Some(3));
        for wrong in [r#"{"idleAgents":-1}"#, r#"{"contactRate":{"connectRatio":32.0}}"#, "[]"] {
            assert!(read_statistics(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let many = read_performance(br#"{"entities":[{"campaign":{"id":"a"},"idleAgents":2,"contactRate":{"connectRatio":0.5}},{"id":"b"}]}"#);
        let many = many.unwrap();
        assert_eq!(many["a"], Ok(Idle { agents: Some(2), connect_ratio: Some(0.5) }));
        assert_eq!(many["b"], Ok(Idle::default()));
        let absurd =
            read_performance(br#"{"entities":[{"id":"a","idleAgents":-2},{"id":"b","idleAgents":3}]}"#);
        let absurd = absurd.unwrap();
        assert!(absurd["a"].is_err(), "of one campaign alone");
        assert_eq!(absurd["b"], Ok(Idle { agents: Some(3), connect_ratio: None }));
        assert!(read_performance(br#"{"entities":[{"idleAgents":2}]}"#).is_err());
    }
}
