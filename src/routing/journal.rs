//! Answers that were given while the counters were away, written down so that a killed
//! process does not forget them: one file per configuration, one line per answer.
//!
//! Lines reach the kernel before the answer leaves, so they survive the process, not the
//! machine. An instance that comes back under the same name takes them up.

use std::borrow::Cow;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::Timestamp;
use crate::model::routing::{RouteReason, RouteSource};
use crate::postgres::routing::NewAnswer;

/// Largest journal, in bytes; answers beyond it are kept in memory only.
const MAX_BYTES: u64 = 64 * 1_024 * 1_024;

pub(super) struct Journal {
    file: File,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    conversation_id: Cow<'a, str>,
    destination_id: Cow<'a, str>,
    revision: i64,
    source: RouteSource,
    reason: RouteReason,
    decided_at: Timestamp,
}

impl Journal {
    /// # Errors
    /// When the folder or the file cannot be used.
    pub(super) fn open(folder: &Path, configuration_id: &str) -> io::Result<Self> {
        // Conversations are nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let digest = Sha256::digest(configuration_id);
        let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = folder.join(format!("late-{name}.jsonl"));
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }

    /// Everything written down, the first of each conversation. A line that was cut off by
    /// the end of the process is left out: its answer had not left.
    pub(super) fn read(&mut self) -> Vec<NewAnswer> {
        let mut text = String::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_string(&mut text));
        if let Err(error) = read {
            tracing::error!(%error, "the journal of late answers cannot be read");
            return Vec::new();
        }
        let mut seen = std::collections::HashSet::new();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Line<'_>>(line).ok())
            .map(|line| NewAnswer {
                conversation_id: line.conversation_id.into(),
                destination_id: line.destination_id.into(),
                revision: line.revision,
                source: line.source,
                reason: line.reason,
                decided_at: line.decided_at,
                // A trace that ended with its process.
                traceparent: None,
            })
            .filter(|answer| seen.insert(answer.conversation_id.clone()))
            .collect()
    }

    pub(super) fn append(&mut self, answer: &NewAnswer) {
        if self.bytes >= MAX_BYTES {
            return;
        }
        let line = Line {
            conversation_id: Cow::Borrowed(&answer.conversation_id),
            destination_id: Cow::Borrowed(&answer.destination_id),
            revision: answer.revision,
            source: answer.source,
            reason: answer.reason,
            decided_at: answer.decided_at,
        };
        let mut text = serde_json::to_vec(&line).expect("own values are JSON");
        text.push(b'\n');
        match self.file.write_all(&text) {
            Ok(()) => self.bytes += text.len() as u64,
            Err(error) => tracing::error!(%error, "a late answer is kept in memory only"),
        }
    }

    /// Everything is recorded.
    pub(super) fn clear(&mut self) {
        if self.bytes == 0 {
            return;
        }
        match self.file.set_len(0) {
            Ok(()) => self.bytes = 0,
            Err(error) => tracing::error!(%error, "the journal of late answers cannot be emptied"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(conversation: &str, destination: &str) -> NewAnswer {
        NewAnswer {
            conversation_id: conversation.into(),
            destination_id: destination.into(),
            revision: 3,
            source: RouteSource::Cached,
            reason: RouteReason::Share,
            decided_at: Timestamp::from_millis(1_767_323_045_678),
            traceparent: None,
        }
    }

    #[test]
    fn what_was_written_down_is_there_after_the_process_ended_anyhow() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), "c").unwrap();
        for (conversation, destination) in [("a", "q1"), ("b", "q2"), ("a", "q2")] {
            journal.append(&answer(conversation, destination));
        }
        journal.file.write_all(b"{\"conversationId\":\"cut").unwrap();
        drop(journal);
        let mut again = Journal::open(folder.path(), "c").unwrap();
        assert_eq!(again.read(), [answer("a", "q1"), answer("b", "q2")]);
        assert!(Journal::open(folder.path(), "other").unwrap().read().is_empty());
        again.clear();
        again.append(&answer("d", "q1"));
        assert_eq!(Journal::open(folder.path(), "c").unwrap().read(), [answer("d", "q1")]);
    }
}
