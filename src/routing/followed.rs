//! What any instance recorded, from the topic its decisions go to: answers that this instance
//! can repeat without asking the database.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::model::Timestamp;
use crate::model::routing::{RouteAnswer, RouteParameters};

/// Ids kept to be shared by answers; more than this and they are collected anew.
const MAX_SHARED: usize = 10_000;

/// What is kept of a decision.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded<'a> {
    sequence: u64,
    #[serde(borrow)]
    key: Cow<'a, str>,
    decided_at: Timestamp,
    #[serde(borrow)]
    parameters: RouteParameters<'a>,
    inputs: RecordedInputs,
}

#[derive(Deserialize)]
struct RecordedInputs {
    revision: u64,
}

/// Reads decisions as answers.
#[derive(Default)]
pub(super) struct Followed {
    /// Configurations and destinations are few, answers many.
    shared: HashSet<Arc<str>>,
}

impl Followed {
    /// The answer that a decision was; `None` where it was given longer than `retention` ago.
    ///
    /// # Errors
    /// When it is no routing decision.
    pub(super) fn answer(
        &mut self,
        value: &[u8],
        now: Timestamp,
        retention: Duration,
    ) -> Result<Option<RouteAnswer>, String> {
        let recorded: Recorded<'_> = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        if recorded.decided_at.plus(retention) < now {
            return Ok(None);
        }
        Ok(Some(RouteAnswer {
            conversation_id: recorded.parameters.conversation_id.as_ref().into(),
            configuration_id: self.shared(&recorded.key),
            destination_id: self.shared(&recorded.parameters.destination_id),
            revision: recorded.inputs.revision,
            sequence: Some(recorded.sequence),
            source: recorded.parameters.source,
            decided_at: recorded.decided_at,
        }))
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.shared.get(text) {
            return Arc::clone(known);
        }
        if self.shared.len() >= MAX_SHARED {
            self.shared.clear();
        }
        let text: Arc<str> = text.into();
        self.shared.insert(Arc::clone(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::routing::RouteSource;

    #[test]
    fn a_decision_is_the_answer_that_was_given() {
        let text = include_bytes!("../../schemas/examples/trunkline.routing-decisions.v1/share.json");
        let value: serde_json::Value = serde_json::from_slice(text).unwrap();
        let decided_at: Timestamp = serde_json::from_value(value["decidedAt"].clone()).unwrap();
        let hour = Duration::from_secs(3_600);
        let mut followed = Followed::default();
        let answer = followed.answer(text, decided_at.plus(hour), hour).unwrap().expect("young enough");
        assert_eq!(*answer.conversation_id, value["parameters"]["conversationId"]);
        assert_eq!(*answer.destination_id, value["parameters"]["destinationId"]);
        assert_eq!(*answer.configuration_id, value["key"]);
        assert_eq!(answer.sequence, value["sequence"].as_u64());
        assert_eq!(answer.revision, value["inputs"]["revision"].as_u64().unwrap());
        assert!(RouteSource::ALL.contains(&answer.source));
        let late = decided_at.plus(hour).plus(Duration::from_millis(1));
        assert!(followed.answer(text, late, hour).unwrap().is_none());
        assert!(followed.answer(b"{}", late, hour).is_err());
        assert!(followed.answer(b"", late, hour).is_err(), "a tombstone");
    }
}
