//! What all workers of an instance share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::metrics::{Counter, Histogram};
use hashbrown::DefaultHashBuilder;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::journal::Journal;
use super::weights::{Plan, Unusable, with_weights};
use super::worker::looks;
use crate::health::Part;
use crate::metrics;
use crate::model::delivery::CanaryOverlay;
use crate::model::routing::{RouteAnswer, RouteConfiguration, RouteSource};
use crate::postgres::routing::RouteCounters;

/// How the service answers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a caller waits for the counters before an answer is given without them.
    /// Some time must be left of the 200 ms in which an answer is promised.
    pub patience: Duration,
    /// How long an attempt to reach the counters goes on after nobody waits for it any more.
    pub give_up: Duration,
    /// Time between probes while the breaker is open.
    pub breaker_pause: Duration,
    /// Answers kept in memory, and how long. The rows in Postgres stand behind them.
    pub cache_answers: u64,
    pub cache_life: Duration,
    /// How long an answer's row is kept: who asks later is a new conversation.
    pub retention: Duration,
    /// Where answers are written down that could not be recorded yet; `None` keeps them in
    /// memory only.
    pub journal: Option<PathBuf>,
    /// How often the list of configurations is looked at again.
    pub refresh: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(150),
            give_up: Duration::from_secs(2),
            breaker_pause: Duration::from_secs(1),
            cache_answers: 100_000,
            cache_life: Duration::from_secs(3_600),
            retention: Duration::from_secs(7 * 86_400),
            journal: None,
            refresh: Duration::from_secs(1),
        }
    }
}

/// What changes at run time beside the configurations. Asked inside a decision's time: it
/// must answer from memory.
pub trait View: Send + Sync {
    /// Whether a group can take a conversation. A group nothing is known about can.
    fn is_available(&self, destination_id: &str) -> bool;

    /// Weights by destination that stand for those of the configuration, with their revision.
    fn weights(&self, configuration_id: &str) -> Option<(i64, BTreeMap<String, f64>)>;
}

/// Everybody is available and weights are those of the configuration.
pub struct Unchanging;

impl View for Unchanging {
    fn is_available(&self, _: &str) -> bool {
        true
    }

    fn weights(&self, _: &str) -> Option<(i64, BTreeMap<String, f64>)> {
        None
    }
}

/// See the module.
pub(super) struct Context {
    pub settings: Settings,
    pub counters: RouteCounters,
    pub view: Arc<dyn View>,
    pub board: Board,
    /// Places for looks beside a turn.
    looks: Arc<Semaphore>,
    /// By [`key`]: the cache moves keys about as it grows, and need not follow pointers for it.
    answers: Cache<u128, Arc<RouteAnswer>, DefaultHashBuilder>,
}

impl Context {
    pub(super) fn new(settings: Settings, counters: RouteCounters, view: Arc<dyn View>, part: Part) -> Self {
        let answers = Cache::builder()
            .max_capacity(settings.cache_answers)
            // The newest are asked about again, not those that were asked about often.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(settings.cache_life.min(settings.retention))
            .build_with_hasher(DefaultHashBuilder::default());
        Self { settings, counters, view, board: Board::new(part), looks: looks(), answers }
    }

    pub(super) fn looks(&self) -> &Arc<Semaphore> {
        &self.looks
    }

    /// An answer given or met before.
    pub(super) fn cached(&self, configuration_id: &str, conversation_id: &str) -> Option<Arc<RouteAnswer>> {
        self.answers.get(&key(configuration_id, conversation_id))
    }

    pub(super) fn remember(&self, answer: &Arc<RouteAnswer>) {
        self.answers.insert(key(&answer.configuration_id, &answer.conversation_id), Arc::clone(answer));
    }

    /// An answer that some instance recorded. It stands against what was given here without
    /// the counters, and not against a later one.
    pub(super) fn remember_recorded(&self, answer: RouteAnswer) {
        let key = key(&answer.configuration_id, &answer.conversation_id);
        let known = self.answers.get(&key).and_then(|known| known.sequence);
        if known.is_none_or(|sequence| Some(sequence) < answer.sequence) {
            self.answers.insert(key, Arc::new(answer));
        }
    }

