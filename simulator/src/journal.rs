//! The log of every request and every change, for checkers: the simulator's word
//! against that of its clients.

use std::collections::VecDeque;

use serde::Serialize;

use crate::time::Timestamp;

/// Bytes of a request body the log keeps: a details query of 50 conversations is whole.
pub(crate) const MAX_BODY_BYTES: usize = 8_192;

/// Who asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// A request on the API listener.
    Api,
    /// A request on the login listener.
    Login,
    /// A publish that was begun by a request and has ended.
    Operation,
    /// A campaign rule of the organisation.
    Rule,
    /// The simulator's own second writer.
    Rival,
    /// Somebody at `/simulator/…` who changed a campaign.
    Control,
}

/// What a request changed. In JSON the members tell which: only one of the kinds has them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Effect {
    Campaign(CampaignChange),
    Version(VersionChange),
    Routing(RoutingPublication),
}

impl Effect {
    /// What its texts take in memory, roughly.
    fn bytes(&self) -> usize {
        match self {
            Self::Campaign(change) => change.campaign_id.len() + 2 * change.old_etag.len(),
            Self::Version(change) => change.flow_id.len() + 2 * change.to_version.len(),
            Self::Routing(published) => published.configuration_id.len() + published.name.len(),
        }
    }
}

/// A campaign that was changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CampaignChange {
    pub campaign_id: String,
    pub old_rate: f64,
    /// Equal to the old rate where another property was changed; absent when the campaign was deleted.
    pub new_rate: Option<f64>,
    pub old_etag: String,
    pub new_etag: Option<String>,
    /// As Genesys Cloud's own interface counts changes.
    pub old_version: u64,
    pub new_version: Option<u64>,
}

/// Another version of a flow has become the active one, or the same once more.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionChange {
    pub flow_id: String,
    pub from_version: String,
    pub to_version: String,
    /// When the request came.
    pub started_at: Timestamp,
    /// When its reply left, or was to leave.
    pub ended_at: Timestamp,
}

/// A routing configuration was published.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoutingPublication {
    pub configuration_id: String,
    pub name: String,
    pub target_id: String,
}

/// One line of the log. Lines stand in the order of their effects.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// From 1, without gaps.
    pub sequence: u64,
    /// When it was decided, by the machine's clock.
    pub at: Timestamp,
    pub simulated_seconds: u64,
    pub origin: Origin,
    /// The OAuth client, where one was recognised.
    pub client: Option<String>,
    pub method: String,
    /// With the query.
    pub path: String,
    pub if_match: Option<String>,
    /// The first 8 KiB as text; absent for the token endpoint, whose bodies hold secrets.
    pub body: Option<String>,
    /// Absent where the connection was closed instead.
    pub status: Option<u16>,
    pub retry_after: Option<String>,
    /// Faults that acted on it.
    pub faults: Vec<&'static str>,
    pub effect: Option<Effect>,
    pub correlation_id: String,
}

impl Entry {
    /// What it takes in memory, roughly.
    fn bytes(&self) -> usize {
        let texts = [&self.client, &self.if_match, &self.body, &self.retry_after];
        let optional: usize = texts.iter().map(|text| text.as_ref().map_or(0, String::len)).sum();
        let effect = self.effect.as_ref().map_or(0, Effect::bytes);
        size_of::<Self>()
            + self.method.len()
            + self.path.len()
            + self.correlation_id.len()
            + optional
            + effect
    }
}

/// The text of a body, cut where it is too long.
pub(crate) fn body_text(body: &[u8]) -> Option<String> {
    let kept = &body[..body.len().min(MAX_BODY_BYTES)];
    (!kept.is_empty()).then(|| String::from_utf8_lossy(kept).into_owned())
}

/// A page of the log.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    pub items: Vec<Entry>,
    /// What to pass as `since` for the entries after these; null when there are none yet.
    pub next: Option<u64>,
    /// Sequence of the newest entry, 0 for none.
    pub last: u64,
    /// Entries forgotten so far because the log was full.
    pub dropped: u64,
}

/// A ring: the oldest entries go when there are too many or they are too large.
#[derive(Debug)]
pub(crate) struct Journal {
    entries: VecDeque<Entry>,
    max_entries: usize,
    max_bytes: usize,
    bytes: usize,
    last: u64,
    dropped: u64,
}

impl Journal {
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), max_entries, max_bytes, bytes: 0, last: 0, dropped: 0 }
    }

    /// Writes the entry down under the next sequence.
    pub(crate) fn push(&mut self, mut entry: Entry) {
        self.last += 1;
        entry.sequence = self.last;
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.dropped += 1;
        }
    }

    /// Entries after `since`, oldest first, at most `limit`.
    pub(crate) fn page(&self, since: u64, limit: usize) -> Page {
        let first_held = self.last + 1 - self.entries.len() as u64;
        let skipped = since.saturating_add(1).saturating_sub(first_held) as usize;
        let items: Vec<Entry> = self.entries.iter().skip(skipped).take(limit).cloned().collect();
        let next = items.last().map(|entry| entry.sequence).filter(|sequence| *sequence < self.last);
        Page { items, next, last: self.last, dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(body: usize) -> Entry {
        Entry {
            sequence: 0,
            at: Timestamp::from_millis(0),
            simulated_seconds: 0,
            origin: Origin::Api,
            client: None,
            method: "GET".into(),
            path: "/".into(),
            if_match: None,
            body: Some("x".repeat(body)),
            status: Some(200),
            retry_after: None,
            faults: Vec::new(),
            effect: None,
            correlation_id: String::new(),
        }
    }

    #[test]
    fn pages_follow_each_other_and_drops_are_told() {
        let mut journal = Journal::new(5, usize::MAX);
        assert_eq!((journal.page(0, 10).items.len(), journal.page(7, 10).next), (0, None));
        (0..8).for_each(|_| journal.push(entry(0)));
        let sequences = |page: &Page| page.items.iter().map(|entry| entry.sequence).collect::<Vec<_>>();
        let first = journal.page(0, 3);
        assert_eq!(
            (sequences(&first), first.next, first.last, first.dropped),
            (vec![4, 5, 6], Some(6), 8, 3)
        );
        let second = journal.page(6, 3);
        assert_eq!((sequences(&second), second.next), (vec![7, 8], None));
        assert!(journal.page(8, 3).items.is_empty() && journal.page(u64::MAX - 1, 3).items.is_empty());
    }

    #[test]
    fn large_entries_push_out_more() {
        let mut journal = Journal::new(1_000, 50_000);
        (0..100).for_each(|_| journal.push(entry(2_000)));
        assert!(journal.bytes <= 50_000 && journal.entries.len() > 15);
        assert_eq!(journal.entries.len() as u64 + journal.dropped, 100);
    }
}
