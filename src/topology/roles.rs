//! Every role an instance can play, in the order of the dataflow.

use crate::pipeline::Declaration;
use crate::sinks::alerts;
use crate::stages::{dialing, flow_counting, flow_measuring, flow_summing, lag, rollback, windowing};
use crate::topics::{self, Topic};

/// Which way a role looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Outside → topics.
    Source,
    /// Topics → topics.
    Stage,
    /// Topics → outside.
    Sink,
    /// Answers requests.
    Server,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Source => "source",
            Kind::Stage => "stage",
            Kind::Sink => "sink",
            Kind::Server => "server",
        }
    }
}

/// One role as it is wired.
#[derive(Debug)]
pub struct Role {
    /// As `--stages` takes it.
    pub name: &'static str,
    pub kind: Kind,
    pub description: &'static str,
    pub reads: Vec<&'static Topic>,
    pub writes: Vec<&'static Topic>,
    /// Topics the role keeps its own state in.
    pub keeps: Vec<&'static Topic>,
    /// What it talks to besides Kafka.
    pub outside: &'static [&'static str],
}

pub const INGEST: &str = "ingest";
pub const WINDOWING: &str = "windowing";
pub const DIALING: &str = "dialing";
pub const FLOW_COUNTING: &str = "flow-counting";
pub const FLOW_SUMMING: &str = "flow-summing";
pub const FLOW_MEASURING: &str = "flow-measuring";
pub const CAMPAIGN_POLLER: &str = "campaign-poller";
pub const ACTUATOR: &str = "actuator";
pub const FLOW_POLLER: &str = "flow-poller";
pub const ROLLBACK: &str = "rollback";
pub const ROLLBACK_ACTUATOR: &str = "rollback-actuator";
pub const AUDIT: &str = "audit";
pub const DRIFT: &str = "drift";
pub const ENRICHMENT: &str = "enrichment";
pub const ALERTS: &str = "alerts";
pub const OUTBOX: &str = "outbox";
pub const ANALYTICS_POLLER: &str = "analytics-poller";
pub const LAG: &str = "lag";
pub const LAG_POLLER: &str = "lag-poller";
pub const LAG_STATUS: &str = "lag-status";
pub const QUEUE_POLLER: &str = "queue-poller";
pub const ROUTING: &str = "routing";
pub const CONSOLE: &str = "console";

const PLATFORM: &str = "Genesys Cloud";
const POSTGRES: &str = "Postgres";

