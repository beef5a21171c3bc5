//! How the details query behaves: when conversations appear, how its pages are cut, and
//! which pages are still to be fetched.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chance::Chance;
use crate::time::Timestamp;

/// Open queries held; the oldest go.
const MAX_OPEN_QUERIES: usize = 10_000;
/// A conversation appears this long after its end, at most: a week.
const MAX_APPEARANCE_MS: u64 = 7 * 86_400_000;

/// What can be set about the query. Times are real ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DetailsManners {
    /// Analytics know a conversation so long after its end.
    pub appears_after_ms: u64,
    /// Share of conversations that appear after `late_ms` instead, 0–1.
    pub late_share: f64,
    pub late_ms: u64,
    /// Share of pages that hold fewer items than they could, even none, 0–1. More follow.
    pub short_page_share: f64,
}

impl Default for DetailsManners {
    fn default() -> Self {
        Self { appears_after_ms: 500, late_share: 0.0, late_ms: 120_000, short_page_share: 0.0 }
    }
}

/// The rest of a query's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OpenQuery {
    pub left: Vec<Uuid>,
    pub page_size: usize,
    /// Names of the metrics asked for.
    pub metrics: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Details {
    manners: DetailsManners,
    chance: Chance,
    open: VecDeque<(Uuid, OpenQuery)>,
}

impl Details {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            manners: DetailsManners::default(),
            chance: Chance::new(seed, "details"),
            open: VecDeque::new(),
        }
    }

    pub(crate) fn manners(&self) -> DetailsManners {
        self.manners
    }

    /// Conversations that have ended before keep the moment they were given.
    ///
    /// # Errors
    /// What is impossible about the values.
    pub(crate) fn set_manners(&mut self, manners: DetailsManners) -> Result<(), String> {
        for (name, share) in [("lateShare", manners.late_share), ("shortPageShare", manners.short_page_share)]
        {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("{name} {share} must be from 0 to 1"));
            }
        }
        if manners.appears_after_ms.max(manners.late_ms) > MAX_APPEARANCE_MS {
            return Err(format!("appearsAfterMs and lateMs must be at most {MAX_APPEARANCE_MS}"));
        }
        self.manners = manners;
        Ok(())
    }

    /// When analytics will know a conversation that ended then.
    pub(crate) fn appearance(&mut self, ended_at: Timestamp) -> Timestamp {
        let late = self.chance.happens(self.manners.late_share);
        let after_ms = if late { self.manners.late_ms } else { self.manners.appears_after_ms };
        ended_at.plus(Duration::from_millis(after_ms))
    }

    /// Cuts the first page off and keeps the rest under a token, if there is a rest. A page can
    /// be fetched again by the same token: the reply may have been lost.
    pub(crate) fn cut(&mut self, mut query: OpenQuery) -> (Vec<Uuid>, Option<Uuid>) {
        let full = query.left.len().min(query.page_size);
        let short = full > 0 && self.chance.happens(self.manners.short_page_share);
        let size = if short { self.chance.between(0, full as u64 - 1) as usize } else { full };
        let rest = query.left.split_off(size);
        let page = std::mem::replace(&mut query.left, rest);
        if query.left.is_empty() {
            return (page, None);
        }
        let token = self.chance.uuid();
        self.open.push_back((token, query));
        if self.open.len() > MAX_OPEN_QUERIES {
            self.open.pop_front();
        }
        (page, Some(token))
    }

    pub(crate) fn open(&self, token: Uuid) -> Option<&OpenQuery> {
        self.open.iter().rev().find(|(held, _)| *held == token).map(|(_, query)| query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(ids: u128) -> OpenQuery {
        let left = (1..=ids).map(Uuid::from_u128).collect();
        OpenQuery { left, page_size: 10, metrics: Vec::new() }
    }

    fn all_pages(details: &mut Details, ids: u128) -> Vec<Vec<Uuid>> {
        let (first, mut next) = details.cut(query(ids));
        let mut pages = vec![first];
        while let Some(token) = next {
            let open = details.open(token).expect("the page is kept").clone();
            let (page, following) = details.cut(open);
            pages.push(page);
            next = following;
        }
        pages
    }

    #[test]
    fn pages_hold_every_conversation_once_however_short_they_are() {
        let mut details = Details::new(3);
        assert_eq!(all_pages(&mut details, 25).iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(all_pages(&mut details, 0).iter().map(Vec::len).collect::<Vec<_>>(), [0]);
        details.set_manners(DetailsManners { short_page_share: 0.7, ..details.manners() }).unwrap();
        let pages = all_pages(&mut details, 95);
        assert!(pages.len() > 12 && pages.iter().any(Vec::is_empty), "{}", pages.len());
        assert_eq!(pages.concat(), query(95).left);
    }

    #[test]
    fn the_share_that_appears_late_does() {
        let mut details = Details::new(3);
        let manners = DetailsManners {
            appears_after_ms: 100,
            late_share: 0.25,
            late_ms: 60_000,
            ..DetailsManners::default()
        };
        details.set_manners(manners).unwrap();
        let ended_at = Timestamp::from_millis(1_000);
        let delays: Vec<i64> =
            (0..4_000).map(|_| details.appearance(ended_at).millis_since(ended_at)).collect();
        assert!(delays.iter().all(|delay| [100, 60_000].contains(delay)));
        let late = delays.iter().filter(|delay| **delay == 60_000).count();
        assert!((900..1_100).contains(&late), "{late}");
        assert!(details.set_manners(DetailsManners { late_share: 1.5, ..manners }).is_err());
        assert!(details.set_manners(DetailsManners { late_ms: u64::MAX, ..manners }).is_err());
        assert_eq!(details.manners(), manners);
    }
}
