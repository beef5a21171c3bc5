//! Every topic, declared once: code, `trunkline topics`, the JSON Schemas, the
//! AsyncAPI document and `docs/reference/topics.md` are made from this file.

use std::time::Duration;

use schemars::Schema;
use serde_json::Value;

use crate::model::campaign::{CampaignStats, CampaignWindow, DialAnswer};
use crate::model::compliance::ComplianceWarning;
use crate::model::conversation::ConversationEvent;
use crate::model::decision::Decision;
use crate::model::delivery::{DeliveryInputs, DeliveryParameters};
use crate::model::enriched::EnrichedConversation;
use crate::model::flow::{FlowHealth, FlowMinute, FlowVersions};
use crate::model::lag::{LagEvaluation, LagInputs, LagParameters, LagSample};
use crate::model::outcome::Outcome;
use crate::model::rollback::{RollbackInputs, RollbackParameters};
use crate::model::routing::{QueueAvailability, RouteInputs, RouteParameters};
use crate::model::settings::Setting;

/// How a topic forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records older than this go.
    Delete { retention: Duration },
    /// The newest record of each key stays.
    Compact,
}

/// What a topic's values are.
#[derive(Clone, Copy)]
pub enum Values {
    /// JSON that follows this schema.
    Json(fn() -> Schema),
    /// Bytes as they came from elsewhere, described by headers.
    Original,
    /// A stage's own state: not for others to read.
    Internal,
}

/// One topic. Names are without `kafka.topic_prefix`.
pub struct Topic {
    pub name: &'static str,
    /// What the key is.
    pub key: &'static str,
    pub description: &'static str,
    pub cleanup: Cleanup,
    pub values: Values,
    /// Largest record, key, value and headers together, in bytes.
    pub max_message_bytes: usize,
}

impl Topic {
    /// What the `trunkline-schema` header says: name and version are one.
    pub fn schema_id(&self) -> &'static str {
        self.name
    }
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const KIB: usize = 1_024;

/// A dial decision as it stands on its topic.
pub type DialDecision<'a, C> = Decision<'a, CampaignWindow<'a>, DialAnswer, C>;

/// A lag decision as it stands on its topic.
pub type LagDecision<'a, C> = Decision<'a, LagInputs, LagParameters, C>;
/// A rollback decision as it stands on its topic.
pub type RollbackDecision<'a, C> = Decision<'a, RollbackInputs, RollbackParameters, C>;
/// A decision about a canary as it stands on its topic.
pub type DeliveryDecision<'a, C> = Decision<'a, DeliveryInputs, DeliveryParameters, C>;
/// A routing decision as it stands on its topic.
pub type RouteDecision<'a, C> = Decision<'a, RouteInputs<'a>, RouteParameters<'a>, C>;

pub static CONVERSATION_EVENTS: Topic = Topic {
    name: "genesys.conversation-events.v1",
    key: "conversationId",
    description: "one event of one conversation, as the platform told it",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(7) },
    values: Values::Json(|| schemars::schema_for!(ConversationEvent)),
    max_message_bytes: 256 * KIB,
};

pub static CAMPAIGN_STATS: Topic = Topic {
    name: "genesys.campaign-stats.v1",
    key: "campaignId",
    description: "one observation of a campaign's statistics and dial-rate limits",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(7) },
    values: Values::Json(|| schemars::schema_for!(CampaignStats)),
    max_message_bytes: 64 * KIB,
};

pub static FLOW_HEALTH: Topic = Topic {
    name: "genesys.flow-health.v1",
    key: "flowId",
    description: "polled interactions and errors per flow, version and minute",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(7) },
    values: Values::Json(|| schemars::schema_for!(FlowHealth)),
    max_message_bytes: 16 * KIB,
};

pub static FLOW_COUNTS: Topic = Topic {
    name: "trunkline.flow-counts.v1",
    key: "flowId",
    description: "what each partition of conversation events counts, between flow-counting and flow-summing",
    cleanup: Cleanup::Delete { retention: DAY },
    values: Values::Internal,
    max_message_bytes: 16 * KIB,
};

pub static FLOW_MINUTES: Topic = Topic {
    name: "trunkline.flow-minutes.v1",
    key: "flowId",
    description: "interactions and errors per flow, version and minute of event time",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Json(|| schemars::schema_for!(FlowMinute)),
    max_message_bytes: 16 * KIB,
};

