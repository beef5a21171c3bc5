//! Details of many or old conversations: a job that is submitted, waited for, and read by cursor.

use std::collections::VecDeque;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::conversation::shown;
use super::details::{PERMISSIONS, Wanted};
use super::request::Request;
use super::{Endpoint, Outcome};
use crate::conversations::Conversation;
use crate::input::invalid;
use crate::organization::{Moment, Organization};
use crate::reply::{Refusal, Reply};
use crate::time::Timestamp;

const PAGE_SIZE_DEFAULT: usize = 1_000;
const PAGE_SIZE_MAX: usize = 10_000;
/// Jobs held; the oldest go.
const MAX_JOBS: usize = 1_000;
/// Results of a job can be read so long.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: "/api/v2/analytics/conversations/details/jobs",
        permissions: PERMISSIONS,
        perform: submit,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/analytics/conversations/details/jobs/availability",
        permissions: PERMISSIONS,
        perform: availability,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/analytics/conversations/details/jobs/{jobId}",
        permissions: PERMISSIONS,
        perform: status,
    },
    Endpoint {
        method: Method::DELETE,
        path: "/api/v2/analytics/conversations/details/jobs/{jobId}",
        permissions: PERMISSIONS,
        perform: cancel,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/analytics/conversations/details/jobs/{jobId}/results",
        permissions: PERMISSIONS,
        perform: results,
    },
];

#[derive(Debug)]
pub(crate) struct Job {
    id: Uuid,
    submitted_at: Timestamp,
    /// By the machine's clock, since the simulator started.
    running_from: Duration,
    done_at: Duration,
    completed_at: Timestamp,
    is_cancelled: bool,
    /// Later ones are not in.
    data_until: Timestamp,
    found: Vec<Uuid>,
}

/// All jobs, oldest first.
pub(super) type Jobs = VecDeque<Job>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Submission {
    #[serde(flatten)]
    wanted: Wanted,
    limit: Option<usize>,
    #[serde(default)]
    start_of_day_interval_matching: Option<bool>,
}

fn data_until(organization: &Organization, moment: Moment) -> Timestamp {
    moment.wall.minus(Duration::from_millis(organization.platform.manners.jobs_lag_ms))
}

/// Here the interval means: had activity during it.
fn submit(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let submission: Submission = request.body()?;
    let interval = submission.wanted.checked_interval()?;
    let moment = request.moment;
    let data_until = data_until(organization, moment);
    let by_day = submission.start_of_day_interval_matching == Some(true);
    let selects = |it: &Conversation| {
        let within = if by_day {
            interval.touches_day_of(it.conversation_start)
        } else {
            it.conversation_start < interval.end && it.conversation_end >= interval.start
        };
        within && it.conversation_end <= data_until
    };
    let found = submission.wanted.find(&organization.conversations, moment.wall, selects);
    let found =
        found.iter().map(|it| it.conversation_id).take(submission.limit.unwrap_or(usize::MAX)).collect();
    let takes = Duration::from_millis(organization.platform.manners.jobs_ms);
    let job = Job {
        id: Uuid::now_v7(),
        submitted_at: moment.wall,
        running_from: moment.elapsed + takes / 4,
        done_at: moment.elapsed + takes,
        completed_at: moment.wall.plus(takes),
        is_cancelled: false,
        data_until,
        found,
    };
    let reply = Reply::json(StatusCode::ACCEPTED, &json!({ "jobId": job.id }));
    let jobs = &mut organization.platform.jobs;
    jobs.push_back(job);
    if jobs.len() > MAX_JOBS {
        jobs.pop_front();
    }
    Ok((reply, None))
}

impl Job {
    fn state(&self, moment: Moment) -> &'static str {
        match moment.elapsed {
            _ if self.is_cancelled => "CANCELLED",
            _ if moment.wall > self.completed_at.plus(LIFETIME) => "EXPIRED",
            now if now >= self.done_at => "FULFILLED",
            now if now >= self.running_from => "PENDING",
            _ => "QUEUED",
        }
    }
}

fn find<'a>(organization: &'a mut Organization, request: &Request<'_>) -> Result<&'a mut Job, Refusal> {
    let id = request.id();
    let found = organization.platform.jobs.iter_mut().find(|job| job.id.to_string() == id);
    found.ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "not.found", format!("Unable to find a job with id {id}"))
            .about(id)
    })
}

fn availability(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let until = data_until(organization, request.moment);
    Ok((Reply::json(StatusCode::OK, &json!({ "dataAvailabilityDate": until })), None))
}

fn status(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let job = find(organization, request)?;
    let state = job.state(request.moment);
    let mut body = json!({ "state": state, "submissionDate": job.submitted_at });
    if state == "FULFILLED" {
        body["completionDate"] = json!(job.completed_at);
        body["expirationDate"] = json!(job.completed_at.plus(LIFETIME));
    }
    Ok((Reply::json(StatusCode::OK, &body), None))
}

fn cancel(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    find(organization, request)?.is_cancelled = true;
    Ok((Reply::empty(StatusCode::NO_CONTENT), None))
}

fn results(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let page = request.page(PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)?;
    let job = find(organization, request)?;
    let state = job.state(request.moment);
    if state != "FULFILLED" {
        let message = format!("the job is {state}: there are results once it is FULFILLED");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad.request", message));
    }
    let (id, data_until) = (job.id, job.data_until);
    let begin = match request.query("cursor") {
        None => 0,
        Some(cursor) => read_cursor(id, &cursor).ok_or_else(|| invalid("cursor is none of this job's"))?,
    };
    let ids: Vec<Uuid> = job.found.iter().skip(begin).take(page.size).copied().collect();
    let is_last = begin + ids.len() >= job.found.len();
    let known = ids.iter().filter_map(|id| organization.conversations.get(*id));
    let conversations: Vec<Value> = known.map(|it| shown(it, organization, request.moment.wall)).collect();
    let mut body = json!({ "conversations": conversations, "dataAvailabilityDate": data_until });
    if !is_last {
        body["cursor"] = json!(cursor(id, begin + ids.len()));
    }
    Ok((Reply::json(StatusCode::OK, &body), None))
}

fn cursor(job_id: Uuid, shown: usize) -> String {
    format!("{}-{shown}", job_id.simple())
}

fn read_cursor(job_id: Uuid, cursor: &str) -> Option<usize> {
    let (id, shown) = cursor.split_once('-')?;
    (id == job_id.simple().to_string()).then(|| shown.parse().ok())?
}
