//! The service as HTTP and the command line see it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{Context, Settings, View};
use super::followed::Followed;
use super::weights::is_id;
use super::worker::{Ask, Message, Worker};
use crate::clock;
use crate::health::{Health, Part};
use crate::kafka::global_consumer::GlobalConsumer;
use crate::kafka::tail;
use crate::metrics;
use crate::model::routing::{RouteAnswer, RouteConfiguration, RouteRefusal as Refusal};
use crate::postgres::routing::{InForce, RouteCounters};
use crate::role::{self, Kind, Role};
use crate::telemetry;
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "routing",
    kind: Kind::Server,
    description: "decides which group gets a conversation, on the console's listener; its decisions go out through the outbox",
    reads: &[&topics::QUEUE_AVAILABILITY, &topics::SETTINGS, &topics::ROUTING_DECISIONS],
    writes: &[&topics::ROUTING_DECISIONS],
    sets_aside: &[],
    keeps: &[],
    outside: &["Architect flows", role::PLATFORM, role::POSTGRES],
};

/// Requests one worker keeps waiting; more are told to come again.
const WAITING: usize = 16_384;
/// Look-ups of ids this instance has not met at the same time.
const LOOK_UPS: usize = 2;

/// Clones share everything.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<Context>,
    workers: RwLock<HashMap<Arc<str>, OpenDesk>>,
    look_ups: Semaphore,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    list: Part,
}

#[derive(Clone)]
struct OpenDesk {
    id: Arc<str>,
    messages: mpsc::Sender<Message>,
}

impl Service {
    /// Registers `routing` and `routing configurations` with `health`; knows no
    /// configuration before [`run`](Self::run).
    pub fn new(
        settings: Settings,
        counters: RouteCounters,
        view: Arc<dyn View>,
        health: &Health,
        shutdown: CancellationToken,
    ) -> Self {
        let part = health.part(ROLE.name);
        part.ready();
        let inner = Inner {
            context: Arc::new(Context::new(settings, counters, view, part)),
            workers: RwLock::default(),
            look_ups: Semaphore::new(LOOK_UPS),
            tasks: TaskTracker::new(),
            shutdown,
            list: health.part("routing configurations"),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Which group gets the conversation. Answers within the configured patience whatever
    /// the database does, once the configuration has been met; the database is asked about one
    /// that has not, before it is refused.
    ///
    /// # Errors
    /// See [`RouteRefusal`](Refusal).
    pub async fn decide(
        &self,
        configuration_id: &str,
        conversation_id: &str,
    ) -> Result<Arc<RouteAnswer>, Refusal> {
        let asked_at = Instant::now();
        if !is_id(conversation_id) {
            return Err(Refusal::BadConversation);
        }
        let worker = match self.open_desk(configuration_id) {
            Some(worker) => worker,
            None => self.look_up(configuration_id).await?,
        };
        let (reply, answered) = oneshot::channel();
        let traceparent = telemetry::is_exported()
            .then(|| telemetry::traceparent(&tracing::Span::current()).map(Arc::from))
            .flatten();
        let ask = Message::Ask(Ask { conversation_id: conversation_id.into(), asked_at, traceparent, reply });
        worker.messages.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Refusal::Stopping,
        })?;
        answered.await.map_err(|_| Refusal::Stopping)
    }

    /// This was put in force just now: asked about it at once, this instance knows it.
    pub fn put_in_force(&self, in_force: InForce) {
        let id = in_force.definition.id.clone();
        if self.open_desk(&id).is_some() {
            self.look_again(&id);
        } else if let Err(reason) = self.open(in_force) {
            tracing::warn!(configuration = id, reason, "what was published is not answered here yet");
        }
    }

    /// Something may have changed: weights set at run time, a publication.
    fn look_again(&self, configuration_id: &str) {
        if let Some(worker) = self.open_desk(configuration_id) {
            // A full worker is about to ask the database anyway.
            let _ = worker.messages.try_send(Message::LookAgain);
        }
    }

