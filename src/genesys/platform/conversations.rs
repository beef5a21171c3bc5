//! What analytics know of conversations: by query, or of many and old ones by a job.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::time::sleep;

use super::super::client::{Inner, Scope, read_request};
use super::super::details::{DetailsQuery, malformed};
use super::super::error::CallError;
use super::super::transport::RawReply;
use super::{Platform, details, jobs};
use crate::backoff::Backoff;
use crate::clock;

/// How often a job's pause doubles.
const JOB_DOUBLINGS: u32 = 4;

impl Platform {
    /// Details by query; of conversations that are old, or many, by a job where jobs have them.
    pub(crate) async fn details(
        &self,
        inner: &Inner,
        query: &DetailsQuery<'_>,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Value>, CallError> {
        let is_old = query.to <= clock::now().minus(self.settings.old_after);
        let is_large = query.conversation_ids.len() > details::PAGE_SIZE;
        if (is_old || is_large) && self.jobs_have(inner, query, scope).await? {
            return self.details_by_job(inner, query, scope).await;
        }
        let mut found = BTreeMap::new();
        for ids in query.conversation_ids.chunks(details::PAGE_SIZE) {
            let query = DetailsQuery { conversation_ids: ids, ..*query };
            for page in 1.. {
                let request = details::query_request(&query, page);
                let read = |_: &RawReply, body: &[u8]| details::read_page(page, body);
                let told = inner.read(&inner.conversation_details, "", &request, scope, read).await?;
                found.extend(query.asked_for(told.conversations));
                if !told.goes_on {
                    break;
                }
                if page >= details::PAGE_LIMIT {
                    let problem = format!("the answer has more than {} pages", details::PAGE_LIMIT);
                    return Err(malformed(&request, &problem));
                }
            }
        }
        Ok(found)
    }

    async fn jobs_have(
        &self,
        inner: &Inner,
        query: &DetailsQuery<'_>,
        scope: &Scope,
    ) -> Result<bool, CallError> {
        let request = read_request(jobs::AVAILABILITY_PATH.to_owned());
        let read = |_: &RawReply, body: &[u8]| jobs::read_availability(body);
        let until = inner.read(&inner.conversation_details, "", &request, scope, read).await?;
        Ok(query.to <= until)
    }

    async fn details_by_job(
        &self,
        inner: &Inner,
        query: &DetailsQuery<'_>,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Value>, CallError> {
        let endpoints = &inner.conversation_details;
        let begin = jobs::job_request(query);
        let read = |_: &RawReply, body: &[u8]| jobs::read_begun(body);
        let job = inner.read(endpoints, "", &begin, scope, read).await?;
        let state_request = read_request(jobs::job_path(&job));
        let shortest = self.settings.job_pause;
        let mut pauses = Backoff::new((shortest, shortest.saturating_mul(1 << JOB_DOUBLINGS)));
        loop {
            let read = |_: &RawReply, body: &[u8]| jobs::read_state(body);
            match inner.read(endpoints, "", &state_request, scope, read).await? {
                jobs::State::Done => break,
                jobs::State::Failed(why) => return Err(malformed(&state_request, &why)),
                jobs::State::Working => {}
            }
            scope.wait(sleep(pauses.pause()), || "waiting for a job of analytics".to_owned()).await?;
        }
        let mut found = BTreeMap::new();
        let mut cursor: Option<String> = None;
        for page in 1.. {
            let request = read_request(jobs::results_path(&job, cursor.as_deref()));
            let read = |_: &RawReply, body: &[u8]| jobs::read_results(body);
            let (told, next) = inner.read(endpoints, "", &request, scope, read).await?;
            found.extend(query.asked_for(told));
            if next.is_none() {
                break;
            }
            if page >= jobs::PAGE_LIMIT || next == cursor {
                return Err(malformed(&request, "its pages have no end"));
            }
            cursor = next;
        }
        Ok(found)
    }
}
