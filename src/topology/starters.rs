//! What starts each role: settings, what it needs, and its `run` as a task. A loop that is off
//! has no source, no stages and no actuator; what was recorded stays readable.

use std::sync::Arc;

use super::allowances as of_month;
use super::canary_tables::CanaryTables;
use super::routed::Routed;
use super::side_tables::SideTables;
use super::start::{Shared, Starting};
use super::{redecide, settings};
use crate::console::{self, Console, EventIntake};
use crate::kafka::global_table::GlobalTable;
use crate::model::decision::Mode;
use crate::postgres::routing::RouteCounters;
use crate::role::Role;
use crate::routing;
use crate::runtime::run_stage;
use crate::sinks::promotion::{self, FlowPublication, PromotionActuator};
use crate::sinks::rollback::{self as rollback_actuator, FlowVersionChange, RollbackActuator};
use crate::sinks::{
    actuator, alerts, allowances, analytics, audit, canary_shares, compliance, drift, lag_status, outbox,
};
use crate::sources::events::{self, Edge};
use crate::sources::{analytics_poller, campaign_poller, flow_poller, lag_poller, queue_poller};
use crate::stages::campaign_counting::CampaignCounting;
use crate::stages::canary_minutes::CanaryMinutes;
use crate::stages::delivery::Delivery;
use crate::stages::flow_counting::FlowCounting;
use crate::stages::flow_measuring::FlowMeasuring;
use crate::stages::flow_summing::FlowSumming;
use crate::stages::lag::Lag;
use crate::stages::rollback::Rollback;
use crate::stages::{campaign_counting, canary_minutes, delivery, lag, rollback};
use crate::topics;

/// Queues and settings an instance keeps in memory for routing, at most.
const MOST_TABLE_ENTRIES: usize = 100_000;

/// Calls are judged within a part of a tick, so that the next one knows of them.
const SETTLES_PER_TICK: u32 = 3;

pub(super) type Started = anyhow::Result<()>;

/// Why a role that was asked for is not started, for the log.
pub(super) fn left_out(role: &Role, why: &str) -> Started {
    tracing::info!(role = role.name, "{why}: not started");
    Ok(())
}

pub(super) const DIAL_OFF: &str = "dial.mode is off";
const ROLLBACK_OFF: &str = "rollback.mode is off";
const LAG_OFF: &str = "lag.mode is off";
const DELIVERY_OFF: &str = "delivery.mode is off";

/// Dial.
impl Starting<'_> {
    pub(super) fn campaign_poller(&mut self) -> Started {
        if self.config.dial.mode.is_none() {
            return left_out(&campaign_poller::ROLE, DIAL_OFF);
        }
        let (settings, client) = (settings::campaign_poller(self.config).with(self.names()), self.client()?);
        let Shared { kafka, health, stop, .. } = self.shared();
        self.task(&campaign_poller::ROLE, async move {
            campaign_poller::run(settings, kafka, client, &health, stop).await
        })
    }

    pub(super) fn campaign_counting(&mut self) -> Started {
        match self.config.dial.mode {
            Some(_) => self.stage(CampaignCounting::new(self.config.dial.interval / SETTLES_PER_TICK)),
            None => left_out(&campaign_counting::ROLE, DIAL_OFF),
        }
    }

    pub(super) fn actuator(&mut self) -> Started {
        if self.config.dial.mode.is_none() {
            return left_out(&actuator::ROLE, DIAL_OFF);
        }
        let change = actuator::DialChange::new(self.client()?, redecide::from_the_record());
        let Shared { kafka, database, health, stop } = self.shared();
        let settings = settings::actuator(self.config);
        let actuator = actuator::Actuator::new(kafka, settings, change, database).heeding(self.pauses());
        self.task(&actuator::ROLE, async move { actuator.run(&health, stop).await })
    }
}

