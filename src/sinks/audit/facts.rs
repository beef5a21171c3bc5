//! Records of the topics that every instance holds whole: can they be read at all?

use crate::kafka::subscription::InboundRecord;
use crate::model::flow::FlowVersions;
use crate::model::routing::QueueAvailability;
use crate::model::settings::Setting;
use crate::runtime::dead_letter::Reason;
use crate::topics::{self, Topic};

/// Whether a value is what the topic is to hold, for the topics that have tables.
type IsValid = fn(&[u8]) -> serde_json::Result<()>;

fn validity(topic: &Topic) -> Option<IsValid> {
    let tables: [(&Topic, IsValid); 3] = [
        (&topics::SETTINGS, |value| serde_json::from_slice::<Setting<'_>>(value).map(drop)),
        (&topics::FLOW_VERSIONS, |value| serde_json::from_slice::<FlowVersions<'_>>(value).map(drop)),
        (&topics::QUEUE_AVAILABILITY, |value| {
            serde_json::from_slice::<QueueAvailability<'_>>(value).map(drop)
        }),
    ];
    tables.into_iter().find(|(known, _)| *known == topic).map(|(_, is_valid)| is_valid)
}

/// Whether the record is a fact of a table: a key that is text, and a value as it is to be or
/// none, which removes the key. `None` for topics without tables.
pub(super) fn read(record: &InboundRecord) -> Option<Result<(), Reason>> {
    let is_valid = validity(record.topic)?;
    let read = || {
        let key = record.key.as_deref().ok_or(Reason::KeyMissing)?;
        std::str::from_utf8(key).map_err(|error| Reason::InvalidUtf8 { at: error.valid_up_to() })?;
        let value = record.value.as_deref().map_or(Ok(()), is_valid);
        value.map_err(|error| Reason::BadJson(error.to_string()))
    };
    Some(read())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_can_be_read_and_what_no_table_takes_has_a_reason() {
        let record = |topic, key: Option<&[u8]>, value: Option<&[u8]>| InboundRecord {
            topic,
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        };
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/examples");
        for topic in [&topics::SETTINGS, &topics::FLOW_VERSIONS, &topics::QUEUE_AVAILABILITY] {
            let is_readable = |record| read(&record).expect("it has tables");
            for example in std::fs::read_dir(folder.join(topic.name)).unwrap() {
                let value = std::fs::read(example.unwrap().path()).unwrap();
                assert_eq!(is_readable(record(topic, Some(b"k"), Some(&value))), Ok(()), "{topic:?}");
            }
            assert_eq!(is_readable(record(topic, Some(b"k"), None)), Ok(()), "removes the key");
            let code = |key, value| is_readable(record(topic, key, value)).unwrap_err().code();
            assert_eq!(code(Some(b"k"), Some(b"{}")), "bad_json");
            assert_eq!(code(Some(b"\xff"), None), "invalid_utf8");
            assert_eq!(code(None, None), "key_missing");
        }
        assert!(read(&record(&topics::OUTCOMES, None, None)).is_none());
    }
}