    /// Repeats what other instances record, and this one recorded before it was started: reads
    /// the newest decisions from their topic, as many as answers are kept in memory, and goes on
    /// with those that come. `part` is not ready before the newest are here.
    pub fn follow(&self, global: &GlobalConsumer, part: Part) {
        let (context, mut followed) = (Arc::clone(&self.inner.context), Followed::default());
        let most = i64::try_from(context.settings.cache_answers).unwrap_or(i64::MAX);
        let counted = |result: &str| metrics::ROUTE_FOLLOWED.counter(&[result]);
        let (remembered, passed_over) = (counted("remembered"), counted("unreadable"));
        let take = move |value: &[u8]| {
            let answer = followed.answer(value, clock::now(), context.settings.retention);
            let answer = answer.inspect_err(|_| passed_over.increment(1))?;
            if let Some(answer) = answer {
                remembered.increment(1);
                context.remember_recorded(answer);
            }
            Ok(())
        };
        tail::follow(global, &topics::ROUTING_DECISIONS, most, part, take);
    }

    /// Opens a worker for every configuration in force and keeps looking for more, until
    /// shutdown; then lets the workers end.
    pub async fn run(self) {
        let mut seen = HashMap::new();
        let refresh = self.inner.context.settings.refresh;
        loop {
            match self.refresh(&mut seen).await {
                Ok(()) => self.inner.list.ready(),
                Err(reason) => {
                    self.inner.list.not_ready(format!("the list of configurations cannot be read: {reason}"));
                }
            }
            tokio::select! {
                () = self.inner.shutdown.cancelled() => break,
                () = tokio::time::sleep(refresh) => {}
            }
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    async fn refresh(&self, seen: &mut HashMap<String, (i64, i64)>) -> Result<(), String> {
        let counters = &self.inner.context.counters;
        for (id, revision) in counters.revisions().await.map_err(|error| error.to_string())? {
            if self.open_desk(&id).is_none()
                && let Some(in_force) = counters.in_force(&id).await.map_err(|error| error.to_string())?
            {
                self.open(in_force)?;
            }
            let weights = self.inner.context.view.weights(&id).map_or(0, |(revision, _)| revision);
            if seen.get(&id).is_none_or(|known| *known != (revision, weights)) {
                self.look_again(&id);
                seen.insert(id, (revision, weights));
            }
        }
        Ok(())
    }

    fn open_desk(&self, configuration_id: &str) -> Option<OpenDesk> {
        let workers = self.inner.workers.read().unwrap_or_else(PoisonError::into_inner);
        workers.get(configuration_id).cloned()
    }

    async fn look_up(&self, id: &str) -> Result<OpenDesk, Refusal> {
        let unavailable = |reason: String| Refusal::Unavailable { id: id.to_owned(), reason };
        if !is_id(id) {
            return Err(Refusal::Unknown(id.to_owned()));
        }
        // Nothing can be answered from what is known here, so this may take longer than an answer.
        let deadline = Instant::now() + self.inner.context.settings.give_up;
        let looking = async {
            let _turn = self.inner.look_ups.acquire().await;
            if let Some(worker) = self.open_desk(id) {
                return Ok(worker);
            }
            match self.inner.context.counters.in_force(id).await {
                Ok(Some(in_force)) => self.open(in_force).map_err(unavailable),
                Ok(None) => Err(Refusal::Unknown(id.to_owned())),
                Err(error) => Err(unavailable(error.to_string())),
            }
        };
        timeout_at(deadline, looking)
            .await
            .unwrap_or_else(|_| Err(unavailable("it gives no answer in time".to_owned())))
    }

    fn open(&self, in_force: InForce) -> Result<OpenDesk, String> {
        let id: Arc<str> = in_force.definition.id.as_str().into();
        let mut workers = self.inner.workers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(&id) {
            return Ok(worker.clone());
        }
        if self.inner.shutdown.is_cancelled() {
            return Err("this instance is stopping".to_owned());
        }
        let worker = Worker::new(Arc::clone(&self.inner.context), in_force)
            .map_err(|problem| format!("configuration {id} cannot be used: {problem}"))?;
        let (messages, inbox) = mpsc::channel(WAITING);
        self.inner.tasks.spawn(worker.run(inbox, self.inner.shutdown.clone()));
        let open = OpenDesk { id: Arc::clone(&id), messages };
        workers.insert(id, open.clone());
        Ok(open)
    }
}

impl std::fmt::Debug for OpenDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {}", self.id)
    }
}

/// Whether a configuration can be decided by.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(configuration: &RouteConfiguration) -> Result<(), super::weights::Unusable> {
    super::weights::Plan::of(configuration).map(drop)
}