/// Rollback.
impl Starting<'_> {
    pub(super) fn flow_counting(&mut self) -> Started {
        self.stage(FlowCounting::new(self.config.events.window, self.config.events.lateness))
    }

    pub(super) fn flow_summing(&mut self) -> Started {
        self.stage(FlowSumming::new(self.config.events.window))
    }

    pub(super) fn flow_measuring(&mut self) -> Started {
        self.stage(FlowMeasuring)
    }

    pub(super) fn flow_poller(&mut self) -> Started {
        if self.config.rollback.mode.is_none() {
            return left_out(&flow_poller::ROLE, ROLLBACK_OFF);
        }
        let (settings, client) = (settings::flow_poller(self.config).with(self.names()), self.client()?);
        let Shared { kafka, health, stop, .. } = self.shared();
        self.task(&flow_poller::ROLE, async move {
            flow_poller::run(settings, kafka, client, &health, stop).await
        })
    }

    pub(super) fn rollback(&mut self) -> Started {
        let Some(mode) = self.config.rollback.mode else {
            return left_out(&rollback::ROLE, ROLLBACK_OFF);
        };
        let Shared { kafka, health, stop, .. } = self.shared();
        let tables = SideTables::open(self.settings_table(), &self.global, &health);
        let sources = settings::rollback_sources(self.config);
        let lookup = Arc::new(tables.clone());
        let stage = Rollback::new(mode, settings::rollback_rule(self.config), sources, lookup);
        let settings = settings::stage(self.config);
        // Without knowing what is in force nothing is decided.
        self.task(&rollback::ROLE, async move {
            if tables.caught_up().await {
                run_stage(stage, &kafka, &settings, health.part(rollback::ROLE.name), stop).stopped().await;
            }
            Ok::<_, anyhow::Error>(())
        })
    }

    pub(super) fn rollback_actuator(&mut self) -> Started {
        if self.config.rollback.mode.is_none() {
            return left_out(&rollback_actuator::ROLE, ROLLBACK_OFF);
        }
        let change = FlowVersionChange::new(self.client()?, settings::rollback_lockout(self.config));
        let Shared { kafka, database, health, stop } = self.shared();
        let actuator = RollbackActuator::new(kafka, Default::default(), change, database);
        let actuator = actuator.heeding(self.pauses());
        self.task(&rollback_actuator::ROLE, async move { actuator.run(&health, stop).await })
    }
}

/// Delivery.
impl Starting<'_> {
    pub(super) fn canary_minutes(&mut self) -> Started {
        let role = &canary_minutes::ROLE;
        if self.config.delivery.mode.is_none() {
            return left_out(role, DELIVERY_OFF);
        }
        let Shared { kafka, health, stop, .. } = self.shared();
        let tables = CanaryTables::new(self.settings_table());
        let sources = settings::rollback_sources(self.config);
        let stage = CanaryMinutes::new(sources.usual, sources.polled, Arc::new(tables.clone()));
        let settings = settings::stage(self.config);
        // Without knowing which flows are tried out their minutes would be passed over.
        self.task(role, async move {
            if tables.caught_up().await {
                run_stage(stage, &kafka, &settings, health.part(role.name), stop).stopped().await;
            }
            Ok::<_, anyhow::Error>(())
        })
    }

    pub(super) fn delivery(&mut self) -> Started {
        let role = &delivery::ROLE;
        let Some(mode) = self.config.delivery.mode else { return left_out(role, DELIVERY_OFF) };
        let Shared { kafka, health, stop, .. } = self.shared();
        let tables = CanaryTables::new(self.settings_table());
        let stage = Delivery::new(mode, self.config.events.window, Arc::new(tables.clone()));
        let settings = settings::stage(self.config);
        // Without knowing what holds it nothing is decided.
        self.task(role, async move {
            if tables.caught_up().await {
                run_stage(stage, &kafka, &settings, health.part(role.name), stop).stopped().await;
            }
            Ok::<_, anyhow::Error>(())
        })
    }

    pub(super) fn canary_shares(&mut self) -> Started {
        if self.config.delivery.mode.is_none() {
            return left_out(&canary_shares::ROLE, DELIVERY_OFF);
        }
        let Shared { kafka, database, health, stop } = self.shared();
        self.task(
            &canary_shares::ROLE,
            async move { canary_shares::run(&kafka, database, &health, stop).await },
        )
    }

    pub(super) fn promotion(&mut self) -> Started {
        if self.config.delivery.mode.is_none() {
            return left_out(&promotion::ROLE, DELIVERY_OFF);
        }
        let change = FlowPublication(self.client()?);
        let Shared { kafka, database, health, stop } = self.shared();
        let actuator = PromotionActuator::new(kafka, Default::default(), change, database);
        let actuator = actuator.heeding(self.pauses());
        self.task(&promotion::ROLE, async move { actuator.run(&health, stop).await })
    }
}

