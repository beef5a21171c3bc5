//! Consumer groups of a cluster as its brokers see them: who is a member, what is
//! committed, where logs begin and end. rdkafka's safe interface has none of it.
//!
//! Everything here blocks, for the timeout given at most, and changes nothing.

mod native;

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
}

/// Who reads in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub members: u32,
    /// Partitions that members are assigned, in no order.
    pub assigned: Vec<TopicPartition>,
}

/// One end of a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The first offset that is still there.
    Start,
    /// The last stable offset: where a `read_committed` reader's log ends.
    Stable,
}

/// A client that asks the brokers of one cluster.
pub struct Groups {
    client: AdminClient<DefaultClientContext>,
}

impl Groups {
    /// Connects when it is first asked something.
    ///
    /// # Errors
    /// When the configuration is not accepted.
    pub fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        Ok(Self { client: AdminClient::from_config(config)? })
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
    pub fn memberships(&self, groups: &[&str], timeout: Duration) -> Vec<Result<Membership, GroupsError>> {
        self.each(groups, timeout, "members", Operation::Describe, |event| event.membership())
    }

    /// Offsets each group has committed, or why they cannot be told. Stable ones only:
    /// those of transactions that are open are not counted yet, and not waited for.
    pub fn committed(
        &self,
        groups: &[&str],
        timeout: Duration,
    ) -> Vec<Result<Vec<(TopicPartition, i64)>, GroupsError>> {
        self.each(groups, timeout, "committed offsets", Operation::Committed, |event| event.committed())
    }

    /// An edge of each partition, or why it cannot be told. Partitions of topics that do
    /// not exist any more are left out.
    ///
    /// # Errors
    /// When no broker answers at all.
    pub fn offsets(
        &self,
        partitions: &[TopicPartition],
        edge: Edge,
        timeout: Duration,
    ) -> Result<HashMap<TopicPartition, Result<i64, String>>, GroupsError> {
        const WHAT: &str = "offsets of partitions";
        if partitions.is_empty() {
            return Ok(HashMap::new());
        }
        let queue = self.queue();
        queue.send(Request::Offsets { partitions, edge }, timeout).map_err(problem(WHAT))?;
        let event = queue.wait(timeout).ok_or_else(|| problem(WHAT)("no answer in time".to_owned()))?;
        event.offsets().map_err(problem(WHAT))
    }

    /// One request per group, many at a time.
    fn each<T>(
        &self,
        groups: &[&str],
        timeout: Duration,
        what: &'static str,
        operation: Operation,
        read: impl Fn(&native::Event) -> Result<T, String>,
    ) -> Vec<Result<T, GroupsError>> {
        let deadline = Instant::now() + timeout;
        let in_vain = || Err(problem(what)("no answer in time".to_owned()));
        let mut answers: Vec<_> = groups.iter().map(|_| in_vain()).collect();
        let queue = self.queue();
        let (mut sent, mut answered) = (0, 0);
        while answered < groups.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            while sent < groups.len() && sent - answered < REQUESTS_AT_ONCE {
                let request = CString::new(groups[sent])
                    .map_err(|_| "the name holds a NUL".to_owned())
                    .and_then(|group| queue.send(Request::Group { operation, group, index: sent }, left));
                if let Err(refused) = request {
                    answers[sent] = Err(problem(what)(refused));
                    answered += 1;
                }
                sent += 1;
            }
            let Some(event) = queue.wait(left) else { continue };
            answers[event.index()] = read(&event).map_err(problem(what));
            answered += 1;
        }
        answers
    }

    fn queue(&self) -> Queue<'_> {
        Queue::new(self.client.inner())
    }
}

fn problem(what: &'static str) -> impl Fn(String) -> GroupsError {
    move |problem| GroupsError { what, problem }
}
