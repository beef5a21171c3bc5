//! One poll of one cluster: from its brokers' answers to samples.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::kafka::{ClientConfig, KafkaError};

use super::choice::Choice;
use super::name;
use super::others::{Other, Others};
use super::spans::{Known, Spans};
use crate::kafka::groups::{Edge, Edges, Groups, GroupsError, Kind, Membership, TopicPartition};
use crate::kafka::log_heads::{Found, LogHeads};
use crate::model::Timestamp;
use crate::model::lag::{Assigned, GroupType, Head, LagSample, LagSource, Observation, PartitionLag};

/// Partitions of one group that are watched; a group with more is told as failed.
const MOST_PARTITIONS: usize = 20_000;
/// Share of the time for a poll that questions about groups and offsets may take
/// before heads are read.
const QUESTIONS_SHARE: f64 = 0.6;
/// Offsets between head and end that are counted through, of one partition and together:
/// what is farther behind is told in offsets.
const MOST_COUNTED_OF_ONE: i64 = 2_048;
const MOST_COUNTED: i64 = 8_192;

/// A cluster under watch. Its clients connect when they are first used.
pub struct Cluster {
    /// Stands before the groups' names; `None` for trunkline's own cluster.
    name: Option<String>,
    choice: Choice,
    groups: Groups,
    heads: LogHeads,
    spans: Spans,
    others: Others,
    /// Groups told of by the last poll that succeeded.
    known: BTreeSet<String>,
    /// Partitions they read, and the identities of their topics.
    places: BTreeSet<TopicPartition>,
    topic_ids: HashMap<String, String>,
}

/// A group's answers.
struct Answered {
    kind: Option<GroupType>,
    membership: Membership,
    committed: BTreeMap<TopicPartition, i64>,
}

/// A place where heads are known, and the log's edges there.
struct Place<'p> {
    place: &'p TopicPartition,
    committed: Option<i64>,
    log_start: i64,
    log_end: i64,
}

impl Cluster {
    /// # Errors
    /// When the configuration is not accepted.
    pub fn new(
        name: Option<String>,
        choice: Choice,
        config: &ClientConfig,
        reader_group: &str,
    ) -> Result<Self, KafkaError> {
        Ok(Self {
            name,
            choice,
            groups: Groups::new(config)?,
            heads: LogHeads::new(config, reader_group)?,
            spans: Spans::default(),
            others: Others::default(),
            known: BTreeSet::new(),
            places: BTreeSet::new(),
            topic_ids: HashMap::new(),
        })
    }

    /// The group's name on topics.
    fn key(&self, group: &str) -> String {
        name::of(self.name.as_deref(), group)
    }

