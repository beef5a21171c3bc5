//! A client with the topics it sends to all the time.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};

use super::watch::Watch;
use crate::kafka::native::{self, Outgoing, ProducedTopic};

/// Fields are dropped in this order: topics go before their client does.
pub(super) struct Connected {
    topics: Vec<(String, ProducedTopic)>,
    pub(super) client: BaseProducer<Watch>,
}

impl Connected {
    pub(super) fn new(client: BaseProducer<Watch>) -> Self {
        Self { topics: Vec::new(), client }
    }

    /// Puts a record into the send buffer.
    pub(super) fn send(&mut self, topic: &str, record: &Outgoing<'_>) -> Result<(), KafkaError> {
        let place = self.place_of(topic)?;
        native::send(self.client.client(), &self.topics[place].1, record)
    }

    /// Where a topic stands in the list.
    fn place_of(&mut self, topic: &str) -> Result<usize, KafkaError> {
        if let Some(place) = self.topics.iter().position(|(name, _)| name == topic) {
            return Ok(place);
        }
        let unknown = KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopic);
        let produced = ProducedTopic::new(self.client.client(), topic).ok_or(unknown)?;
        self.topics.push((topic.to_owned(), produced));
        Ok(self.topics.len() - 1)
    }
}
