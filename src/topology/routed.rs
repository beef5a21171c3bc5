//! Lends the console the decision service.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::console::{NotPublished, RouteDecisions, Routing};
use crate::model::routing::{RouteAnswer, RouteConfiguration, RoutePublication, RouteRefusal};
use crate::postgres::Database;
use crate::routing::{self, PublishError, Publisher, Service, WeightsRefused};

/// The service with those who publish its configurations.
pub struct Routed {
    service: Service,
    publisher: Publisher,
}

impl Routed {
    /// What `publisher` puts in force is known to `service` at once.
    pub fn new(service: Service, publisher: Publisher) -> Self {
        Self { publisher: publisher.telling(service.clone()), service }
    }
}

impl RouteDecisions for Routed {
    fn decide<'a>(
        &'a self,
        configuration_id: &'a str,
        conversation_id: &'a str,
    ) -> Routing<'a, Result<Arc<RouteAnswer>, RouteRefusal>> {
        Box::pin(self.service.decide(configuration_id, conversation_id))
    }

    fn check(&self, configuration: &RouteConfiguration) -> Result<(), Vec<String>> {
        routing::check(configuration).map_err(|unusable| unusable.0)
    }

    fn check_weights<'a>(
        &'a self,
        database: &'a Database,
        id: &'a str,
        weights: &'a BTreeMap<String, f64>,
    ) -> Routing<'a, Result<(), NotPublished>> {
        Box::pin(async move {
            routing::check_weights(database, id, weights).await.map_err(|error| match error {
                WeightsRefused::Unusable(_) => NotPublished::Unusable(error.to_string()),
                WeightsRefused::Database(error) => NotPublished::Database(error),
            })
        })
    }

    fn publish<'a>(
        &'a self,
        id: &'a str,
        who: &'a str,
    ) -> Routing<'a, Result<RoutePublication, NotPublished>> {
        Box::pin(async move {
            self.publisher.publish(id, who).await.map_err(|error| match error {
                PublishError::Unknown(_) => NotPublished::Unknown(error.to_string()),
                PublishError::Unusable(_) => NotPublished::Unusable(error.to_string()),
                PublishError::Paused(_) => NotPublished::Paused(error.to_string()),
                // As a pause it passes.
                PublishError::UnderCanary(_) => NotPublished::Paused(error.to_string()),
                PublishError::TooMany => NotPublished::TooMany(error.to_string()),
                PublishError::Database(error) => NotPublished::Database(error),
            })
        })
    }
}