pub static FLOW_VERSIONS: Topic = Topic {
    name: "genesys.flow-versions.v1",
    key: "flowId",
    description: "the publish timeline of a flow",
    cleanup: Cleanup::Compact,
    values: Values::Json(|| schemars::schema_for!(FlowVersions)),
    max_message_bytes: 256 * KIB,
};

pub static CAMPAIGN_COUNTS: Topic = Topic {
    name: "trunkline.campaign-counts.v1",
    key: "partition of conversation events and campaignId",
    description: "calls of each campaign that a partition of conversation events tells of, from campaign-counting to windowing",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 4 * KIB,
};

pub static CAMPAIGN_WINDOWS: Topic = Topic {
    name: "trunkline.campaign-windows.v1",
    key: "campaignId",
    description: "the sliding window behind the next dial decision",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(7) },
    values: Values::Json(|| schemars::schema_for!(CampaignWindow)),
    max_message_bytes: 64 * KIB,
};

pub static DIAL_DECISIONS: Topic = Topic {
    name: "trunkline.dial-decisions.v1",
    key: "campaignId",
    description: "what dial rate a campaign is to have, and why",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Json(|| schemars::schema_for!(DialDecision<Vec<String>>)),
    max_message_bytes: 256 * KIB,
};

pub static CONSUMER_LAG: Topic = Topic {
    name: "kafka.consumer-lag.v1",
    key: "consumerGroup",
    description: "one sample per consumer group and partition, or per group and event type where analytics were asked",
    cleanup: Cleanup::Delete { retention: DAY },
    values: Values::Json(|| schemars::schema_for!(LagSample)),
    max_message_bytes: 16 * KIB,
};

pub static LAG_STATUS: Topic = Topic {
    name: "trunkline.lag-status.v1",
    key: "consumerGroup",
    description: "how each consumer group is after its newest poll",
    cleanup: Cleanup::Compact,
    values: Values::Json(|| schemars::schema_for!(LagEvaluation)),
    max_message_bytes: 64 * KIB,
};

pub static LAG_EVALUATIONS: Topic = Topic {
    name: "trunkline.lag-evaluations.v1",
    key: "consumerGroup",
    description: "each change of a consumer group's status, and what help it asks for",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Json(|| schemars::schema_for!(LagDecision<Vec<String>>)),
    max_message_bytes: 256 * KIB,
};

pub static ROLLBACK_DECISIONS: Topic = Topic {
    name: "trunkline.rollback-decisions.v1",
    key: "flowId",
    description: "whether a flow's version is to be taken back, and why",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Json(|| schemars::schema_for!(RollbackDecision<Vec<String>>)),
    max_message_bytes: 256 * KIB,
};

pub static QUEUE_AVAILABILITY: Topic = Topic {
    name: "genesys.queue-availability.v1",
    key: "queueId",
    description: "how many of a queue's agents could take a conversation",
    cleanup: Cleanup::Compact,
    values: Values::Json(|| schemars::schema_for!(QueueAvailability)),
    max_message_bytes: 16 * KIB,
};

pub static ROUTING_DECISIONS: Topic = Topic {
    name: "trunkline.routing-decisions.v1",
    key: "configurationId",
    description: "which group a conversation was sent to, and why",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Json(|| schemars::schema_for!(RouteDecision<Vec<String>>)),
    max_message_bytes: 64 * KIB,
};

pub static CANARY_FACTS: Topic = Topic {
    name: "trunkline.canary-facts.v1",
    key: "configurationId",
    description: "minutes of the flows of canaries, and what people order, between canary-minutes and delivery",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Internal,
    max_message_bytes: 16 * KIB,
};

pub static DELIVERY_DECISIONS: Topic = Topic {
    name: "trunkline.delivery-decisions.v1",
    key: "configurationId",
    description: "what share a canary is to have, whether it is aborted or published, and why",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Json(|| schemars::schema_for!(DeliveryDecision<Vec<String>>)),
    max_message_bytes: 64 * KIB,
};

pub static PROMOTIONS: Topic = Topic {
    name: "trunkline.promotions.v1",
    key: "flowId",
    description: "flows that a canary has proven and people have promoted, to be published",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Internal,
    max_message_bytes: 64 * KIB,
};

