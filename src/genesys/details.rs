//! What analytics know of conversations.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, Scope, read_request};
use super::dialect::Spoken;
use super::dispatch::qualify;
use super::error::{CallError, CallErrorKind as Kind};
use super::seed;
use super::transport::RawReply;
use crate::model::Timestamp;
use crate::model::organization::qualified;
use crate::model::outcome::SentRequest;

/// A question about conversations.
#[derive(Clone, Copy, Debug)]
pub struct DetailsQuery<'a> {
    pub conversation_ids: &'a [&'a str],
    /// Conversations outside these times are not found.
    pub from: Timestamp,
    pub to: Timestamp,
}

impl DetailsQuery<'_> {
    /// Those of `found` that were asked about, by the ids they were asked by.
    pub(super) fn asked_for(&self, found: Found) -> impl Iterator<Item = (String, Value)> {
        found.into_iter().filter_map(|(id, details)| {
            // Ids are in hexadecimal, which is spelled in two ways.
            let asked = self.conversation_ids.iter().find(|asked| asked.eq_ignore_ascii_case(&id))?;
            Some(((*asked).to_owned(), details))
        })
    }
}

/// Id and all that is known, free of what a database refuses.
pub(super) type Found = Vec<(String, Value)>;

impl Client {
    /// What analytics know of these conversations: all pages of the answer, or an error.
    /// Those that it does not know are not in it.
    pub async fn conversation_details(
        &self,
        query: &DetailsQuery<'_>,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Value>, CallError> {
        let mut all = BTreeMap::new();
        for (client, own) in self.by_organization(query.conversation_ids.iter().copied()) {
            if !own.is_empty() {
                let query = DetailsQuery { conversation_ids: &own, ..*query };
                all.extend(client.own_details(&query, scope).await?);
            }
        }
        Ok(all)
    }

    async fn own_details(
        &self,
        query: &DetailsQuery<'_>,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Value>, CallError> {
        let found = match &self.inner.spoken {
            Spoken::Seed => self.seed_details(query, scope).await?,
            Spoken::Platform(platform) => platform.details(&self.inner, query, scope).await?,
        };
        let Some(name) = self.organization().name.as_deref() else { return Ok(found) };
        let here = |(id, mut details): (String, Value)| {
            qualify(&mut details, Some(name));
            (qualified(Some(name), &id).into_owned(), details)
        };
        Ok(found.into_iter().map(here).collect())
    }

    async fn seed_details(
        &self,
        query: &DetailsQuery<'_>,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Value>, CallError> {
        let mut found = BTreeMap::new();
        let mut asked = BTreeSet::new();
        let mut request = seed::details::query_request(query);
        loop {
            let read = |_: &RawReply, body: &[u8]| seed::details::read_page(&self.inner.base_url, body);
            let page = self.inner.read(&self.inner.conversation_details, "", &request, scope, read).await?;
            found.extend(query.asked_for(page.conversations));
            let Some(next) = page.next else { return Ok(found) };
            let problem = if asked.len() + 1 >= seed::details::PAGE_LIMIT {
                format!("the answer has more than {} pages", seed::details::PAGE_LIMIT)
            } else if !asked.insert(next.clone()) {
                format!("the answer's pages go in a circle, back to {next}")
            } else {
                request = read_request(next);
                continue;
            };
            return Err(malformed(&request, &problem));
        }
    }
}

/// An answer whose pages make no sense together.
pub(super) fn malformed(request: &SentRequest, problem: &str) -> CallError {
    CallError::without_reply(Kind::Malformed, format!("{} {}: {problem}", request.method, request.path))
}

/// Reads what an answer has under `member`, item by item: one that makes no sense is as if it
/// were not there.
///
/// # Errors
/// When nothing of it can be read: it says nothing then about whom it lacks.
pub(super) fn read_conversations(member: &str, told: &[&RawValue]) -> Result<Found, String> {
    let (mut conversations, mut problem) = (Vec::new(), None);
    for (index, item) in told.iter().enumerate() {
        match read_item(item.get()) {
            Ok(read) => conversations.push(read),
            Err(why) => {
                tracing::warn!(index, why, "an item of an answer makes no sense: left out");
                problem.get_or_insert_with(|| format!("{member}[{index}]: {why}"));
            }
        }
    }
    match (conversations.is_empty(), problem) {
        (true, Some(problem)) => Err(problem),
        _ => Ok(conversations),
    }
}

fn read_item(text: &str) -> Result<(String, Value), String> {
    let mut item: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    without_nul(&mut item);
    let id = item.get("conversationId").and_then(Value::as_str);
    let id = id.ok_or("conversationId is missing or no text")?.to_owned();
    Ok((id, item))
}

/// U+0000, which Postgres cannot store, becomes the replacement character.
fn without_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(members) => {
            if members.keys().any(|key| key.contains('\0')) {
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(key, value)| (key.replace('\0', "\u{fffd}"), value))
                    .collect();
            }
            members.values_mut().for_each(without_nul);
        }
        _ => {}
    }
}
