//! The simulated Genesys Cloud over real sockets: what the actuator's tests rely on.

#[path = "simulator/budget.rs"]
mod budget;
#[path = "simulator/campaigns.rs"]
mod campaigns;
#[path = "simulator/consumer_groups.rs"]
mod consumer_groups;
#[path = "simulator/decisions.rs"]
mod decisions;
#[path = "simulator/details.rs"]
mod details;
#[path = "simulator/events.rs"]
mod events;
#[path = "simulator/faults.rs"]
mod faults;
#[path = "simulator/flows.rs"]
mod flows;
#[path = "simulator/receiver.rs"]
mod receiver;
#[path = "simulator/routing.rs"]
mod routing;
#[path = "simulator/tenant.rs"]
mod tenant;
#[path = "simulator/tokens.rs"]
mod tokens;
#[path = "simulator/world.rs"]
mod world;
