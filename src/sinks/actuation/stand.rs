//! What executions are tested on: a ledger and a platform made of memory, in time that is
//! moved by hand, disturbed by script or at any call.

mod memory;
mod platform;
mod trap;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::execution::{Execution, Interrupted};
use super::leases::Tenure;
use super::ledger::Ledger;
use super::{Actuation, Change, Read, Settings};
use crate::kafka::settings::KafkaSettings;
use crate::model::outcome::Outcome;
use crate::postgres::leases::Lease;

pub(crate) use memory::{Memory, START_MS};
pub(crate) use platform::{Act, OPERATION, Object, Refusal, SLOW, Scripted, World, plain};
pub(crate) use trap::{DISTURBANCES, Disturbance};

/// A kind of change on the stand.
pub(crate) trait Staged: Change {
    type Object: Object;
    /// How long its decision may be carried out.
    const LIFE: Duration;
    fn object() -> Self::Object;
    fn change(platform: Scripted<Self::Object>) -> Self;
    /// To change [`object`](Self::object).
    fn decision() -> Read<'static, Self>;
    /// An object as it must be once the decision is applied.
    fn is_changed(object: &Self::Object) -> bool;
}

/// One decision and all around it.
pub(crate) struct Stand<C: Staged> {
    pub actuation: Actuation<C, Memory>,
    pub world: Arc<Mutex<World<C::Object>>>,
    pub memory: Memory,
    pub decision: Read<'static, C>,
    pub lease: Lease,
    pub superseded: CancellationToken,
    pub stop: CancellationToken,
}

impl<C: Staged> Stand<C> {
    pub(crate) async fn new() -> Self {
        let world = Arc::new(Mutex::new(World {
            object: C::object(),
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            effects: Vec::new(),
            sent: Vec::new(),
            landing: Vec::new(),
        }));
        let kafka = KafkaSettings {
            brokers: String::new(),
            topic_prefix: "t-".to_owned(),
            instance: "one".to_owned(),
            properties: BTreeMap::new(),
        };
        let memory = Memory::new();
        let lease = memory.take_lease("l", "one").await.unwrap();
        let platform = Scripted { world: Arc::clone(&world), memory: memory.clone() };
        let (change, settings) = (C::change(platform), Settings::default());
        Self {
            actuation: Actuation::new(kafka, settings, change, memory.clone()),
            world,
            memory,
            decision: C::decision(),
            lease,
            superseded: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn writes(self, acts: &[Act<C::Object>]) -> Self {
        self.world.lock().unwrap().writes.extend(acts.iter().cloned());
        self
    }

    pub(crate) fn reads(self, acts: &[Act<C::Object>]) -> Self {
        self.world.lock().unwrap().reads.extend(acts.iter().cloned());
        self
    }

    pub(crate) fn with(self, change: impl FnOnce(&mut C::Object)) -> Self {
        change(&mut self.world.lock().unwrap().object);
        self
    }

    pub(crate) async fn run(&self) -> Result<Outcome, Interrupted> {
        let tenure = Tenure::kept(self.lease.clone());
        let (superseded, stop) = (self.superseded.clone(), self.stop.clone());
        Execution::new(&self.actuation, &self.decision, &tenure, superseded, stop).run().await
    }

    pub(crate) async fn outcome(&self) -> Outcome {
        self.run().await.expect("an outcome")
    }

    /// Executes the decision as often as it takes, each time under a new lease, as whoever
    /// takes it up after a stop, a crash or a lost lease does.
    pub(crate) async fn outcome_in_the_end(&mut self) -> Outcome {
        for _ in 0..20 {
            self.lease = self.memory.take_lease("l", "one").await.unwrap();
            self.stop = CancellationToken::new();
            *self.memory.trap.0.stop.lock().unwrap() = self.stop.clone();
            tokio::select! {
                ended = self.run() => if let Ok(outcome) = ended { return outcome },
                () = self.memory.trap.0.crashed.notified() => {}
            }
        }
        panic!("no outcome after twenty executions");
    }

    /// Lets everything that is on its way arrive.
    pub(crate) async fn all_has_landed(&self) {
        tokio::time::advance(SLOW * 2).await;
        self.world.lock().unwrap().land();
    }

    pub(crate) fn effects(&self) -> usize {
        self.world.lock().unwrap().effects.len()
    }

    pub(crate) fn sent(&self) -> usize {
        self.world.lock().unwrap().sent.len()
    }

    pub(crate) fn intents(&self) -> usize {
        self.memory.book.lock().unwrap().intents.len()
    }
}
