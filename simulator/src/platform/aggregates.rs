//! Aggregates of analytics: figures per group and piece of an interval. Groups and pieces in
//! which nothing happened are left out, and so are figures that are none.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::filter::{Filter, unsimulated};
use super::interval::Interval;
use super::request::{Request, missing, not_one_of};
use super::state::State;
use super::vocabulary::{CONVERSATION_DIMENSIONS, CONVERSATION_METRICS, FLOW_DIMENSIONS, FLOW_METRICS};
use super::{Endpoint, Outcome};
use crate::call_history::Calls;
use crate::dialer::PATIENCE_SECONDS;
use crate::flows::Endpoint as Failing;
use crate::input::invalid;
use crate::measures::{Spread, Visits};
use crate::organization::Organization;
use crate::reply::{Refusal, Reply};
use crate::series::Series;
use crate::time::Timestamp;

/// Longest interval of one query.
const MAX_DAYS: i64 = 31;
/// Dimensions the simulated world has values for.
const SIMULATED: &[&str] = &[
    "outboundCampaignId",
    "flowId",
    "flowVersion",
    "exitReason",
    "mediaType",
    "flowType",
    "direction",
    "originatingDirection",
];

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: "/api/v2/analytics/conversations/aggregates/query",
        permissions: &["analytics:conversationAggregate:view"],
        perform: conversations,
    },
    Endpoint {
        method: Method::POST,
        path: "/api/v2/analytics/flows/aggregates/query",
        permissions: &["analytics:flowAggregate:view"],
        perform: flows,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    interval: Option<String>,
    granularity: Option<String>,
    group_by: Option<Vec<String>>,
    filter: Option<Filter>,
    metrics: Option<Vec<String>>,
    alternate_time_dimension: Option<String>,
}

/// A query that has been found right.
struct Asked {
    pieces: Vec<Interval>,
    group_by: Vec<String>,
    filter: Option<Filter>,
    metrics: Vec<String>,
}

impl Query {
    fn checked(self, dimensions: &[&str], metrics: &[&str]) -> Result<Asked, Refusal> {
        let interval = Interval::read(&self.interval.ok_or_else(|| missing("interval"))?)?;
        interval.check_days(MAX_DAYS)?;
        let asked = self.metrics.filter(|asked| !asked.is_empty()).ok_or_else(|| missing("metrics"))?;
        if let Some(unknown) = asked.iter().find(|metric| !metrics.contains(&metric.as_str())) {
            return Err(not_one_of("metrics", unknown, "the metrics of this query"));
        }
        let group_by = self.group_by.unwrap_or_default();
        if let Some(unknown) = group_by.iter().find(|name| !dimensions.contains(&name.as_str())) {
            return Err(not_one_of("groupBy", unknown, "the dimensions of this query"));
        }
        if let Some(other) = group_by.iter().find(|name| !SIMULATED.contains(&name.as_str())) {
            return Err(unsimulated(&format!("the dimension {other}")));
        }
        if let Some(other) = self.alternate_time_dimension.filter(|name| name != "eventTime") {
            return Err(not_one_of("alternateTimeDimension", &other, "eventTime"));
        }
        if let Some(filter) = &self.filter {
            filter.check(dimensions, SIMULATED)?;
        }
        let pieces = interval.pieces(self.granularity.as_deref())?;
        Ok(Asked { pieces, group_by, filter: self.filter, metrics: asked })
    }
}

/// Something that has figures: the values of its dimensions, and its figures within a span.
struct Source<'a> {
    dimensions: Vec<(&'static str, Cow<'a, str>)>,
    figures: Box<dyn Fn(Interval) -> Figures + 'a>,
}

/// By metric. Counts have the count alone, times also sum, least and greatest.
type Figures = BTreeMap<&'static str, (Spread, bool)>;

impl Source<'_> {
    fn value(&self, dimension: &str) -> Option<&str> {
        self.dimensions.iter().find(|held| held.0 == dimension).map(|held| &*held.1)
    }
}

