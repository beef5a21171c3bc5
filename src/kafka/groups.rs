//! Consumer groups of a cluster as its brokers see them: who is a member, what is
//! committed, where logs begin and end. rdkafka's safe interface has none of it.
//!
//! Everything here blocks, for the timeout given at most, and changes nothing.

mod native;
mod types;

use std::collections::HashMap;
use std::ffi::CString;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::error::KafkaError;

use native::{Operation, Queue, Request};

/// A topic's name and the number of a partition of it.
pub type TopicPartition = (String, i32);

/// Requests to the brokers under way at once where each group needs its own.
const REQUESTS_AT_ONCE: usize = 256;
/// Partitions, or topics, asked about at once: librdkafka looks each answer up in its list from the front.
const PARTITIONS_PER_QUESTION: usize = 500;

/// Why the brokers' answer is not there, in a form for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct GroupsError {
    what: &'static str,
    problem: String,
}

/// A group that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// Nobody is a member, so there is nothing more to ask.
    pub empty: bool,
    /// Absent with brokers that do not tell (before 3.8).
    pub kind: Option<Kind>,
}

/// Who assigns the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A member.
    Classic,
    /// The brokers (KIP-848).
    Consumer,
}

/// Who reads in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub members: u32,
    /// Partitions that members are assigned, in no order.
    pub assigned: Vec<TopicPartition>,
    /// They are not being assigned anew just now.
    pub settled: bool,
}

/// One end of a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The first offset that is still there.
    Start,
    /// The last stable offset: where a `read_committed` reader's log ends.
    Stable,
    /// Where the log ends with what open transactions hold.
    High,
}

/// An offset, or why the broker does not tell it.
pub type EdgeOffset = Result<i64, String>;

/// Offsets where logs begin and end, or why one cannot be told.
#[derive(Debug, Default)]
pub struct Edges {
    pub starts: HashMap<TopicPartition, EdgeOffset>,
    pub ends: HashMap<TopicPartition, EdgeOffset>,
    pub highs: HashMap<TopicPartition, EdgeOffset>,
    /// Identities of topics, where they have one that was told.
    pub topic_ids: HashMap<String, String>,
}

/// How long librdkafka itself may work on a request to a group's coordinator: its limit.
///
/// A request that it gives up while the coordinator is still being looked for aborts the
/// process once that is found (librdkafka issues 3663 and 4605, present in 2.12). So the
/// patience is ours: what is not answered in time is left to come in later.
const COORDINATOR_PATIENCE: Duration = Duration::from_secs(3_600);
/// Requests still unanswered after this are given up together with their client.
const CLIENT_PATIENCE: Duration = Duration::from_secs(600);

/// A client that asks the brokers of one cluster.
pub struct Groups {
    /// Where coordinators' answers come in. Stands before the client, so that it goes first.
    answers: Queue,
    client: AdminClient<DefaultClientContext>,
    config: ClientConfig,
    /// Requests that were not answered in time, and since when there are any.
    unanswered: usize,
    unanswered_since: Option<Instant>,
}

