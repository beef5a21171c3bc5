//! What the platform's exit reasons and flow outcomes mean, as one table.

use super::InteractionOutcome;
use super::InteractionOutcome::{Abandoned, Error, Other, Success};

/// One spelling of the platform's and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutcomeRule {
    /// As in `ConversationEvent::event_type`.
    pub event_type: &'static str,
    /// As events spell it; analytics spells the same words in other case.
    pub value: &'static str,
    pub outcome: InteractionOutcome,
    pub meaning: &'static str,
}

macro_rules! outcomes {
    ($($event_type:literal $value:literal => $outcome:ident, $meaning:literal;)*) => {
        /// Every rule. Each event of these types counts as one interaction with its flow,
        /// whatever its value; a value that is not here is `other`.
        pub static OUTCOME_RULES: &[OutcomeRule] = &[$(OutcomeRule {
            event_type: $event_type, value: $value, outcome: $outcome, meaning: $meaning,
        }),*];
    };
}

outcomes! {
    "flow.end" "DISCONNECT" => Abandoned, "the customer hung up inside the flow";
    "flow.end" "USER_EXIT" => Abandoned, "the customer left the flow";
    "flow.end" "SESSION_EXPIRE_DISCONNECT" => Abandoned, "the customer no longer answered";
    "flow.end" "FLOW_DISCONNECT" => Success, "the flow came to its end and hung up";
    "flow.end" "FLOW_EXIT" => Success, "the flow came to its end and handed back";
    "flow.end" "TRANSFER" => Success, "the flow handed over to a queue, a person or another flow";
    "flow.end" "FLOW_ERROR_DISCONNECT" => Error, "the flow failed and hung up";
    "flow.end" "FLOW_ERROR_EXIT" => Error, "the flow failed and handed back";
    "flow.end" "RECOGNITION_FAILURE_DISCONNECT" => Error, "the flow did not understand the customer and hung up";
    "flow.end" "RECOGNITION_FAILURE_EXIT" => Error, "the flow did not understand the customer and handed back";
    "flow.end" "UNKNOWN" => Other, "the platform does not say";
    "flow.outcome" "SUCCESS" => Success, "what the flow was to reach was reached";
    "flow.outcome" "FAILURE" => Error, "what the flow was to reach was not reached";
    "flow.outcome" "UNKNOWN" => Other, "the platform does not say";
}

/// How an interaction ended by the platform's word for it (`exitReason` of `flow.end`,
/// `flowOutcomeValue` of `flow.outcome`). `None` where the event ends no interaction.
pub fn outcome_of(event_type: &str, value: Option<&str>) -> Option<InteractionOutcome> {
    let mut ends_an_interaction = false;
    for rule in OUTCOME_RULES.iter().filter(|rule| rule.event_type == event_type) {
        ends_an_interaction = true;
        if value.is_some_and(|value| same_words(rule.value, value)) {
            return Some(rule.outcome);
        }
    }
    ends_an_interaction.then_some(Other)
}

/// Compares letters only: events write FLOW_EXIT, analytics flowExit or flow-exit.
fn same_words(rule: &str, value: &str) -> bool {
    rule == value || (value.len() <= 2 * rule.len() && letters(rule).eq(letters(value)))
}

fn letters(text: &str) -> impl Iterator<Item = u8> {
    text.bytes().filter(u8::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_events_and_analytics_mean_the_same() {
        for (event_type, value, expected) in [
            ("flow.end", Some("FLOW_ERROR_EXIT"), Some(Error)),
            ("flow.end", Some("flowErrorExit"), Some(Error)),
            ("flow.end", Some("recognition-failure-exit"), Some(Error)),
            ("flow.end", Some("Transfer"), Some(Success)),
            ("flow.end", Some("disconnect"), Some(Abandoned)),
            ("flow.end", Some("NEW_REASON"), Some(Other)),
            ("flow.end", Some("SUCCESS"), Some(Other)),
            ("flow.end", None, Some(Other)),
            ("flow.outcome", Some("failure"), Some(Error)),
            ("flow.outcome", Some("SUCCESS"), Some(Success)),
            ("customer.end", Some("SUCCESS"), None),
            ("flow.start", None, None),
        ] {
            assert_eq!(outcome_of(event_type, value), expected, "{event_type} {value:?}");
        }
    }

    #[test]
    fn no_rule_stands_in_the_way_of_another() {
        for (index, rule) in OUTCOME_RULES.iter().enumerate() {
            assert_eq!(outcome_of(rule.event_type, Some(rule.value)), Some(rule.outcome));
            let twice = OUTCOME_RULES[..index]
                .iter()
                .any(|other| other.event_type == rule.event_type && same_words(other.value, rule.value));
            assert!(!twice, "{rule:?} twice");
        }
    }
}
