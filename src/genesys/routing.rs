//! Publishing routing configurations. The seed dialect alone knows: on the platform changes of
//! queues and members act at once.

use super::client::{Client, Reply, Scope};
use super::dialect::Spoken;
use super::error::{CallError, CallErrorKind as Kind};
use super::seed::routing;
use crate::model::outcome::SentRequest;
use crate::model::routing::RouteConfiguration;

impl Client {
    /// The request that publishes a routing configuration. Nothing is sent: record the
    /// request, then [`send_route_publication`](Self::send_route_publication) it.
    pub fn prepare_route_publication(configuration: &RouteConfiguration) -> SentRequest {
        routing::publish_request(configuration)
    }

    /// Sends a prepared request; makes one attempt at its effect. Sent again it changes nothing more.
    pub async fn send_route_publication(
        &self,
        request: &SentRequest,
        id: &str,
        scope: &Scope,
    ) -> Result<Reply, CallError> {
        let problem = match self.inner.spoken {
            _ if self.organization_of(id).name.is_some() => {
                Some("routing configurations are published in the first organisation alone".to_owned())
            }
            Spoken::Platform(_) => Some(
                "the platform publishes no routing configurations: set route.platform_publish = \"no\""
                    .to_owned(),
            ),
            Spoken::Seed if request.method != "POST" || request.path != routing::publish_path(id) => {
                Some(format!("this is no possible publication of routing configuration {id}"))
            }
            Spoken::Seed => None,
        };
        if let Some(problem) = problem {
            return Err(CallError::without_reply(Kind::Rejected, format!("not sent: {problem}")));
        }
        self.inner.write(&self.inner.routing, id, request, scope).await
    }
}
