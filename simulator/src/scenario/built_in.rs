//! The organisation that is simulated when nobody describes another.

use super::{
    Answering, CampaignScenario, ConsumerGroupScenario, EventTypeScenario, FlowScenario, QueueScenario,
    Scenario, VersionScenario, VersionStatus,
};

impl Default for Scenario {
    /// Nine campaigns that differ in what makes dialling hard: few agents, long calls, a
    /// drifting or jumping answer rate, and one that never changes. Six flows from busy
    /// to nearly silent, the queues they hand over to, and consumers of their events.
    fn default() -> Self {
        let drifting = |start, min, max, per_minute| Answering::Drifting { start, min, max, per_minute };
        let campaign = |name: &str, agents, answering| CampaignScenario {
            name: name.into(),
            agents,
            answering,
            ..Default::default()
        };
        Self {
            campaigns: vec![
                campaign("Renewals", 20, drifting(0.30, 0.12, 0.55, 0.010)),
                CampaignScenario {
                    talk_seconds: 95.0,
                    max_dial_rate: 8.0,
                    ..campaign("Appointment reminders", 12, drifting(0.22, 0.08, 0.40, 0.006))
                },
                CampaignScenario {
                    dial_rate: 1.0,
                    max_dial_rate: 4.0,
                    ..campaign("Collections early stage", 5, drifting(0.18, 0.06, 0.35, 0.008))
                },
                CampaignScenario {
                    talk_seconds: 240.0,
                    wrap_up_seconds: 45.0,
                    max_dial_rate: 5.0,
                    ..campaign("Win-back", 40, drifting(0.35, 0.20, 0.60, 0.006))
                },
                CampaignScenario {
                    talk_seconds: 150.0,
                    dial_rate: 2.0,
                    max_dial_rate: 10.0,
                    ..campaign("Customer survey", 80, drifting(0.15, 0.05, 0.30, 0.005))
                },
                // Around the target of the proportional policy, where its rate goes up and down.
                CampaignScenario {
                    max_dial_rate: 3.0,
                    ..campaign("Scheduled call-backs", 30, drifting(0.85, 0.70, 0.98, 0.020))
                },
                CampaignScenario {
                    max_dial_rate: 3.0,
                    ..campaign("Expiring contracts", 15, drifting(0.80, 0.65, 0.97, 0.020))
                },
                campaign("Constant half", 15, Answering::Constant { rate: 0.5 }),
                campaign(
                    "Morning and evening",
                    25,
                    Answering::Steps {
                        steps: vec![(0, 0.15), (7_200, 0.40), (21_600, 0.20), (36_000, 0.35), (50_400, 0.15)],
                    },
                ),
            ],
            flows: flows(),
            queues: queues(),
            consumer_groups: consumer_groups(),
        }
        .with_ids()
    }
}

fn flows() -> Vec<FlowScenario> {
    let version = |id: &str, status, error_rate| VersionScenario { id: id.into(), status, error_rate };
    let flow = |name: &str, queue: &str, interactions_per_minute| FlowScenario {
        name: name.into(),
        queue: queue.into(),
        interactions_per_minute,
        ..FlowScenario::default()
    };
    vec![
        FlowScenario {
            versions: vec![
                version("8.0", VersionStatus::Deleted, 0.30),
                version("9.0", VersionStatus::Archived, 0.02),
                version("10.0", VersionStatus::Published, 0.012),
                version("11.0", VersionStatus::Published, 0.010),
                version("12.0", VersionStatus::Active, 0.010),
            ],
            ..flow("Main menu", "Service", 45.0)
        },
        FlowScenario { outcome_share: 0.3, ..flow("Billing", "Billing", 20.0) },
        FlowScenario { talk_seconds: 300.0, ..flow("Technical support", "Technical support", 20.0) },
        // Serves itself: nobody is handed over.
        FlowScenario { transfer_rate: 0.0, flow_seconds: 45.0, ..flow("Order status", "", 12.0) },
        FlowScenario {
            versions: vec![version("1.0", VersionStatus::Active, 0.02)],
            ..flow("Appointments", "Service", 6.0)
        },
        flow("Night line", "Technical support", 2.0),
    ]
}

fn queues() -> Vec<QueueScenario> {
    let queue = |name: &str, agents| QueueScenario { name: name.into(), agents, ..QueueScenario::default() };
    vec![
        queue("Service", 40),
        queue("Billing", 15),
        queue("Technical support", 25),
        queue("Sales north", 20),
        queue("Sales south", 10),
    ]
}

fn consumer_groups() -> Vec<ConsumerGroupScenario> {
    let group = |name: &str, latency_ms, latency_variation| ConsumerGroupScenario {
        name: name.into(),
        event_types: [("customer.end", 60.0), ("acd.end", 40.0), ("flow.end", 90.0)]
            .into_iter()
            .map(|(name, events_per_minute)| EventTypeScenario {
                name: name.into(),
                events_per_minute,
                latency_ms,
                latency_variation,
            })
            .collect(),
    };
    vec![
        group("crm-sync", 120.0, 0.2),
        group("quality-monitoring", 220.0, 0.3),
        group("agent's-desktop", 60.0, 0.1),
        // Now and then over the seed's limits of 500 ms and 30 s.
        group("billing-export", 450.0, 0.5),
        group("data-lake", 25_000.0, 0.4),
    ]
}