impl Groups {
    /// Connects when it is first asked something.
    ///
    /// # Errors
    /// When the configuration is not accepted.
    pub fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        let client: AdminClient<DefaultClientContext> = AdminClient::from_config(config)?;
        let answers = Queue::new(client.inner());
        let config = config.clone();
        Ok(Self { answers, client, config, unanswered: 0, unanswered_since: None })
    }

    /// All consumer groups, in no order.
    ///
    /// # Errors
    /// When some broker does not answer: groups that it coordinates would be missing.
    pub fn list(&self, timeout: Duration) -> Result<Vec<Listed>, GroupsError> {
        const WHAT: &str = "the list of consumer groups";
        let queue = self.queue();
        queue.send(Request::ListGroups, timeout).map_err(problem(WHAT))?;
        let event = queue.wait(timeout).ok_or_else(|| problem(WHAT)("no answer in time".to_owned()))?;
        event.listed().map_err(problem(WHAT))
    }

    /// Members of each group, or why they cannot be told.
    pub fn memberships(
        &mut self,
        groups: &[&str],
        timeout: Duration,
    ) -> Vec<Result<Membership, GroupsError>> {
        self.each(groups, timeout, "members", Operation::Describe, |event| event.membership())
    }

    /// Offsets each group has committed, or why they cannot be told. Stable ones only:
    /// those of transactions that are open are not counted yet, and not waited for.
    pub fn committed(
        &mut self,
        groups: &[&str],
        timeout: Duration,
    ) -> Vec<Result<Vec<(TopicPartition, i64)>, GroupsError>> {
        self.each(groups, timeout, "committed offsets", Operation::Committed, |event| event.committed())
    }

    /// Names of groups that are no consumer groups, in no order, with the protocol of
    /// classic ones; it is empty for share and for streams groups, which librdkafka 2.12
    /// does not tell apart.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub fn of_other_kinds(&self, timeout: Duration) -> Result<Vec<(String, String)>, GroupsError> {
        let all = native::all_groups(self.client.inner(), timeout).map_err(problem("groups of all kinds"))?;
        Ok(all.into_iter().filter(|(_, protocol)| protocol != "consumer").collect())
    }

    /// Types of all groups in the brokers' words, by name. Blocks for `timeout` at most.
    ///
    /// # Errors
    /// When some broker does not answer, does not know types (before 3.8), or is reached by TLS
    /// or SASL.
    pub fn types(&self, timeout: Duration) -> Result<HashMap<String, String>, GroupsError> {
        const WHAT: &str = "types of groups";
        let protocol = self.config.get("security.protocol").unwrap_or("plaintext");
        if !protocol.eq_ignore_ascii_case("plaintext") {
            return Err(problem(WHAT)(format!("not asked for over {protocol}")));
        }
        let deadline = Instant::now() + timeout;
        let metadata = self.client.inner().fetch_metadata(None, timeout);
        let metadata = metadata.map_err(|error| problem(WHAT)(error.to_string()))?;
        let mut types = HashMap::new();
        for broker in metadata.brokers() {
            let port = u16::try_from(broker.port()).map_err(|_| problem(WHAT)("no port".to_owned()))?;
            types.extend(types::of_broker(broker.host(), port, deadline).map_err(problem(WHAT))?);
        }
        Ok(types)
    }

    /// Edges of partitions, and identities of `topics`, or why one cannot be told.
    /// Partitions of topics that do not exist any more are left out.
    ///
    /// # Errors
    /// When some question about an edge gets no answer at all.
    pub fn edges(
        &self,
        asked: &[(Edge, &[TopicPartition])],
        topics: &[&str],
        timeout: Duration,
    ) -> Result<Edges, GroupsError> {
        const WHAT: &str = "offsets of partitions";
        let deadline = Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let queue = self.queue();
        let mut open = 0;
        for (edge, partitions) in asked {
            for partitions in partitions.chunks(PARTITIONS_PER_QUESTION) {
                queue.send(Request::Offsets { partitions, edge: *edge }, left()).map_err(problem(WHAT))?;
                open += 1;
            }
        }
        for topics in topics.chunks(PARTITIONS_PER_QUESTION) {
            queue.send(Request::Topics(topics), left()).map_err(problem(WHAT))?;
            open += 1;
        }
        let mut edges = Edges::default();
        while open > 0 {
            let event = queue.wait(left()).ok_or_else(|| problem(WHAT)("no answer in time".to_owned()))?;
            open -= 1;
            let offsets = match event.index() {
                native::TOPICS => {
                    match event.topic_ids() {
                        Ok(ids) => edges.topic_ids.extend(ids),
                        // Nothing but what a topic made anew would change hangs on it.
                        Err(error) => tracing::debug!(error, "identities of topics are not known"),
                    }
                    continue;
                }
                index if index == Edge::Start as usize => &mut edges.starts,
                index if index == Edge::Stable as usize => &mut edges.ends,
                _ => &mut edges.highs,
            };
            offsets.extend(event.offsets().map_err(problem(WHAT))?);
        }
        Ok(edges)
    }

    /// One request per group, many at a time.
    fn each<T>(
        &mut self,
        groups: &[&str],
        timeout: Duration,
        what: &'static str,
        operation: Operation,
        read: impl Fn(&native::Event) -> Result<T, String>,
    ) -> Vec<Result<T, GroupsError>> {
        let deadline = Instant::now() + timeout;
        if let Err(busy) = self.await_unanswered(deadline) {
            return groups.iter().map(|_| Err(problem(what)(busy.clone()))).collect();
        }
        let in_vain = || Err(problem(what)("no answer in time".to_owned()));
        let mut answers: Vec<_> = groups.iter().map(|_| in_vain()).collect();
        let (mut sent, mut answered) = (0, 0);
        while answered < groups.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            while sent < groups.len() && sent - answered < REQUESTS_AT_ONCE {
                let name = CString::new(groups[sent]).map_err(|_| "the name holds a NUL".to_owned());
                let request = name.and_then(|group| {
                    self.answers.send(Request::Group { operation, group, index: sent }, COORDINATOR_PATIENCE)
                });
                if let Err(refused) = request {
                    answers[sent] = Err(problem(what)(refused));
                    answered += 1;
                }
                sent += 1;
            }
            let Some(event) = self.answers.wait(left) else { continue };
            answers[event.index()] = read(&event).map_err(problem(what));
            answered += 1;
        }
        self.unanswered = sent - answered;
        self.unanswered_since = (self.unanswered > 0).then(Instant::now);
        answers
    }

    /// Nothing new is asked while old questions are open: they would pile up.
    fn await_unanswered(&mut self, deadline: Instant) -> Result<(), String> {
        while self.unanswered > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.wait(left) {
                Some(_) => self.unanswered -= 1,
                None if left.is_zero() => break,
                None => {}
            }
        }
        if self.unanswered == 0 {
            self.unanswered_since = None;
            return Ok(());
        }
        let problem = format!("{} earlier questions are not answered yet", self.unanswered);
        if self.unanswered_since.is_some_and(|since| since.elapsed() > CLIENT_PATIENCE) {
            *self = Self::new(&self.config.clone()).map_err(|error| error.to_string())?;
        }
        Err(problem)
    }

    fn queue(&self) -> Queue {
        Queue::new(self.client.inner())
    }
}

fn problem(what: &'static str) -> impl Fn(String) -> GroupsError {
    move |problem| GroupsError { what, problem }
}