/// All roles.
pub fn roles() -> Vec<Role> {
    vec![
        Role {
            name: INGEST,
            kind: Kind::Source,
            description: "takes conversation events in, on the console's listener",
            reads: vec![],
            writes: vec![&topics::CONVERSATION_EVENTS, &topics::DEAD_LETTERS],
            keeps: vec![],
            outside: &["event senders"],
        },
        Role {
            name: CAMPAIGN_POLLER,
            kind: Kind::Source,
            description: "observes each campaign once per interval, whichever instance it falls to",
            reads: vec![],
            writes: vec![&topics::CAMPAIGN_STATS],
            keeps: vec![],
            outside: &[PLATFORM],
        },
        Role {
            name: ANALYTICS_POLLER,
            kind: Kind::Source,
            description: "asks event analytics how far behind the platform's consumer groups are",
            reads: vec![],
            writes: vec![&topics::CONSUMER_LAG],
            keeps: vec![],
            outside: &[PLATFORM],
        },
        Role {
            name: LAG_POLLER,
            kind: Kind::Source,
            description: "observes consumer groups at their brokers, trunkline's own among them",
            reads: vec![],
            writes: vec![&topics::CONSUMER_LAG],
            keeps: vec![],
            outside: &["Kafka clusters"],
        },
        stage(&windowing::DECLARATION),
        Role {
            reads: vec![&topics::CAMPAIGN_WINDOWS, &topics::SETTINGS, &topics::LAG_STATUS],
            ..stage(&dialing::DECLARATION)
        },
        stage(&flow_counting::DECLARATION),
        stage(&flow_summing::DECLARATION),
        stage(&flow_measuring::DECLARATION),
        stage(&lag::DECLARATION),
        Role {
            name: FLOW_POLLER,
            kind: Kind::Source,
            description: "observes the versions of flows, and their measures where minutes are polled",
            reads: vec![],
            writes: vec![&topics::FLOW_VERSIONS, &topics::FLOW_HEALTH],
            keeps: vec![],
            outside: &[PLATFORM],
        },
        Role {
            reads: vec![&topics::FLOW_MINUTES, &topics::FLOW_VERSIONS, &topics::SETTINGS],
            ..stage(&rollback::DECLARATION)
        },
        Role {
            name: ROLLBACK_ACTUATOR,
            kind: Kind::Sink,
            description: "rolls flow versions back, one at a time over all flows and instances",
            reads: vec![&topics::ROLLBACK_DECISIONS],
            writes: vec![&topics::OUTCOMES, &topics::ROLLBACK_REFUSALS],
            keeps: vec![],
            outside: &[PLATFORM, POSTGRES],
        },
        Role {
            name: ACTUATOR,
            kind: Kind::Sink,
            description: "carries decisions out on the platform, each at most once",
            reads: vec![&topics::DIAL_DECISIONS],
            writes: vec![&topics::OUTCOMES],
            keeps: vec![],
            outside: &[PLATFORM, POSTGRES],
        },
        Role {
            name: AUDIT,
            kind: Kind::Sink,
            description: "keeps every decision, outcome and dead letter; sets aside what on side tables nobody can read",
            reads: vec![
                &topics::SETTINGS,
                &topics::FLOW_VERSIONS,
                &topics::QUEUE_AVAILABILITY,
                &topics::DIAL_DECISIONS,
                &topics::ROLLBACK_DECISIONS,
                &topics::ROUTING_DECISIONS,
                &topics::LAG_EVALUATIONS,
                &topics::OUTCOMES,
                &topics::DEAD_LETTERS,
            ],
            writes: vec![],
            keeps: vec![],
            outside: &[POSTGRES],
        },
        Role {
            name: LAG_STATUS,
            kind: Kind::Sink,
            description: "keeps how each consumer group is, for HTTP and metrics",
            reads: vec![&topics::LAG_STATUS],
            writes: vec![],
            keeps: vec![],
            outside: &[POSTGRES],
        },
        Role {
            name: DRIFT,
            kind: Kind::Sink,
            description: "writes a point per applied change in line protocol",
            reads: vec![&topics::OUTCOMES],
            writes: vec![],
            keeps: vec![],
            outside: &["InfluxDB"],
        },
        Role {
            name: ENRICHMENT,
            kind: Kind::Sink,
            description: "asks the platform's analytics about conversations that have had events, in batches",
            reads: vec![&topics::CONVERSATION_EVENTS],
            writes: vec![],
            keeps: vec![],
            outside: &[PLATFORM, POSTGRES],
        },
        Role {
            name: ALERTS,
            kind: Kind::Sink,
            description: "tells people by webhook, each receiver once and none waiting for another",
            reads: alerts::incidents::topics(),
            writes: vec![],
            keeps: vec![],
            outside: &[POSTGRES, "webhooks"],
        },
        Role {
            name: OUTBOX,
            kind: Kind::Source,
            description: "publishes what was written with a change in Postgres, once and in order",
            reads: vec![],
            writes: vec![&topics::SETTINGS, &topics::CONVERSATIONS, &topics::DEAD_LETTERS],
            keeps: vec![&topics::OUTBOX_PROGRESS],
            outside: &[POSTGRES],
        },
        Role {
            name: QUEUE_POLLER,
            kind: Kind::Source,
            description: "observes how many of each queue's agents are available",
            reads: vec![],
            writes: vec![&topics::QUEUE_AVAILABILITY],
            keeps: vec![],
            outside: &[PLATFORM],
        },
        Role {
            name: ROUTING,
            kind: Kind::Server,
            description: "decides which group gets a conversation, on the console's listener; its decisions go out through the outbox",
            reads: vec![&topics::QUEUE_AVAILABILITY, &topics::SETTINGS, &topics::ROUTING_DECISIONS],
            writes: vec![&topics::ROUTING_DECISIONS],
            keeps: vec![],
            outside: &["Architect flows", PLATFORM, POSTGRES],
        },
        Role {
            name: CONSOLE,
            kind: Kind::Server,
            description: "answers HTTP: the ledger, readiness, metrics",
            reads: vec![],
            writes: vec![],
            keeps: vec![],
            outside: &[POSTGRES],
        },
    ]
}

fn stage(declaration: &Declaration) -> Role {
    let mut writes = declaration.outputs.to_vec();
    writes.extend([&topics::LATE_EVENTS, &topics::DEAD_LETTERS]);
    Role {
        name: declaration.name,
        kind: Kind::Stage,
        description: declaration.description,
        reads: vec![declaration.input],
        writes,
        keeps: vec![declaration.changelog],
        outside: &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_writer_and_every_role_its_own_name() {
        let roles = roles();
        for topic in topics::ALL {
            let written = roles.iter().any(|role| role.writes.contains(topic) || role.keeps.contains(topic));
            assert!(written, "nobody writes {topic:?}");
        }
        for (index, role) in roles.iter().enumerate() {
            assert!(roles[..index].iter().all(|other| other.name != role.name), "{} twice", role.name);
        }
    }
}