/// Lag.
impl Starting<'_> {
    pub(super) fn lag(&mut self) -> Started {
        let Some(mode) = self.config.lag.mode else { return left_out(&lag::ROLE, LAG_OFF) };
        let thresholds = settings::lag_thresholds(self.config);
        self.stage(Lag::new(mode, thresholds, settings::lag_intervals(self.config)))
    }

    pub(super) fn analytics_poller(&mut self) -> Started {
        let role = &analytics_poller::ROLE;
        if self.config.lag.mode.is_none() {
            return left_out(role, LAG_OFF);
        }
        let Some(settings) = settings::analytics_poller(self.config) else {
            return left_out(role, "lag.analytics_groups names no group");
        };
        let client = self.client()?;
        let Shared { kafka, health, stop, .. } = self.shared();
        self.task(role, async move { analytics_poller::run(settings, kafka, client, &health, stop).await })
    }

    pub(super) fn lag_poller(&mut self) -> Started {
        if self.config.lag.mode.is_none() {
            return left_out(&lag_poller::ROLE, LAG_OFF);
        }
        let settings = settings::lag_poller(self.config, &self.kafka);
        let Shared { kafka, health, stop, .. } = self.shared();
        self.task(&lag_poller::ROLE, async move { lag_poller::run(settings, kafka, &health, stop).await })
    }

    pub(super) fn lag_status(&mut self) -> Started {
        let Shared { kafka, database, health, stop } = self.shared();
        self.task(&lag_status::ROLE, async move { lag_status::run(&kafka, database, &health, stop).await })
    }
}

/// For all loops.
impl Starting<'_> {
    pub(super) fn audit(&mut self) -> Started {
        let Shared { kafka, database, health, stop } = self.shared();
        let settings = settings::audit(self.config);
        self.task(&audit::ROLE, async move { audit::run(settings, &kafka, database, &health, stop).await })
    }

    pub(super) fn allowances(&mut self) -> Started {
        let client = self.client()?;
        let settings = of_month::settings(self.config, self.platforms());
        let Shared { kafka, database, health, stop } = self.shared();
        self.task(&allowances::ROLE, async move {
            allowances::run(settings, &kafka, database, client, &health, stop).await
        })
    }

    pub(super) fn alerts(&mut self) -> Started {
        let Shared { kafka, database, health, stop } = self.shared();
        let settings = settings::alerts(self.config);
        self.task(&alerts::ROLE, async move { alerts::run(settings, kafka, database, &health, stop).await })
    }

    pub(super) fn outbox(&mut self) -> Started {
        let Shared { kafka, database, health, stop } = self.shared();
        self.task(&outbox::ROLE, async move {
            outbox::run(outbox::Settings::default(), kafka, database, &health, stop).await;
            Ok::<_, anyhow::Error>(())
        })
    }

    pub(super) fn drift(&mut self) -> Started {
        let Some(settings) = settings::drift(self.config) else {
            return left_out(&drift::ROLE, "influx.url is not set");
        };
        let Shared { kafka, health, stop, .. } = self.shared();
        self.task(&drift::ROLE, async move { drift::run(&kafka, settings, &health, stop).await })
    }

    pub(super) fn console(&mut self) -> Started {
        let settings = settings::console(self.config, self.platforms())?;
        let Shared { database, health, stop, .. } = self.shared();
        let intake = self.edge.clone().map(|edge| edge as Arc<dyn EventIntake>);
        let console = Console::bind(settings, database, health, self.metrics.clone(), intake)?;
        let console = console.with_review(self.review.clone());
        let console = match self.routed.clone() {
            Some(routed) => console.with_routing(routed),
            None => console,
        };
        self.running.serves_at(console.address());
        self.task(&console::ROLE, async move {
            console.serve(stop).await;
            Ok::<_, anyhow::Error>(())
        })
    }
}

