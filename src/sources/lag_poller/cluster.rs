//! One poll of one cluster: from its brokers' answers to samples.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::choice::Choice;
use super::spans::{Known, Spans};
use crate::model::Timestamp;
use crate::model::lag::{Head, LagSample, LagSource, Observation, PartitionLag};
use crate::runtime::groups::{Edges, Groups, GroupsError, Membership, TopicPartition};
use crate::runtime::heads::{Found, Heads};

/// Partitions of one group that are watched; a group with more is told as failed.
const MOST_PARTITIONS: usize = 20_000;
/// Share of the time for a poll that questions about groups and offsets may take
/// before heads are read.
const QUESTIONS_SHARE: f64 = 0.6;

/// A cluster under watch. Its clients connect when they are first used.
pub struct Cluster {
    /// Stands before the groups' names; `None` for trunkline's own cluster.
    name: Option<String>,
    choice: Choice,
    groups: Groups,
    heads: Heads,
    spans: Spans,
    /// Groups told of by the last poll that succeeded.
    known: BTreeSet<String>,
}

/// A group's answers.
struct Answered {
    membership: Membership,
    committed: BTreeMap<TopicPartition, i64>,
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
            heads: Heads::new(config, reader_group)?,
            spans: Spans::default(),
            known: BTreeSet::new(),
        })
    }

    /// The group's name on topics.
    fn key(&self, group: &str) -> String {
        match &self.name {
            Some(cluster) => format!("{cluster}:{group}"),
            None => group.to_owned(),
        }
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
        let chosen: Vec<_> = listed
            .into_iter()
            .filter(|group| self.choice.takes(&group.name) && ours(&self.key(&group.name)))
            .collect();
        let missing: Vec<&String> = self
            .choice
            .required
            .iter()
            .filter(|required| ours(&self.key(required)))
            .filter(|required| chosen.iter().all(|group| group.name != **required))
            .collect();
        let mut samples: Vec<LagSample> =
            missing.iter().map(|group| self.sample(group, at, 1, Observation::Missing {})).collect();
        let names: Vec<&str> = chosen.iter().map(|group| group.name.as_str()).collect();
        let occupied: Vec<&str> =
            chosen.iter().filter(|group| !group.empty).map(|group| group.name.as_str()).collect();
        let left = || deadline.saturating_duration_since(Instant::now()).mul_f64(QUESTIONS_SHARE);
        let described = self.groups.memberships(&occupied, left());
        let mut memberships: HashMap<&str, _> = occupied.iter().copied().zip(described).collect();
        let committed = self.groups.committed(&names, left());
        let mut answered = BTreeMap::new();
        for (group, committed) in names.iter().zip(committed) {
            let membership = memberships.remove(group).unwrap_or_else(|| Ok(Membership::default()));
            let both = membership.and_then(|membership| {
                Ok(Answered { membership, committed: committed?.into_iter().collect() })
            });
            match both {
                Ok(answer) => drop(answered.insert((*group).to_owned(), answer)),
                Err(error) => samples.push(self.failed(group, at, &error.to_string())),
            }
        }
        self.known = names.iter().map(|group| (*group).to_owned()).collect();
        samples.extend(self.measure(at, answered, deadline));
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
        deadline: Instant,
    ) -> Vec<LagSample> {
        let places: BTreeSet<TopicPartition> = answered
            .values()
            .flat_map(|answer| answer.committed.keys().chain(&answer.membership.assigned))
            .cloned()
            .collect();
        let places: Vec<TopicPartition> = places.into_iter().collect();
        let left = || deadline.saturating_duration_since(Instant::now());
        let edges = match self.groups.edges(&places, left().mul_f64(QUESTIONS_SHARE)) {
            Ok(edges) => edges,
            Err(error) => {
                return answered.keys().map(|group| self.failed(group, at, &error.to_string())).collect();
            }
        };
        let problems = self.read_heads(&answered, &edges, deadline);
        let mut samples = Vec::new();
        for (group, answer) in &answered {
            let mut observations = self.observations(answer, &edges, &problems, at);
            let members = answer.membership.members;
            if observations.is_empty() && (members > 0 || self.choice.required.contains(group)) {
                observations.push(Observation::Idle { members });
            }
            let of = u32::try_from(observations.len()).unwrap_or(u32::MAX);
            samples
                .extend(observations.into_iter().map(|observation| self.sample(group, at, of, observation)));
        }
        self.spans.forget_unused();
        samples
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

    fn observations(
        &mut self,
        answer: &Answered,
        edges: &Edges,
        problems: &HashMap<TopicPartition, String>,
        at: Timestamp,
    ) -> Vec<Observation> {
        let mut places: BTreeSet<&TopicPartition> = answer.committed.keys().collect();
        places.extend(&answer.membership.assigned);
        let members = answer.membership.members;
        if places.len() > MOST_PARTITIONS {
            let reason = format!("{} partitions, more than {MOST_PARTITIONS}", places.len());
            return vec![Observation::Failed { reason }];
        }
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
            let head = committed.and_then(|committed| {
                match self.spans.look_up(place, committed.max(log_start), log_end) {
                    Known::Head(found) => Some(head(found, at)),
                    Known::Nothing | Known::ReadFrom(_) => None,
                }
            });
            observations.push(Observation::Partition(PartitionLag {
                topic: place.0.clone(),
                partition: place.1,
                committed,
                log_start,
                log_end,
                head,
                members,
            }));
        }
        observations
    }

    fn failed(&self, group: &str, at: Timestamp, reason: &str) -> LagSample {
        self.sample(group, at, 1, Observation::Failed { reason: reason.to_owned() })
    }

    fn sample(&self, group: &str, at: Timestamp, of: u32, observation: Observation) -> LagSample {
        LagSample {
            consumer_group: self.key(group),
            source: LagSource::Broker,
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
