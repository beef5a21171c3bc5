//! Groups that are no consumer groups: told of, and not judged.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::kafka::groups::{Groups, Listed};
use crate::model::lag::GroupType;

/// How often they are looked for. Unlike other questions this one brings every member.
const EVERY: Duration = Duration::from_secs(60);
/// For this long at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group that nothing here can judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Other {
    pub name: String,
    pub kind: GroupType,
    pub why: String,
}

/// Those found when they were last looked for.
#[derive(Debug, Default)]
pub(super) struct Others {
    found: Vec<Other>,
    looked_at: Option<Instant>,
}

impl Others {
    /// Looks for them when it is time, and answers those that are not among `consumers`.
    /// Where the brokers do not tell, those of the last time stay.
    pub(super) fn find(&mut self, groups: &mut Groups, consumers: &[Listed], left: Duration) -> Vec<Other> {
        let due = self.looked_at.is_none_or(|at| at.elapsed() >= EVERY);
        if due {
            self.looked_at = Some(Instant::now());
            match groups.of_other_kinds(left.min(PATIENCE)) {
                Ok(names) => self.found = sort(groups, names, consumers, left.min(PATIENCE)),
                Err(error) => tracing::debug!(%error, "groups of other kinds are not known"),
            }
        }
        // A consumer group that was made since is listed by now.
        let known: HashSet<&str> = consumers.iter().map(|group| group.name.as_str()).collect();
        self.found.iter().filter(|other| !known.contains(other.name.as_str())).cloned().collect()
    }
}

fn sort(
    groups: &mut Groups,
    names: Vec<(String, String)>,
    consumers: &[Listed],
    left: Duration,
) -> Vec<Other> {
    let known: HashSet<&str> = consumers.iter().map(|group| group.name.as_str()).collect();
    let (classic, others): (Vec<_>, Vec<_>) = names
        .into_iter()
        .filter(|(name, _)| !known.contains(name.as_str()))
        .partition(|(_, protocol)| !protocol.is_empty());
    let others: Vec<&str> = others.iter().map(|(name, _)| name.as_str()).collect();
    let told = match others.is_empty() {
        true => HashMap::new(),
        false => groups.types(left).unwrap_or_else(|error| {
            tracing::debug!(%error, "types are told from what groups do");
            HashMap::new()
        }),
    };
    let committed = groups.committed(&others, left);
    let others = others.iter().zip(committed).map(|(name, committed)| {
        let (kind, why) = match (told.get(*name).map(String::as_str), committed) {
            (Some("share"), _) => (GroupType::Share, "a share group".to_owned()),
            (Some("streams"), _) => (GroupType::Streams, "a streams group".to_owned()),
            (Some(other), _) => (GroupType::Other, format!("a group of type {other}")),
            // Share groups cannot commit offsets; streams groups have, once they have read anything.
            (None, Ok(offsets)) if !offsets.is_empty() => (GroupType::Streams, "a streams group".to_owned()),
            (None, _) => {
                let why = "a share group, or a streams group that has not committed yet";
                (GroupType::Unknown, why.to_owned())
            }
        };
        Other { name: (*name).to_owned(), kind, why }
    });
    let classic = classic.iter().map(|(name, protocol)| Other {
        name: name.clone(),
        kind: GroupType::Other,
        why: format!("a group of protocol {protocol}"),
    });
    others.chain(classic).collect()
}
