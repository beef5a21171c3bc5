//! Which records raise alerts: one pure function per loop and topic. A loop that has
//! something to tell adds its file beside this one and its line to [`INCIDENTS`].

use crate::model::alert::Alert;
use crate::topics::{self, Topic};

use super::{compliance, dial, dial_statistics, lag, rollback, route};

/// How the records of one topic become alerts.
pub struct Incidents {
    pub topic: &'static Topic,
    /// From a record's value. Values that cannot be read raise none: the audit sets
    /// them aside.
    pub alert: fn(&[u8]) -> Option<Alert>,
}

/// Every source of alerts. A topic may stand here more than once.
pub static INCIDENTS: &[Incidents] = &[
    Incidents { topic: &topics::OUTCOMES, alert: dial::outcome },
    Incidents { topic: &topics::DIAL_DECISIONS, alert: dial_statistics::decision },
    Incidents { topic: &topics::COMPLIANCE_WARNINGS, alert: compliance::warning },
    Incidents { topic: &topics::OUTCOMES, alert: rollback::outcome },
    Incidents { topic: &topics::ROLLBACK_DECISIONS, alert: rollback::decision },
    Incidents { topic: &topics::LAG_EVALUATIONS, alert: lag::decision },
    Incidents { topic: &topics::ROUTING_DECISIONS, alert: route::decision },
];

/// What a record tells people.
pub fn alerts<'v>(topic: &'static Topic, value: &'v [u8]) -> impl Iterator<Item = Alert> + 'v {
    INCIDENTS
        .iter()
        .filter(move |incidents| incidents.topic == topic)
        .filter_map(move |incidents| (incidents.alert)(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::alerts::ROLE;

    #[test]
    fn what_can_raise_alerts_is_what_is_read() {
        let raises = |topic: &Topic| INCIDENTS.iter().any(|incidents| incidents.topic == topic);
        assert!(ROLE.reads.iter().copied().all(raises), "read for nothing");
        let is_read = |incidents: &Incidents| ROLE.reads.contains(&incidents.topic);
        assert!(INCIDENTS.iter().all(is_read), "raises alerts and is not read");
    }
}
