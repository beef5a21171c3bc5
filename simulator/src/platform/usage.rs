//! What the API has been used for: requests by client, call and day, against which allowances are
//! reconciled; and the limits of requests.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::interval::Interval;
use super::request::{Request, missing, not_one_of};
use super::{Endpoint, Outcome};
use crate::organization::{Moment, Organization};
use crate::reply::{Refusal, Reply};
use crate::time::Timestamp;

const VIEW: &[&str] = &["usage:organization:view", "oauth:client:view"];
const MAX_QUERIES: usize = 1_000;
/// Rows held: so many clients, calls and days; the oldest days go.
const MAX_ROWS: usize = 200_000;
const MAX_DAYS: i64 = 366;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { method: Method::POST, path: "/api/v2/usage/query", permissions: VIEW, perform: submit },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/usage/query/{executionId}/results",
        permissions: VIEW,
        perform: results,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/organizations/limits/namespaces/{namespaceName}",
        permissions: &[],
        perform: limits,
    },
];

/// Day, client, call and method.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Days since the Unix epoch, UTC.
    day: i64,
    client: String,
    template: &'static str,
    method: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    all: u64,
    by_class: [u64; 4],
    too_many: u64,
}

impl Requests {
    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.too_many += other.too_many;
        self.by_class.iter_mut().zip(other.by_class).for_each(|(held, more)| *held += more);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Usage {
    rows: BTreeMap<Key, Requests>,
    queries: VecDeque<OpenQuery>,
}

#[derive(Debug)]
struct OpenQuery {
    id: Uuid,
    interval: Interval,
    granularity: Option<Granularity>,
    done_at: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Granularity {
    Day,
    Week,
    Month,
}

fn day_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(86_400_000)
}

impl Usage {
    /// Counts a request that was answered, or was to be.
    pub(crate) fn count(
        &mut self,
        client: &str,
        (method, template): (&str, &'static str),
        status: StatusCode,
        at: Timestamp,
    ) {
        let mut requests = Requests { all: 1, ..Requests::default() };
        match status.as_u16() {
            429 => requests.too_many = 1,
            status => {
                let class = usize::from(status / 100).saturating_sub(2).min(3);
                requests.by_class[class] = 1;
            }
        }
        self.add(client, (method, template), requests, at);
    }

    /// As if a client had made so many successful requests on a day.
    pub(crate) fn add_before(&mut self, client: &str, requests: u64, at: Timestamp) {
        let requests = Requests { all: requests, by_class: [requests, 0, 0, 0], too_many: 0 };
        self.add(client, ("GET", "/api/v2/outbound/campaigns/{campaignId}/stats"), requests, at);
    }

    fn add(
        &mut self,
        client: &str,
        (method, template): (&str, &'static str),
        requests: Requests,
        at: Timestamp,
    ) {
        let key = Key { day: day_of(at), client: client.to_owned(), template, method: method.to_owned() };
        self.rows.entry(key).or_default().add(requests);
        if self.rows.len() > MAX_ROWS {
            self.rows.pop_first();
        }
    }

    /// All requests counted from a moment's day on.
    pub(crate) fn since(&self, at: Timestamp) -> u64 {
        self.rows.iter().filter(|(key, _)| key.day >= day_of(at)).map(|(_, requests)| requests.all).sum()
    }

    fn results(&self, query: &OpenQuery) -> Vec<Value> {
        let days =
            day_of(query.interval.start)..=day_of(Timestamp::from_millis(query.interval.end.as_millis() - 1));
        let mut sums: BTreeMap<(i64, Key), Requests> = BTreeMap::new();
        for (key, requests) in self.rows.iter().filter(|(key, _)| days.contains(&key.day)) {
            let begins = query.granularity.map_or(*days.start(), |granularity| granularity.begin(key.day));
            sums.entry((begins, Key { day: begins, ..key.clone() })).or_default().add(*requests);
        }
        let row = |((day, key), requests): ((i64, Key), Requests)| {
            let [ok, moved, refused, failed] = requests.by_class;
            json!({
                "clientId": key.client,
                "templateUri": key.template,
                "httpMethod": key.method,
                "requests": requests.all,
                "status200": ok,
                "status300": moved,
                "status400": refused,
                "status500": failed,
                "status429": requests.too_many,
                "date": Timestamp::from_millis(day * 86_400_000),
            })
        };
        sums.into_iter().map(row).collect()
    }
}

impl Granularity {
    /// The day on which the day's piece begins. Weeks begin on Monday.
    fn begin(self, day: i64) -> i64 {
        match self {
            Self::Day => day,
            Self::Week => day - (day + 3).rem_euclid(7),
            Self::Month => first_of_month(Timestamp::from_millis(day * 86_400_000)),
        }
    }
}

fn first_of_month(at: Timestamp) -> i64 {
    let date = jiff::Timestamp::from_millisecond(at.as_millis())
        .unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::UTC);
    day_of(at) - i64::from(date.day() - 1)
}

/// The moment a moment's month began, UTC.
pub(crate) fn month_of(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(first_of_month(at) * 86_400_000)
}

#[derive(Deserialize)]
struct Query {
    interval: Option<String>,
    granularity: Option<String>,
}

fn submit(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let query: Query = request.body()?;
    let interval = Interval::read(&query.interval.ok_or_else(|| missing("interval"))?)?;
    interval.check_days(MAX_DAYS)?;
    let granularity = match query.granularity.as_deref() {
        None => None,
        Some("Day") => Some(Granularity::Day),
        Some("Week") => Some(Granularity::Week),
        Some("Month") => Some(Granularity::Month),
        Some(other) => return Err(not_one_of("granularity", other, "Day, Week, Month")),
    };
    let takes = Duration::from_millis(organization.platform.manners.queries_ms);
    let Moment { elapsed, .. } = request.moment;
    let query = OpenQuery { id: Uuid::now_v7(), interval, granularity, done_at: elapsed + takes };
    let body = json!({
        "executionId": query.id,
        "resultsUri": format!("/api/v2/usage/query/{}/results", query.id),
    });
    let queries = &mut organization.platform.usage.queries;
    queries.push_back(query);
    if queries.len() > MAX_QUERIES {
        queries.pop_front();
    }
    Ok((Reply::json(StatusCode::ACCEPTED, &body), None))
}

fn results(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let (id, usage) = (request.id(), &organization.platform.usage);
    let query = usage.queries.iter().find(|query| query.id.to_string() == id).ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "not.found", format!("Unable to find a query with id {id}"))
            .about(id)
    })?;
    let body = if request.moment.elapsed < query.done_at {
        json!({ "queryStatus": "Running", "results": [] })
    } else {
        json!({ "queryStatus": "Complete", "results": usage.results(query) })
    };
    Ok((Reply::json(StatusCode::OK, &body), None))
}

/// Limits of requests; of other namespaces there are none here.
fn limits(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let namespace = request.id();
    let value = organization.budgets.allowance().requests;
    let keys: &[&str] = if namespace == "platform.api" {
        &["client.credentials.token.rate.per.minute", "token.rate.per.minute"]
    } else {
        &[]
    };
    let limit = |key: &&str| json!({ "key": key, "namespace": namespace, "value": value });
    let entities: Vec<Value> = keys.iter().map(limit).collect();
    Ok((Reply::json(StatusCode::OK, &json!({ "entities": entities })), None))
}
