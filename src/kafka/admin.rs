//! Topics as declared, compared with those the brokers have. Creates what is
//! missing, reports what differs, changes and deletes nothing.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;

use super::refusal::{self, Refusal};
use super::settings::{KafkaSettings, is_slow, longer};
use super::transaction::BATCH_BYTES;
use crate::topics::{Cleanup, Topic};

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long new topics may take until every partition can be written and read.
const USABLE_WITHIN: Duration = Duration::from_secs(60);

/// How topics are created.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// Partitions of every topic: the most workers a stage can use. Topics that are
    /// read together must agree, and the number cannot change later. Default 6.
    pub partitions: i32,
    /// Copies of every partition; -1 leaves it to the brokers' own default. Default 1;
    /// a cluster for real work has 3.
    pub replication: i32,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self { partitions: 6, replication: 1 }
    }
}

/// A declared topic and what the brokers have of it.
#[derive(Clone, Debug)]
pub struct TopicReport {
    pub topic: &'static Topic,
    /// The full name.
    pub name: String,
    pub standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Missing,
    Created,
    /// There, with what is not as declared.
    Present {
        partitions: i32,
        drift: Vec<Drift>,
    },
}

/// One property that is not as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    pub property: &'static str,
    pub declared: String,
    pub found: String,
}

/// The brokers could not be asked, or would not do it.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "Kafka at {brokers} did not answer {what}: {cause}; is `kafka.brokers` right, and the cluster up?"
    )]
    Unreachable { brokers: String, what: &'static str, cause: KafkaError },
    #[error("Kafka at {brokers} lets us not in: {why}")]
    Refused { brokers: String, why: Refusal },
    #[error("topic {topic} could not be created: {cause}")]
    NotCreated { topic: String, cause: RDKafkaErrorCode },
    #[error(
        "{topics} were created, but their brokers do not serve them within {} s: {last}; run it again", USABLE_WITHIN.as_secs()
    )]
    NotUsable { topics: String, last: String },
    #[error("configuration of topic {topic} could not be read: {cause}")]
    NotDescribed { topic: String, cause: RDKafkaErrorCode },
}