pub static OUTCOMES: Topic = Topic {
    name: "trunkline.outcomes.v1",
    key: "key of the decision",
    description: "what became of a decision",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Json(|| schemars::schema_for!(Outcome)),
    max_message_bytes: 256 * KIB,
};

pub static ROLLBACK_REFUSALS: Topic = Topic {
    name: "trunkline.rollback-refusals.v1",
    key: "flowId",
    description: "the newest rollback of each flow that was refused for a while or came too late: it is decided again",
    cleanup: Cleanup::Compact,
    values: Values::Json(|| schemars::schema_for!(Outcome)),
    max_message_bytes: 256 * KIB,
};

pub static COMPLIANCE_WARNINGS: Topic = Topic {
    name: "trunkline.compliance-warnings.v1",
    key: "campaignId",
    description: "a campaign whose abandonment nears its cap, once for each of its windows",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Json(|| schemars::schema_for!(ComplianceWarning)),
    max_message_bytes: 16 * KIB,
};

pub static CONVERSATIONS: Topic = Topic {
    name: "trunkline.conversations.v1",
    key: "conversationId",
    description: "a conversation as its events and the platform's analytics together tell it",
    cleanup: Cleanup::Compact,
    values: Values::Json(|| schemars::schema_for!(EnrichedConversation)),
    max_message_bytes: 1_024 * KIB,
};

pub static SETTINGS: Topic = Topic {
    name: "trunkline.settings.v1",
    key: "scope",
    description: "what was changed at run time; the newest of each scope is in force",
    cleanup: Cleanup::Compact,
    values: Values::Json(|| schemars::schema_for!(Setting)),
    max_message_bytes: 256 * KIB,
};

pub static LATE_EVENTS: Topic = Topic {
    name: "trunkline.late-events.v1",
    key: "original key",
    description: "records that came after their window had closed, byte for byte",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Original,
    max_message_bytes: 1_024 * KIB,
};

pub static DEAD_LETTERS: Topic = Topic {
    name: "trunkline.dead-letters.v1",
    key: "original key",
    description: "records that could not be used, byte for byte, with the reason in `trunkline-error-*` headers",
    cleanup: Cleanup::Delete { retention: DAY.saturating_mul(30) },
    values: Values::Original,
    max_message_bytes: 16 * 1_024 * KIB,
};

pub static WINDOWING_CHANGELOG: Topic = Topic {
    name: "trunkline.windowing-changelog.v1",
    key: "campaignId",
    description: "state of the windowing stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 64 * KIB,
};

pub static DIALING_CHANGELOG: Topic = Topic {
    name: "trunkline.dialing-changelog.v1",
    key: "campaignId",
    description: "state of the dialing stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 64 * KIB,
};

pub static LAG_CHANGELOG: Topic = Topic {
    name: "trunkline.lag-changelog.v1",
    key: "consumerGroup",
    description: "state of the lag stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    // A group of ten thousand partitions, all of them behind.
    max_message_bytes: 8 * 1_024 * KIB,
};

pub static ROLLBACK_CHANGELOG: Topic = Topic {
    name: "trunkline.rollback-changelog.v1",
    key: "flowId",
    description: "state of the rollback stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 64 * KIB,
};

pub static CANARY_MINUTES_CHANGELOG: Topic = Topic {
    name: "trunkline.canary-minutes-changelog.v1",
    key: "flowId",
    description: "state of the canary-minutes stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 16 * KIB,
};

pub static DELIVERY_CHANGELOG: Topic = Topic {
    name: "trunkline.delivery-changelog.v1",
    key: "configurationId",
    description: "state of the delivery stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 256 * KIB,
};

pub static OUTBOX_PROGRESS: Topic = Topic {
    name: "trunkline.outbox-progress.v1",
    key: "identity of the outbox",
    description: "up to which message the outbox is published",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 4 * KIB,
};

pub static CAMPAIGN_COUNTING_CHANGELOG: Topic = Topic {
    name: "trunkline.campaign-counting-changelog.v1",
    key: "what it is about",
    description: "state of the campaign-counting stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 16 * KIB,
};

pub static FLOW_COUNTING_CHANGELOG: Topic = Topic {
    name: "trunkline.flow-counting-changelog.v1",
    key: "what it is about",
    description: "state of the flow-counting stage, binary",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 128 * KIB,
};

