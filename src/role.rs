//! What a role is, as data. Each stands beside the code that plays it, as `ROLE`; `topology`
//! lists them all, and `trunkline topology` shows the list.

use crate::topics::Topic;

/// Which way a role looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Outside → topics.
    Source,
    /// Topics → topics.
    Stage,
    /// Topics → outside.
    Sink,
    /// What was written in Postgres with a change → topics.
    Relay,
    /// Answers requests.
    Server,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Source => "source",
            Kind::Stage => "stage",
            Kind::Sink => "sink",
            Kind::Relay => "relay",
            Kind::Server => "server",
        }
    }
}

/// A part that an instance can play.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// `--stages`, consumer group, transactional ids, metrics, readiness.
    pub name: &'static str,
    pub kind: Kind,
    pub description: &'static str,
    pub reads: &'static [&'static Topic],
    /// What it is there to write, be it by way of the outbox.
    pub writes: &'static [&'static Topic],
    /// Where copies go of records that it cannot apply.
    pub sets_aside: &'static [&'static Topic],
    /// Topics the role keeps its own state in.
    pub keeps: &'static [&'static Topic],
    /// What it talks to besides Kafka.
    pub outside: &'static [&'static str],
}

/// Names in [`Role::outside`].
pub const PLATFORM: &str = "Genesys Cloud";
pub const POSTGRES: &str = "Postgres";

impl Role {
    /// Everything it sends records to.
    pub fn sends(&self) -> impl Iterator<Item = &'static Topic> {
        self.writes.iter().chain(self.sets_aside).copied()
    }

    /// Asserts that records for this topic are its to send. Nothing in a release: there the
    /// record is worth more than its declaration.
    ///
    /// # Panics
    /// In debug builds, when the declaration does not name the topic.
    #[track_caller]
    pub fn assert_sends(&self, topic: &Topic) {
        debug_assert!(
            self.sends().chain(self.keeps.iter().copied()).any(|declared| declared == topic),
            "role {} sends to {topic:?}, which its declaration does not name",
            self.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics;

    static SINK: Role = Role {
        name: "sink",
        kind: Kind::Sink,
        description: "for this test",
        reads: &[&topics::DIAL_DECISIONS],
        writes: &[&topics::OUTCOMES],
        sets_aside: &[&topics::DEAD_LETTERS],
        keeps: &[],
        outside: &[PLATFORM],
    };

    #[test]
    fn a_role_sends_what_it_declares() {
        SINK.assert_sends(&topics::OUTCOMES);
        SINK.assert_sends(&topics::DEAD_LETTERS);
    }

    #[test]
    #[should_panic(expected = "role sink sends to genesys.flow-health.v1")]
    fn and_nothing_else() {
        SINK.assert_sends(&topics::FLOW_HEALTH);
    }
}