/// Compares every topic in `topics` with the brokers'.
pub async fn list(
    kafka: &KafkaSettings,
    settings: &TopicSettings,
    topics: &[&'static Topic],
) -> Result<Vec<TopicReport>, AdminError> {
    Admin::connect(kafka)?.list(settings, topics).await
}

/// Creates what is missing of `topics`. Safe to run at any time, and by several at once.
pub async fn apply(
    kafka: &KafkaSettings,
    settings: &TopicSettings,
    topics: &[&'static Topic],
) -> Result<Vec<TopicReport>, AdminError> {
    let admin = Admin::connect(kafka)?;
    let mut reports = admin.list(settings, topics).await?;
    for report in reports.iter_mut().filter(|report| report.standing == Standing::Missing) {
        admin.create(settings, report.topic, &report.name).await?;
        report.standing = Standing::Created;
    }
    let created = reports.iter().filter(|report| report.standing == Standing::Created);
    admin.wait_until_usable(created.map(|report| report.name.as_str()).collect()).await?;
    Ok(reports)
}

/// Looks whether the brokers answer.
///
/// # Errors
/// When they do not, or refuse us.
pub async fn reach(kafka: &KafkaSettings) -> Result<(), AdminError> {
    Admin::connect(kafka)?.metadata().await.map(drop)
}

/// How many records a topic holds, over all partitions. Markers of transactions
/// count too, so for topics written in transactions it is an upper bound.
pub async fn record_count(kafka: &KafkaSettings, topic: &Topic) -> Result<u64, AdminError> {
    let admin = Admin::connect(kafka)?;
    let (client, name) = (std::sync::Arc::clone(&admin.client), kafka.topic(topic));
    let count = move || {
        let metadata = client.inner().fetch_metadata(Some(&name), TIMEOUT)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        (0..partitions as i32).try_fold(0, |sum, partition| {
            let (low, high) = client.inner().fetch_watermarks(&name, partition, TIMEOUT)?;
            Ok(sum + high.saturating_sub(low).max(0) as u64)
        })
    };
    tokio::task::spawn_blocking(count)
        .await
        .unwrap_or(Err(KafkaError::Canceled))
        .map_err(admin.unreachable("a request for a topic's offsets"))
}

struct Admin<'k> {
    kafka: &'k KafkaSettings,
    client: std::sync::Arc<AdminClient<DefaultClientContext>>,
}

impl<'k> Admin<'k> {
    fn connect(kafka: &'k KafkaSettings) -> Result<Self, AdminError> {
        let client = AdminClient::from_config(&kafka.client("admin")).map_err(|cause| {
            AdminError::Unreachable { brokers: kafka.brokers.clone(), what: "at all", cause }
        })?;
        Ok(Self { kafka, client: std::sync::Arc::new(client) })
    }

    fn unreachable(&self, what: &'static str) -> impl Fn(KafkaError) -> AdminError {
        let brokers = self.kafka.brokers.clone();
        move |cause| AdminError::Unreachable { brokers: brokers.clone(), what, cause }
    }

    async fn list(
        &self,
        settings: &TopicSettings,
        topics: &[&'static Topic],
    ) -> Result<Vec<TopicReport>, AdminError> {
        let metadata = self.metadata().await?;
        let found = |name: &str| {
            let topic =
                metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none())?;
            let replication = topic.partitions().first().map_or(0, |partition| partition.replicas().len());
            Some((topic.partitions().len() as i32, replication as i32))
        };
        let mut reports = Vec::with_capacity(topics.len());
        for topic in topics.iter().copied() {
            let name = self.kafka.topic(topic);
            let standing = match found(&name) {
                None => Standing::Missing,
                Some((partitions, replication)) => {
                    let mut drift = self.configuration_drift(topic, &name).await?;
                    let numbers = [
                        ("partitions", settings.partitions, partitions),
                        ("replication.factor", settings.replication, replication),
                    ];
                    drift.extend(
                        numbers
                            .into_iter()
                            .filter(|(_, declared, found)| *declared > 0 && declared != found)
                            .map(|(property, declared, found)| Drift {
                                property,
                                declared: declared.to_string(),
                                found: found.to_string(),
                            }),
                    );
                    Standing::Present { partitions, drift }
                }
            };
            reports.push(TopicReport { topic, name, standing });
        }
        Ok(reports)
    }

    /// A new topic is known to the brokers a moment after they have said that it was created,
    /// and served by its partitions' leaders another moment later: asked for an offset, they tell.
    async fn wait_until_usable(&self, mut names: Vec<&str>) -> Result<(), AdminError> {
        let deadline = tokio::time::Instant::now() + USABLE_WITHIN;
        let (mut pause, mut answer_wait) = (Duration::from_millis(20), Duration::from_secs(1));
        while let Some(name) = names.last() {
            let last = match self.is_usable(name, answer_wait).await {
                Ok(()) => {
                    names.pop();
                    continue;
                }
                Err(error) => error,
            };
            if tokio::time::Instant::now() >= deadline {
                return Err(AdminError::NotUsable { topics: names.join(", "), last: last.to_string() });
            }
            if is_slow(&last) {
                answer_wait = longer(answer_wait);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Whether every partition's leader answers for it, each within `wait`.
    async fn is_usable(&self, name: &str, wait: Duration) -> Result<(), KafkaError> {
        let (client, name) = (std::sync::Arc::clone(&self.client), name.to_owned());
        let ask = move || {
            let metadata = client.inner().fetch_metadata(Some(&name), wait)?;
            let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            if partitions == 0 {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            (0..partitions as i32)
                .try_for_each(|partition| client.inner().fetch_watermarks(&name, partition, wait).map(drop))
        };
        tokio::task::spawn_blocking(ask).await.unwrap_or(Err(KafkaError::Canceled))
    }

    async fn metadata(&self) -> Result<Metadata, AdminError> {
        let (client, kafka) = (std::sync::Arc::clone(&self.client), self.kafka.clone());
        let ask = move || {
            let asked = client.inner().fetch_metadata(None, TIMEOUT);
            asked.map_err(|cause| (cause, refusal::find(&kafka)))
        };
        let asked = tokio::task::spawn_blocking(ask).await.unwrap_or(Err((KafkaError::Canceled, None)));
        asked.map_err(|(cause, refused)| match refused {
            Some(why) => AdminError::Refused { brokers: self.kafka.brokers.clone(), why },
            None => self.unreachable("a request for its topics")(cause),
        })
    }

    async fn configuration_drift(&self, topic: &Topic, name: &str) -> Result<Vec<Drift>, AdminError> {
        let specifier = ResourceSpecifier::Topic(name);
        let described = self
            .client
            .describe_configs([&specifier], &options())
            .await
            .map_err(self.unreachable("a request for a topic's configuration"))?;
        let resource: ConfigResource =
            described
                .into_iter()
                .next()
                .unwrap_or(Err(RDKafkaErrorCode::NoEnt))
                .map_err(|cause| AdminError::NotDescribed { topic: name.to_owned(), cause })?;
        let differing = configuration(topic).into_iter().filter_map(|(property, declared)| {
            let found = resource.get(property)?.value.clone().unwrap_or_default();
            (found != declared).then_some(Drift { property, declared, found })
        });
        Ok(differing.collect())
    }

    async fn create(&self, settings: &TopicSettings, topic: &Topic, name: &str) -> Result<(), AdminError> {
        let configuration = configuration(topic);
        let new = NewTopic::new(name, settings.partitions, TopicReplication::Fixed(settings.replication));
        let new = configuration.iter().fold(new, |new, (property, value)| new.set(property, value));
        let created = self
            .client
            .create_topics([&new], &options())
            .await
            .map_err(self.unreachable("a request to create a topic"))?;
        match created.into_iter().next() {
            // Another instance was quicker.
            Some(Ok(_)) | None | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((topic, cause))) => Err(AdminError::NotCreated { topic, cause }),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

/// A topic's properties as declared.
pub fn configuration(topic: &Topic) -> Vec<(&'static str, String)> {
    // The brokers' limit is for a batch, compressed or not. Ours, per record, is kept before sending.
    let max_message_bytes = topic.max_message_bytes.max(BATCH_BYTES) + 64 * 1_024;
    let mut properties = vec![("max.message.bytes", max_message_bytes.to_string())];
    match topic.cleanup {
        Cleanup::Delete { retention } => properties.extend([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention.as_millis().to_string()),
        ]),
        // Small segments, cleaned early: a restart reads the whole topic.
        Cleanup::Compact => properties.extend([
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", (32 * 1_024 * 1_024).to_string()),
            ("min.cleanable.dirty.ratio", "0.2".to_owned()),
        ]),
    }
    // As our producers send it, so that the brokers pass it through.
    properties.push(("compression.type", "lz4".to_owned()));
    properties
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics;

    #[test]
    fn a_full_batch_fits_every_topic() {
        for topic in topics::ALL {
            let limit: usize = configuration(topic)[0].1.parse().unwrap();
            assert!(limit > BATCH_BYTES && limit > topic.max_message_bytes, "{topic:?}");
        }
    }
}