    /// What to decide by: the configuration with the weights set at run time, and their revision.
    /// A canary stands over both.
    ///
    /// # Errors
    /// When the configuration itself cannot be used. Weights set at run time that cannot be
    /// used leave those of the configuration in force.
    pub(super) fn plan(
        &self,
        definition: &RouteConfiguration,
        canary: Option<&CanaryOverlay>,
    ) -> Result<(Plan, i64), Unusable> {
        if let Some(canary) = canary {
            return Ok((Plan::under(canary, definition)?, canary.revision));
        }
        let plan = Plan::of(definition)?;
        let Some((revision, weights)) = self.view.weights(&definition.id) else {
            return Ok((plan, 0));
        };
        match Plan::of(&with_weights(definition, &weights)) {
            Ok(plan) => Ok((plan, revision)),
            Err(problem) => {
                tracing::warn!(configuration = definition.id, %problem, revision, "weights set at run time are not used");
                Ok((plan, 0))
            }
        }
    }

    pub(super) fn journal(&self, configuration_id: &str) -> Option<Journal> {
        let folder = self.settings.journal.as_ref()?;
        match Journal::open(folder, configuration_id) {
            Ok(journal) => Some(journal),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "answers that cannot be recorded at once are kept in memory only");
                None
            }
        }
    }

    /// Something people should look at is so, or no longer.
    pub(super) fn alarm(&self, configuration_id: &str, what: &'static str, is_so: bool) {
        self.board.alarm(configuration_id, what, is_so);
    }
}

/// What an answer is kept under; nobody can find two conversations with the same.
fn key(configuration_id: &str, conversation_id: &str) -> u128 {
    // Ids hold no control characters.
    let digest =
        Sha256::new().chain_update(configuration_id).chain_update(b"\0").chain_update(conversation_id);
    u128::from_le_bytes(digest.finalize()[..16].try_into().expect("16 bytes"))
}

/// Which configurations are not answered exactly and why, as one line of readiness; and
/// which alarms are on.
pub(super) struct Board {
    troubles: Mutex<BTreeMap<Arc<str>, String>>,
    alarms: Mutex<BTreeMap<(String, &'static str), bool>>,
    part: Part,
}

impl Board {
    fn new(part: Part) -> Self {
        Self { troubles: Mutex::default(), alarms: Mutex::default(), part }
    }

    pub(super) fn file(&self, id: &Arc<str>, reason: String) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.insert(Arc::clone(id), reason);
        self.tell(&troubles);
    }

    pub(super) fn withdraw(&self, id: &str) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.remove(id).is_some() {
            self.tell(&troubles);
        }
    }

    fn tell(&self, troubles: &BTreeMap<Arc<str>, String>) {
        match troubles.first_key_value() {
            None => self.part.ready(),
            Some((_, reason)) if troubles.len() == 1 => self.part.not_ready(reason.clone()),
            Some((_, reason)) => {
                self.part.not_ready(format!("{} configurations, among them: {reason}", troubles.len()));
            }
        }
    }

    fn alarm(&self, id: &str, what: &'static str, is_so: bool) {
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let was = alarms.insert((id.to_owned(), what), is_so);
        if was != Some(is_so) {
            metrics::ROUTE_ALARM.gauge(&[id, what]).set(f64::from(u8::from(is_so)));
            if is_so {
                tracing::error!(configuration = id, alarm = what, "look at this configuration");
            }
        }
    }
}

/// One configuration's meters, looked up once.
pub(super) struct Meters {
    answers: [Counter; 3],
    seconds: Histogram,
}

impl Meters {
    pub(super) fn of(configuration_id: &str) -> Self {
        Self {
            answers: RouteSource::ALL
                .map(|source| metrics::ROUTE_ANSWERS.counter(&[configuration_id, source.name()])),
            seconds: metrics::ROUTE_ANSWER_SECONDS.histogram(&[]),
        }
    }

    pub(super) fn answered(&self, source: RouteSource, callers: usize, after: Duration) {
        let index = RouteSource::ALL.iter().position(|other| *other == source).expect("one of all");
        self.answers[index].increment(callers as u64);
        self.seconds.record(after.as_secs_f64());
    }
}