    /// Samples of all groups whose keys are `ours`. Blocks for `patience` at most.
    ///
    /// A cluster that does not answer is a fact about every group that was known in it.
    pub fn poll(
        &mut self,
        at: Timestamp,
        ours: impl Fn(&str) -> bool,
        patience: Duration,
    ) -> (Vec<LagSample>, Result<(), GroupsError>) {
        let deadline = Instant::now() + patience;
        let listed = match self.groups.list(patience.mul_f64(QUESTIONS_SHARE)) {
            Ok(listed) => listed,
            Err(error) => return (self.nothing_known(at, &ours, &error), Err(error)),
        };
        let others: Vec<Other> =
            self.others.find(&mut self.groups, &listed, patience.mul_f64(QUESTIONS_SHARE));
        let takes = |name: &str| self.choice.takes(name) && ours(&self.key(name));
        let others: Vec<_> = others.into_iter().filter(|other| takes(&other.name)).collect();
        let chosen: Vec<_> = listed.into_iter().filter(|group| takes(&group.name)).collect();
        let there: BTreeSet<&str> = chosen
            .iter()
            .map(|group| group.name.as_str())
            .chain(others.iter().map(|other| other.name.as_str()))
            .collect();
        let missing = self.choice.required.iter().filter(|required| ours(&self.key(required)));
        let mut samples: Vec<LagSample> = missing
            .filter(|required| !there.contains(required.as_str()))
            .map(|group| self.sample(group, None, at, 1, Observation::Missing {}))
            .collect();
        samples.extend(others.iter().map(|other| {
            let reason = other.why.clone();
            self.sample(&other.name, Some(other.kind), at, 1, Observation::NotJudged { reason })
        }));
        let left = || deadline.saturating_duration_since(Instant::now()).mul_f64(QUESTIONS_SHARE);
        // Where logs begin before what is committed, and where they end after: a reader that
        // purges what it has committed is not behind its own purge then.
        let before: Vec<TopicPartition> = self.places.iter().cloned().collect();
        let mut edges = match self.groups.edges(&[(Edge::Start, &before)], &[], left()) {
            Ok(edges) => edges,
            Err(error) => return (self.nothing_known(at, &ours, &error), Err(error)),
        };
        let names: Vec<&str> = chosen.iter().map(|group| group.name.as_str()).collect();
        let occupied: Vec<&str> =
            chosen.iter().filter(|group| !group.empty).map(|group| group.name.as_str()).collect();
        let described = self.groups.memberships(&occupied, left());
        let mut memberships: HashMap<&str, _> = occupied.iter().copied().zip(described).collect();
        let committed = self.groups.committed(&names, left());
        let mut answered = BTreeMap::new();
        for (group, committed) in chosen.iter().zip(committed) {
            let name = group.name.as_str();
            let kind = group.kind.map(group_type);
            let membership = memberships.remove(name).unwrap_or_else(|| Ok(Membership::default()));
            let both = membership.and_then(|membership| {
                Ok(Answered { kind, membership, committed: committed?.into_iter().collect() })
            });
            match both {
                Ok(answer) => drop(answered.insert(name.to_owned(), answer)),
                Err(error) => samples.push(self.failed(name, at, &error.to_string())),
            }
        }
        self.known = there.into_iter().map(str::to_owned).collect();
        samples.extend(self.measure(at, answered, &mut edges, deadline));
        (samples, Ok(()))
    }

    fn nothing_known(
        &self,
        at: Timestamp,
        ours: &impl Fn(&str) -> bool,
        error: &GroupsError,
    ) -> Vec<LagSample> {
        let cluster = self.name.as_deref().unwrap_or("trunkline's own");
        let reason = format!("cluster {cluster} does not tell: {error}");
        let expected = self.known.iter().chain(&self.choice.required).collect::<BTreeSet<_>>();
        expected
            .into_iter()
            .filter(|group| ours(&self.key(group)))
            .map(|group| self.failed(group, at, &reason))
            .collect()
    }