fn counts<const N: usize>(counts: [(&'static str, u64); N]) -> Figures {
    let figure = |(name, count)| (name, (Spread { count, ..Spread::default() }, false));
    counts.into_iter().map(figure).collect()
}

/// What is known by now of what happened within a span: analytics are behind, and calls of days
/// that have not been restated yet lack some of the abandoned ones.
#[derive(Clone, Copy)]
struct Knowledge {
    known_until: Timestamp,
    restated_until: Timestamp,
    missing_share: f64,
}

impl Knowledge {
    fn of(state: &State, now: Timestamp) -> Self {
        let manners = &state.manners;
        Self {
            known_until: now.minus(Duration::from_millis(manners.analytics_lag_ms)),
            restated_until: state.restated_until(now),
            missing_share: manners.missing_abandoned_share,
        }
    }

    fn seen(self, piece: Interval) -> Option<Interval> {
        let end = piece.end.min(self.known_until);
        (piece.start < end).then_some(Interval { end, ..piece })
    }

    fn calls(self, series: &Series<Calls>, piece: Interval) -> Calls {
        let Some(Interval { start, end }) = self.seen(piece) else { return Calls::default() };
        let restated = self.restated_until.clamp(start, end);
        let mut calls = series.between(start, restated);
        let mut fresh = series.between(restated, end);
        fresh.abandoned -= (fresh.abandoned as f64 * self.missing_share).round() as u64;
        calls += fresh;
        calls
    }
}

fn conversations(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let query: Query = request.body()?;
    let asked = query.checked(CONVERSATION_DIMENSIONS, CONVERSATION_METRICS)?;
    let knowledge = Knowledge::of(&organization.platform, request.moment.wall);
    let mut sources: Vec<Source<'_>> = Vec::new();
    for (id, series) in organization.calls.iter() {
        let dimensions = vec![
            ("outboundCampaignId", Cow::Borrowed(id)),
            ("mediaType", "voice".into()),
            ("direction", "outbound".into()),
            ("originatingDirection", "outbound".into()),
        ];
        let figures = move |piece| {
            let calls = knowledge.calls(series, piece);
            let patience = PATIENCE_SECONDS * 1_000;
            let mut figures = counts([
                ("nConversations", calls.connected),
                ("nOutbound", calls.attempted),
                ("nOutboundAttempted", calls.attempted),
                ("nOutboundConnected", calls.connected),
                ("nOutboundAbandoned", calls.abandoned),
            ]);
            let waits = Spread {
                count: calls.abandoned,
                sum: calls.abandoned * patience,
                min: patience,
                max: patience,
            };
            figures.insert("tAbandon", (waits, true));
            figures
        };
        sources.push(Source { dimensions, figures: Box::new(figures) });
    }
    for flow in organization.flows.iter() {
        let dimensions = vec![
            ("mediaType", "voice".into()),
            ("direction", "inbound".into()),
            ("originatingDirection", "inbound".into()),
        ];
        let figures = move |piece| {
            let seen = knowledge.seen(piece);
            let total = seen.map(|it| flow.measures.between(it.start, it.end)).unwrap_or_default();
            counts([("nConversations", total.interactions), ("nError", total.errors)])
        };
        sources.push(Source { dimensions, figures: Box::new(figures) });
    }
    Ok((results(&asked, &sources), None))
}

fn flows(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    organization.flows.check_well(Failing::Measures)?;
    let query: Query = request.body()?;
    let asked = query.checked(FLOW_DIMENSIONS, FLOW_METRICS)?;
    let knowledge = Knowledge::of(&organization.platform, request.moment.wall);
    let mut sources: Vec<Source<'_>> = Vec::new();
    for flow in organization.flows.iter() {
        for (version, exit_reason, series) in flow.measures.visits() {
            let dimensions = vec![
                ("flowId", Cow::Borrowed(&*flow.id)),
                ("flowVersion", Cow::Borrowed(&**version)),
                ("exitReason", exit_reason.into()),
                ("mediaType", "voice".into()),
                ("flowType", super::flows::FLOW_TYPE.into()),
            ];
            let figures = move |piece| {
                let seen = knowledge.seen(piece);
                let visits: Visits = seen.map(|it| series.between(it.start, it.end)).unwrap_or_default();
                let mut figures = counts([
                    ("nFlow", visits.count),
                    ("nFlowOutcome", visits.outcomes),
                    ("nFlowOutcomeFailed", visits.outcomes_failed),
                ]);
                figures.insert("tFlow", (visits.ms, true));
                figures
            };
            sources.push(Source { dimensions, figures: Box::new(figures) });
        }
    }
    Ok((results(&asked, &sources), None))
}

/// Sources with the same values of the dimensions asked for are one group; the medium is told
/// with each, asked for or not.
fn results(asked: &Asked, sources: &[Source<'_>]) -> Reply {
    let mut groups: BTreeMap<BTreeMap<&str, &str>, Vec<&Source<'_>>> = BTreeMap::new();
    let filter = asked.filter.as_ref();
    // A thousand campaigns are named by a thousand predicates: looked up, not compared one by one.
    let named = ["outboundCampaignId", "flowId"]
        .into_iter()
        .find_map(|name| Some((name, BTreeSet::from_iter(filter?.only_values(name)?))));
    let admitted = |source: &&Source<'_>| match &named {
        Some((name, values)) => source.value(name).is_some_and(|value| values.contains(value)),
        None => filter.is_none_or(|filter| filter.admits(&|name: &str| source.value(name))),
    };
    for source in sources.iter().filter(admitted) {
        let names = asked.group_by.iter().map(String::as_str).chain(["mediaType"]);
        let group = names.filter_map(|name| Some((name, source.value(name)?))).collect();
        groups.entry(group).or_default().push(source);
    }
    let shown = groups.iter().filter_map(|(group, sources)| {
        let data: Vec<Value> =
            asked.pieces.iter().filter_map(|piece| piece_of(asked, *piece, sources)).collect();
        (!data.is_empty()).then(|| json!({ "group": group, "data": data }))
    });
    Reply::json(StatusCode::OK, &json!({ "results": shown.collect::<Vec<_>>() }))
}

fn piece_of(asked: &Asked, piece: Interval, sources: &[&Source<'_>]) -> Option<Value> {
    let mut sum = Figures::new();
    for source in sources {
        for (name, (spread, is_time)) in (source.figures)(piece) {
            let held = sum.entry(name).or_insert((Spread::default(), is_time));
            held.0 += spread;
        }
    }
    let metrics: Vec<Value> = asked
        .metrics
        .iter()
        .filter_map(|name| {
            let (spread, is_time) = sum.get(name.as_str()).filter(|it| it.0.count > 0)?;
            let mut stats = Map::from_iter([("count".to_owned(), json!(spread.count))]);
            if *is_time {
                let times = [("sum", spread.sum), ("min", spread.min), ("max", spread.max)];
                stats.extend(times.map(|(name, value)| (name.to_owned(), json!(value as f64))));
            }
            Some(json!({ "metric": name, "stats": stats }))
        })
        .collect();
    (!metrics.is_empty()).then(|| json!({ "interval": piece.to_string(), "metrics": metrics }))
}

/// # Errors
/// 400 for a share that is none.
pub(super) fn check_share(name: &str, share: f64) -> Result<(), Refusal> {
    if (0.0..=1.0).contains(&share) { Ok(()) } else { Err(invalid(format!("{name} must be from 0 to 1"))) }
}
