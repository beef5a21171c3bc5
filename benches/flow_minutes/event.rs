//! Ends of interactions with flows as the edge writes them, about 370 bytes each.

use trunkline::model::Timestamp;

pub(crate) fn conversation(index: usize) -> String {
    format!("7c1d2e3f-4a5b-4c6d-8e7f-{index:012}")
}

/// The event `number`, with an id of its own.
pub(crate) fn text(number: usize, conversation: &str, flow: usize, at: Timestamp) -> String {
    // Ids of random bits, as the platform's: Fibonacci hashing of the number.
    let bits = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let id = uuid::Uuid::from_u128(u128::from(bits) << 64 | u128::from(bits.rotate_left(29) ^ 0x5bd1_e995));
    let (outcome, reason) =
        if number.is_multiple_of(25) { ("error", "ERROR") } else { ("success", "DISCONNECT") };
    format!(
        "{{\"eventId\":\"{id}\",\"eventType\":\"flow.end\",\"occurredAt\":\"{at}\",\
         \"conversationId\":\"{conversation}\",\"flowId\":\"6f3a2b1c-0d9e-4f5a-8b7c-{flow:012}\",\
         \"flowVersion\":\"13.0\",\"mediaType\":\"voice\",\"direction\":\"inbound\",\"outcome\":\"{outcome}\",\
         \"detail\":{{\"exitReason\":\"{reason}\",\"flowType\":\"inboundcall\"}}}}"
    )
}