/// Conversations: events in, enrichment out.
impl Starting<'_> {
    pub(super) fn ingest(&mut self) -> Started {
        let Shared { kafka, health, stop, .. } = self.shared();
        let edge = Arc::new(Edge::new(settings::ingest(self.config), &kafka, &health)?);
        self.edge = Some(edge.clone());
        self.task(&events::ROLE, async move {
            edge.run(stop).await;
            Ok::<_, anyhow::Error>(())
        })
    }

    pub(super) fn enrichment(&mut self) -> Started {
        let Some(settings) = settings::enrichment(self.config) else {
            return left_out(&analytics::ROLE, "enrichment.mode is off");
        };
        let client = self.client()?;
        let Shared { kafka, database, health, stop } = self.shared();
        self.task(&analytics::ROLE, async move {
            analytics::run(settings, &kafka, database, client, &health, stop).await
        })
    }

    pub(super) fn compliance(&mut self) -> Started {
        let Some(settings) = settings::compliance(self.config) else {
            return left_out(&compliance::ROLE, "compliance.mode is off");
        };
        let client = if self.config.compliance.restate { Some(self.client()?) } else { None };
        let Shared { kafka, database, health, stop } = self.shared();
        self.task(&compliance::ROLE, async move {
            compliance::run(settings, &kafka, database, client, &health, stop).await
        })
    }
}

/// Routing.
impl Starting<'_> {
    pub(super) fn queue_poller(&mut self) -> Started {
        let settings = settings::queue_poller(self.config);
        if self.config.route.mode.is_none() || settings.queues.is_empty() {
            return left_out(&queue_poller::ROLE, "route.mode is off or route.queues is empty");
        }
        let client = self.client()?;
        let Shared { kafka, health, stop, .. } = self.shared();
        self.task(&queue_poller::ROLE, async move {
            queue_poller::run(settings, kafka, client, &health, stop).await
        })
    }

    pub(super) fn routing(&mut self) -> Started {
        match self.config.route.mode {
            Some(mode) => self.routing_in(mode),
            None => left_out(&routing::ROLE, "route.mode is off"),
        }
    }

    fn routing_in(&mut self, mode: Mode) -> Started {
        let route = &self.config.route;
        let Shared { kafka, database, health, stop } = self.shared();
        let view = routing::Topics {
            availability: GlobalTable::open(
                &self.global,
                &topics::QUEUE_AVAILABILITY,
                MOST_TABLE_ENTRIES,
                health.part("routing availability"),
            ),
            settings: self.settings_table().0,
            limit: route.availability_limit,
        };
        let patience = settings::ROUTE_PATIENCE;
        let counters = RouteCounters::new(&settings::postgres(self.config), route.connections, patience)?;
        let own = settings::routing(self.config, &kafka.instance);
        let retention = own.retention;
        let service = routing::Service::new(own, counters, Arc::new(view), &health, stop.clone());
        service.follow(&self.global, health.part("routing follower"));
        let platform = if route.platform_publish { Some(self.client()?) } else { None };
        let publisher = routing::Publisher::new(database.clone(), platform, mode, stop.clone());
        self.routed = Some(Arc::new(Routed::new(service.clone(), publisher)));
        let part = health.part("routing recorder");
        self.task(&routing::ROLE, async move {
            tokio::join!(service.run(), routing::recorder::run(database, mode, retention, part, stop));
            Ok::<_, anyhow::Error>(())
        })
    }
}
