//! What the errors of transactions mean.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What a failed step means for the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Out of patience while it could still have been tried again. A commit may or may not have happened.
    Unknown,
    /// The transaction is, or has to be, aborted.
    Abortable,
    /// Another producer uses the same transactional id, or the broker gave up on this one.
    Fenced,
    /// The producer is of no use any more.
    Fatal,
}

/// A step of a transaction failed. Whatever the verdict: nothing of the transaction
/// counts except where the committed offsets say so, and positions are to be taken from there.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed ({verdict:?}): {cause}")]
pub struct TransactionError {
    pub verdict: Verdict,
    pub step: &'static str,
    pub cause: KafkaError,
}

impl TransactionError {
    pub(super) fn new(step: &'static str, cause: KafkaError) -> Self {
        Self { verdict: verdict(&cause), step, cause }
    }

    /// A record of it is refused for what it is, and will be again.
    pub fn is_refusal(&self) -> bool {
        is_refusal(&self.cause)
    }
}

/// Whether brokers refuse a record for what it is: tried again it is refused again. With a batch
/// of records all are refused for one of them.
pub(crate) fn is_refusal(cause: &KafkaError) -> bool {
    use RDKafkaErrorCode::{InvalidMessageSize, InvalidRecord, InvalidTimestamp, MessageSizeTooLarge};
    matches!(
        cause.rdkafka_error_code(),
        Some(InvalidMessageSize | InvalidRecord | InvalidTimestamp | MessageSizeTooLarge)
    )
}

fn verdict(cause: &KafkaError) -> Verdict {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    match cause.rdkafka_error_code() {
        Some(Fenced | ProducerFenced | InvalidProducerEpoch) => return Verdict::Fenced,
        Some(RDKafkaErrorCode::OperationTimedOut) => return Verdict::Unknown,
        _ => {}
    }
    match cause {
        KafkaError::Transaction(error) if error.txn_requires_abort() => Verdict::Abortable,
        KafkaError::Transaction(error) if error.is_retriable() => Verdict::Unknown,
        KafkaError::MessageProduction(_) => Verdict::Abortable,
        _ => Verdict::Fatal,
    }
}

pub(super) fn is_retriable(cause: &KafkaError) -> bool {
    match cause {
        KafkaError::Transaction(error) => {
            error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort()
        }
        KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
        _ => false,
    }
}
