//! Who is available in queues.

use super::client::{Client, Scope, read_request};
use super::dialect::Spoken;
use super::error::CallError;
use super::seed;

/// How many of a queue's agents could take a conversation, as the platform has it now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Available {
    /// Share of the queue's agents, 0–1.
    pub availability: f64,
    pub agents: Option<u32>,
}

impl Client {
    /// Says which queues will be asked about from here: where the platform can, they are asked
    /// about together.
    pub fn expect_queues<'q>(&self, ids: impl IntoIterator<Item = &'q str>) {
        for (client, ids) in self.by_organization(ids) {
            if let Spoken::Platform(platform) = &client.inner.spoken {
                platform.on_queue.expect(ids);
            }
        }
    }

    /// How many of the queue's agents could take a conversation now.
    pub async fn queue_availability(&self, id: &str, scope: &Scope) -> Result<Available, CallError> {
        let (Self { inner, .. }, id) = self.of(id);
        match &inner.spoken {
            Spoken::Seed => {
                let request = read_request(seed::queues::availability_path(id));
                let read = |_: &_, body: &[u8]| seed::queues::read_availability(body);
                inner.read(&inner.queue_availability, id, &request, scope, read).await
            }
            Spoken::Platform(platform) => platform.queue_availability(inner, id, scope).await,
        }
    }
}
