//! Every role an instance can play, in the order of the dataflow, and what starts it.

use super::start::Starting;
use crate::role::Role;
use crate::sinks::{
    actuator, alerts, allowances, analytics, audit, canary_shares, compliance, drift, lag_status, outbox,
    promotion,
};
use crate::sources::{analytics_poller, campaign_poller, events, flow_poller, lag_poller, queue_poller};
use crate::stages::{
    campaign_counting, canary_minutes, delivery, dialing, flow_counting, flow_measuring, flow_summing, lag,
    rollback, windowing,
};
use crate::{console, routing, sinks};

/// Starts one role.
pub(super) type Start = fn(&mut Starting<'_>) -> anyhow::Result<()>;

/// The one list. The console is last: it serves what others have made ready.
pub(super) const WIRED: &[(&Role, Start)] = &[
    (&events::ROLE, |starting| starting.ingest()),
    (&campaign_poller::ROLE, |starting| starting.campaign_poller()),
    (&analytics_poller::ROLE, |starting| starting.analytics_poller()),
    (&lag_poller::ROLE, |starting| starting.lag_poller()),
    (&campaign_counting::ROLE, |starting| starting.campaign_counting()),
    (&windowing::ROLE, |starting| starting.windowing()),
    (&dialing::ROLE, |starting| starting.dialing()),
    (&flow_counting::ROLE, |starting| starting.flow_counting()),
    (&flow_summing::ROLE, |starting| starting.flow_summing()),
    (&flow_measuring::ROLE, |starting| starting.flow_measuring()),
    (&lag::ROLE, |starting| starting.lag()),
    (&flow_poller::ROLE, |starting| starting.flow_poller()),
    (&rollback::ROLE, |starting| starting.rollback()),
    (&sinks::rollback::ROLE, |starting| starting.rollback_actuator()),
    (&canary_minutes::ROLE, |starting| starting.canary_minutes()),
    (&delivery::ROLE, |starting| starting.delivery()),
    (&canary_shares::ROLE, |starting| starting.canary_shares()),
    (&promotion::ROLE, |starting| starting.promotion()),
    (&actuator::ROLE, |starting| starting.actuator()),
    (&audit::ROLE, |starting| starting.audit()),
    (&lag_status::ROLE, |starting| starting.lag_status()),
    (&drift::ROLE, |starting| starting.drift()),
    (&analytics::ROLE, |starting| starting.enrichment()),
    (&compliance::ROLE, |starting| starting.compliance()),
    (&allowances::ROLE, |starting| starting.allowances()),
    (&alerts::ROLE, |starting| starting.alerts()),
    (&outbox::ROLE, |starting| starting.outbox()),
    (&queue_poller::ROLE, |starting| starting.queue_poller()),
    (&routing::ROLE, |starting| starting.routing()),
    (&console::ROLE, |starting| starting.console()),
];

/// All roles.
pub fn roles() -> impl Iterator<Item = &'static Role> {
    WIRED.iter().map(|(role, _)| *role)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::role::Kind;
    use crate::topics;

    #[test]
    fn every_topic_has_a_writer_and_every_role_its_own_name() {
        for topic in topics::ALL {
            let written =
                roles().any(|role| role.sends().any(|sent| sent == *topic) || role.keeps.contains(topic));
            assert!(written, "nobody writes {topic:?}");
        }
        let names: BTreeSet<&str> = roles().map(|role| role.name).collect();
        assert_eq!(names.len(), WIRED.len(), "two roles have the same name");
    }

    #[test]
    fn kinds_are_what_a_role_reads_and_writes() {
        for role in roles() {
            let (reads, writes) = (!role.reads.is_empty(), !role.writes.is_empty());
            match role.kind {
                Kind::Source | Kind::Relay => assert!(!reads && writes, "{}", role.name),
                Kind::Stage => assert!(reads && writes && role.outside.is_empty(), "{}", role.name),
                Kind::Sink => assert!(reads && !role.outside.is_empty(), "{}", role.name),
                Kind::Server => {}
            }
        }
    }
}