    /// Asks for the ends of all partitions, then for the heads of those that lag.
    fn measure(
        &mut self,
        at: Timestamp,
        answered: BTreeMap<String, Answered>,
        edges: &mut Edges,
        deadline: Instant,
    ) -> Vec<LagSample> {
        self.places = answered
            .values()
            .flat_map(|answer| answer.committed.keys().chain(&answer.membership.assigned))
            .cloned()
            .collect();
        let places: Vec<TopicPartition> = self.places.iter().cloned().collect();
        let new: Vec<_> = places.iter().filter(|place| !edges.starts.contains_key(*place)).cloned().collect();
        let topics: BTreeSet<&str> = places.iter().map(|(topic, _)| topic.as_str()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let asked = [(Edge::Start, &new[..]), (Edge::Stable, &places[..]), (Edge::High, &places[..])];
        let left = || deadline.saturating_duration_since(Instant::now());
        match self.groups.edges(&asked, &topics, left().mul_f64(QUESTIONS_SHARE)) {
            Ok(found) => {
                edges.starts.extend(found.starts);
                (edges.ends, edges.highs, edges.topic_ids) = (found.ends, found.highs, found.topic_ids);
            }
            Err(error) => {
                return answered.keys().map(|group| self.failed(group, at, &error.to_string())).collect();
            }
        }
        self.meet_topics(&edges.topic_ids);
        let problems = self.read_heads(&answered, edges, deadline);
        self.count_records(&answered, edges, deadline);
        let mut samples = Vec::new();
        for (group, answer) in &answered {
            let mut observations = self.observations(answer, edges, &problems, at);
            let members = answer.membership.members;
            if observations.is_empty() && (members > 0 || self.choice.required.contains(group)) {
                observations.push(Observation::Idle { members });
            }
            let of = u32::try_from(observations.len()).unwrap_or(u32::MAX);
            samples.extend(
                observations
                    .into_iter()
                    .map(|observation| self.sample(group, answer.kind, at, of, observation)),
            );
        }
        self.spans.forget_unused();
        samples
    }

    /// What was read of a topic is not true of another one of the same name.
    fn meet_topics(&mut self, now: &HashMap<String, String>) {
        for (topic, id) in now {
            if self.topic_ids.get(topic).is_some_and(|before| before != id) {
                self.spans.forget_topic(topic);
            }
        }
        self.topic_ids.clone_from(now);
    }

    /// Reads what is not known yet. Groups at different offsets of one partition take
    /// turns, the one farthest behind first: its head is often theirs too.
    fn read_heads(
        &mut self,
        answered: &BTreeMap<String, Answered>,
        edges: &Edges,
        deadline: Instant,
    ) -> HashMap<TopicPartition, String> {
        let mut problems = HashMap::new();
        loop {
            let mut wanted: BTreeMap<TopicPartition, (i64, i64)> = BTreeMap::new();
            for answer in answered.values() {
                for (place, committed) in &answer.committed {
                    let (Some(Ok(start)), Some(Ok(end))) = (edges.starts.get(place), edges.ends.get(place))
                    else {
                        continue;
                    };
                    if problems.contains_key(place) {
                        continue;
                    }
                    if let Known::ReadFrom(from) = self.spans.look_up(place, *committed.max(start), *end) {
                        let open = wanted.entry(place.clone()).or_insert((from, *end));
                        open.0 = open.0.min(from);
                    }
                }
            }
            if wanted.is_empty() {
                return problems;
            }
            let list: Vec<(TopicPartition, i64)> =
                wanted.iter().map(|(place, (from, _))| (place.clone(), *from)).collect();
            for (place, answer) in self.heads.read(&list, deadline) {
                let Some((from, end)) = wanted.get(&place) else { continue };
                match answer {
                    Ok(found) => self.spans.learn(&place, *from, *end, found),
                    Err(problem) => drop(problems.insert(place, problem)),
                }
            }
        }
    }

    /// Counts what waits in partitions that are a little behind: offsets between head and end
    /// may be markers, or records of transactions that were aborted. What is not counted by the
    /// deadline is told in offsets, and tried again at the next poll.
    fn count_records(&mut self, answered: &BTreeMap<String, Answered>, edges: &Edges, deadline: Instant) {
        let mut wanted = BTreeMap::new();
        for answer in answered.values() {
            for (place, committed) in &answer.committed {
                let (Some(Ok(start)), Some(Ok(end))) = (edges.starts.get(place), edges.ends.get(place))
                else {
                    continue;
                };
                let Known::Head(head) = self.spans.look_up(place, *committed.max(start), *end) else {
                    continue;
                };
                if end - head.offset <= MOST_COUNTED_OF_ONE
                    && let Err((from, before)) = self.spans.counted(place, head.offset, *end)
                {
                    wanted.insert((end - from, place), (head.offset, from, *end, before));
                }
            }
        }
        let mut budget = MOST_COUNTED;
        let mut taken = HashMap::new();
        let mut list = Vec::new();
        // The shortest first, and of groups at different heads of a partition one.
        for ((span, place), (head, from, end, before)) in wanted {
            if span <= budget && !taken.contains_key(place) {
                budget -= span;
                taken.insert(place, (head, end, before));
                list.push((place.clone(), from, end));
            }
        }
        if list.is_empty() {
            return;
        }
        for (place, records) in self.heads.count(&list, deadline) {
            if let Some((head, end, before)) = taken.get(&place) {
                self.spans.learn_count(&place, *head, *end, before + records);
            }
        }
    }

    fn observations(
        &mut self,
        answer: &Answered,
        edges: &Edges,
        problems: &HashMap<TopicPartition, String>,
        at: Timestamp,
    ) -> Vec<Observation> {
        let mut places: BTreeSet<&TopicPartition> = answer.committed.keys().collect();
        places.extend(&answer.membership.assigned);
        let membership = &answer.membership;
        let assigned: HashSet<&TopicPartition> = membership.assigned.iter().collect();
        let places: BTreeSet<&TopicPartition> =
            answer.committed.keys().chain(&answer.membership.assigned).collect();
        if places.len() > MOST_PARTITIONS {
            let reason = format!("{} partitions, more than {MOST_PARTITIONS}", places.len());
            return vec![Observation::Failed { reason }];
        }
        let committed_sum = answer.committed.values().fold(0i64, |sum, offset| sum.wrapping_add(*offset));
        let mut observations = Vec::with_capacity(places.len());
        for place in places {
            let (log_start, log_end) = match (edges.starts.get(place), edges.ends.get(place)) {
                (Some(Ok(start)), Some(Ok(end))) => (*start, *end),
                (Some(Err(problem)), _) | (_, Some(Err(problem))) => {
                    observations.push(failure(place, problem));
                    continue;
                }
                // The topic does not exist any more.
                _ => continue,
            };
            if let Some(problem) = problems.get(place) {
                observations.push(failure(place, problem));
                continue;
            }
            let committed = answer.committed.get(place).copied();
            let found = self.head(&Place { place, committed, log_start, log_end });
            observations.push(Observation::Partition(PartitionLag {
                topic: place.0.clone(),
                topic_id: edges.topic_ids.get(&place.0).cloned(),
                partition: place.1,
                committed,
                log_start,
                log_end,
                high_watermark: edges.highs.get(place).and_then(|high| high.as_ref().ok()).copied(),
                head: found.map(|found| head(found, at)),
                records: found.and_then(|found| self.spans.counted(place, found.offset, log_end).ok()),
                members: membership.members,
                assigned: whose(membership, assigned.contains(place)),
                committed_sum: Some(committed_sum),
            }));
        }
        observations
    }

    fn head(&mut self, at: &Place<'_>) -> Option<Found> {
        match self.spans.look_up(at.place, at.committed?.max(at.log_start), at.log_end) {
            Known::Head(found) => Some(found),
            Known::Nothing | Known::ReadFrom(_) => None,
        }
    }

    fn failed(&self, group: &str, at: Timestamp, reason: &str) -> LagSample {
        self.sample(group, None, at, 1, Observation::Failed { reason: reason.to_owned() })
    }

    fn sample(
        &self,
        group: &str,
        group_type: Option<GroupType>,
        at: Timestamp,
        of: u32,
        observation: Observation,
    ) -> LagSample {
        LagSample {
            consumer_group: self.key(group),
            source: LagSource::Broker,
            group_type,
            observed_at: at,
            poll_samples: of,
            observation,
        }
    }
}

fn failure((topic, partition): &TopicPartition, problem: &str) -> Observation {
    Observation::Failed { reason: format!("{topic}/{partition}: {problem}") }
}

/// A record without a time of its own is as old as our knowledge of it.
fn head(found: Found, at: Timestamp) -> Head {
    let written_at = found.timestamp_ms.map_or(at, Timestamp::from_millis);
    Head { offset: found.offset, written_at }
}

fn group_type(kind: Kind) -> GroupType {
    match kind {
        Kind::Classic => GroupType::Classic,
        Kind::Consumer => GroupType::Consumer,
    }
}

/// Whom a partition belongs to; `None` while members are being assigned anew.
fn whose(membership: &Membership, assigned: bool) -> Option<Assigned> {
    match membership {
        Membership { members: 0, .. } => Some(Assigned::Nowhere),
        _ if assigned => Some(Assigned::Here),
        Membership { settled: false, .. } => None,
        Membership { assigned, .. } if assigned.is_empty() => Some(Assigned::Nowhere),
        _ => Some(Assigned::Elsewhere),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_its_readers_and_not_the_groups() {
        let of = |members, assigned: &[i32], settled| Membership {
            members,
            assigned: assigned.iter().map(|partition| ("t".to_owned(), *partition)).collect(),
            settled,
        };
        for (membership, is_assigned, expected) in [
            (of(0, &[], true), false, Some(Assigned::Nowhere)),
            (of(2, &[1], true), true, Some(Assigned::Here)),
            (of(2, &[1], true), false, Some(Assigned::Elsewhere)),
            (of(2, &[], true), false, Some(Assigned::Nowhere)),
            (of(2, &[1], false), false, None),
            (of(2, &[], false), false, None),
        ] {
            assert_eq!(whose(&membership, is_assigned), expected, "{membership:?}");
        }
    }
}