pub static FLOW_SUMMING_CHANGELOG: Topic = Topic {
    name: "trunkline.flow-summing-changelog.v1",
    key: "what it is about",
    description: "state of the flow-summing stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 128 * KIB,
};

pub static FLOW_MEASURING_CHANGELOG: Topic = Topic {
    name: "trunkline.flow-measuring-changelog.v1",
    key: "flowId",
    description: "state of the flow-measuring stage",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 128 * KIB,
};

/// All topics, in the order of the dataflow.
pub static ALL: &[&Topic] = &[
    &CONVERSATION_EVENTS,
    &CAMPAIGN_STATS,
    &FLOW_HEALTH,
    &FLOW_COUNTS,
    &FLOW_MINUTES,
    &FLOW_VERSIONS,
    &CAMPAIGN_COUNTS,
    &CAMPAIGN_WINDOWS,
    &QUEUE_AVAILABILITY,
    &DIAL_DECISIONS,
    &CONSUMER_LAG,
    &LAG_STATUS,
    &LAG_EVALUATIONS,
    &ROUTING_DECISIONS,
    &CONVERSATIONS,
    &COMPLIANCE_WARNINGS,
    &ROLLBACK_DECISIONS,
    &CANARY_FACTS,
    &DELIVERY_DECISIONS,
    &PROMOTIONS,
    &OUTCOMES,
    &ROLLBACK_REFUSALS,
    &SETTINGS,
    &LATE_EVENTS,
    &DEAD_LETTERS,
    &WINDOWING_CHANGELOG,
    &DIALING_CHANGELOG,
    &CAMPAIGN_COUNTING_CHANGELOG,
    &FLOW_COUNTING_CHANGELOG,
    &FLOW_SUMMING_CHANGELOG,
    &FLOW_MEASURING_CHANGELOG,
    &LAG_CHANGELOG,
    &ROLLBACK_CHANGELOG,
    &CANARY_MINUTES_CHANGELOG,
    &DELIVERY_CHANGELOG,
    &OUTBOX_PROGRESS,
];

/// Headers that every record of ours carries.
pub mod headers {
    pub const CONTENT_TYPE: &str = "content-type";
    pub const CONTENT_TYPE_JSON: &str = "application/json";
    pub const SCHEMA: &str = "trunkline-schema";
    /// W3C Trace Context, handed on from cause to effect.
    pub const TRACEPARENT: &str = "traceparent";
    /// Of a body that was too large: how much of it was read, and that part's digest.
    pub const BODY_READ_BYTES: &str = "trunkline-body-read-bytes";
    pub const BODY_READ_SHA256: &str = "trunkline-body-read-sha256";
    /// How the names of the following begin: why a record was set aside.
    pub const ERROR_PREFIX: &str = "trunkline-error-";
    pub const ERROR_STAGE: &str = "trunkline-error-stage";
    pub const ERROR_REASON: &str = "trunkline-error-reason";
    pub const ERROR_TOPIC: &str = "trunkline-error-topic";
    pub const ERROR_TOPIC_ID: &str = "trunkline-error-topic-id";
    pub const ERROR_PARTITION: &str = "trunkline-error-partition";
    pub const ERROR_OFFSET: &str = "trunkline-error-offset";
    pub const ERROR_TIME: &str = "trunkline-error-time";
}

/// The partition a key belongs to, as Kafka's Java clients choose it (murmur2 of
/// the key, sign bit off), so that producers in any language land beside ours.
///
/// `partitions` must be at least 1.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    ((murmur2(key) & 0x7fff_ffff) % partitions as u32) as i32
}

/// MurmurHash2 as `org.apache.kafka.common.utils.Utils.murmur2` has it.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().expect("four bytes"));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The JSON Schema of a topic's values with identity and description, or `None`
/// where the values are not ours to describe.
pub fn json_schema(topic: &Topic) -> Option<Value> {
    let Values::Json(schema) = topic.values else {
        return None;
    };
    let mut schema = schema();
    schema.insert("title".into(), topic.name.into());
    schema.insert("description".into(), topic.description.into());
    Some(schema.to_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are those of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn keys_land_where_javas_clients_put_them() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
        assert_eq!(murmur2(b"abc") as i32, 479_470_107);
    }

    #[test]
    fn names_are_unique() {
        for (index, topic) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other != topic), "{topic:?} twice");
        }
    }
}
