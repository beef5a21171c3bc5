//! The loop of one instance: records are dealt with one after the other, as rollbacks are.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::carry::{Carrying, Interrupted, Read, end_at_once};
use super::{ROLE, RollbackActuator, RollbackError, lease};
use crate::health::Health;
use crate::metrics;
use crate::runtime::decided::{self, Ending};
use crate::runtime::subscription::{
    Event, InboundRecord, PublishError, Start, Subscription, SubscriptionHandle, SubscriptionOptions,
    TopicPartition,
};
use crate::telemetry;
use crate::topics::{ROLLBACK_DECISIONS, headers};

/// Records waiting before reading pauses, and before it goes on.
const WAITING_LIMIT: usize = 512;
/// How long the record under way is waited for when its partition goes or the process stops.
const WIND_UP: Duration = Duration::from_millis(1_900);

/// The record under way.
struct Turn {
    partition: TopicPartition,
    stop: CancellationToken,
    work: Pin<Box<dyn Future<Output = Result<(), RollbackError>> + Send>>,
}

struct Member {
    actuator: Arc<RollbackActuator>,
    handle: SubscriptionHandle,
    shutdown: CancellationToken,
    assigned: Vec<TopicPartition>,
    waiting: VecDeque<InboundRecord>,
    turn: Option<Turn>,
    paused: bool,
}

/// See [`RollbackActuator::run`].
pub async fn run(
    actuator: Arc<RollbackActuator>,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), RollbackError> {
    let options = SubscriptionOptions {
        buffered_records: 256,
        batch_records: 128,
        publishes: true,
        health: Some(health.part(ROLE)),
        ..SubscriptionOptions::default()
    };
    let mut subscription =
        Subscription::open(&actuator.kafka, ROLE, &[&ROLLBACK_DECISIONS], options, shutdown.clone())?;
    let mut member = Member {
        actuator,
        handle: subscription.handle(),
        shutdown,
        assigned: Vec::new(),
        waiting: VecDeque::new(),
        turn: None,
        paused: false,
    };
    let result = loop {
        member.begin();
        member.regulate().await;
        tokio::select! {
            event = subscription.next() => match event {
                Event::Closed => break Ok(()),
                Event::Failed(error) => break Err(error.into()),
                event => member.on_event(event).await,
            },
            ended = ended(&mut member.turn) => {
                member.turn = None;
                if let Err(error) = ended {
                    break Err(error);
                }
            }
        }
    };
    member.waiting.clear();
    member.stop(|_| true).await;
    subscription.close().await;
    result
}

/// The end of the turn under way; pending where there is none.
async fn ended(turn: &mut Option<Turn>) -> Result<(), RollbackError> {
    match turn {
        Some(turn) => turn.work.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Member {
    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Assigned(partitions) => {
                self.assigned.extend(&partitions);
                if self.paused {
                    self.handle.pause(partitions.clone()).await;
                }
                let from_there = |partition| (partition, Start::Committed);
                self.handle.start(partitions.into_iter().map(from_there).collect()).await;
            }
            Event::Revoked(partitions) => {
                self.release(&partitions).await;
                self.handle.acknowledge_revocation().await;
            }
            Event::Lost(partitions) => self.release(&partitions).await,
            Event::Records(records) => self.waiting.extend(records),
            Event::Failed(_) | Event::Closed => {}
        }
    }

    async fn release(&mut self, gone: &[TopicPartition]) {
        self.assigned.retain(|partition| !gone.contains(partition));
        self.waiting.retain(|record| !gone.contains(&record.topic_partition()));
        self.stop(|partition| gone.contains(partition)).await;
    }

    /// Ends the turn under way if it is about one of these partitions.
    async fn stop(&mut self, which: impl Fn(&TopicPartition) -> bool) {
        let Some(mut turn) = self.turn.take_if(|turn| which(&turn.partition)) else { return };
        turn.stop.cancel();
        // What is cut off is on record, and taken up by whoever reads it next.
        let _ = timeout(WIND_UP, turn.work.as_mut()).await;
    }

    fn begin(&mut self) {
        if self.turn.is_some() {
            return;
        }
        let Some(record) = self.waiting.pop_front() else { return };
        let stop = self.shutdown.child_token();
        let (partition, actuator) = (record.topic_partition(), Arc::clone(&self.actuator));
        let work = Box::pin(deal_with(actuator, self.handle.clone(), record, stop.clone()));
        self.turn = Some(Turn { partition, stop, work });
    }

    async fn regulate(&mut self) {
        let pause = self.waiting.len() > if self.paused { WAITING_LIMIT / 2 } else { WAITING_LIMIT };
        if pause != self.paused {
            self.paused = pause;
            let all = self.assigned.clone();
            if pause { self.handle.pause(all).await } else { self.handle.resume(all).await }
        }
    }
}

/// From a record to its published outcome, unless it is stopped before.
async fn deal_with(
    actuator: Arc<RollbackActuator>,
    handle: SubscriptionHandle,
    record: InboundRecord,
    stop: CancellationToken,
) -> Result<(), RollbackError> {
    let traceparent = record.headers.iter().find(|(name, _)| name == headers::TRACEPARENT);
    let span = tracing::info_span!("rollback", partition = record.partition, offset = record.offset);
    if let Some((_, traceparent)) = traceparent {
        telemetry::continue_trace(&span, traceparent);
    }
    let ending = async {
        match decided::read(&record) {
            Err(reason) => {
                tracing::error!(offset = record.offset, %reason, "a decision cannot be read; set aside");
                Some(Ending::DeadLetter { reason, at: actuator.now() })
            }
            Ok(decision) => match end_at_once(&decision, actuator.now()) {
                Some(outcome) => Some(Ending::Outcome(Box::new(outcome))),
                None => carry_out(&actuator, &decision, &stop).await,
            },
        }
    };
    match ending.instrument(span).await {
        Some(ending) => publish(&actuator, &handle, &record, &ending, &stop).await,
        None => Ok(()),
    }
}

/// One rollback under the lease; taken up again where the lease was lost.
async fn carry_out(
    actuator: &RollbackActuator,
    decision: &Read<'_>,
    stop: &CancellationToken,
) -> Option<Ending> {
    loop {
        let held = lease::take(actuator, stop).await?;
        let interrupt = stop.child_token();
        let (lost, interrupted) = (held.lost.clone(), interrupt.clone());
        let watching = tokio::spawn(async move {
            lost.cancelled().await;
            interrupted.cancel();
        });
        let carried = Carrying::new(actuator, decision, &held, interrupt).run().await;
        watching.abort();
        match carried {
            Ok(outcome) => return Some(Ending::Outcome(Box::new(outcome))),
            Err(Interrupted::Stopped) => return None,
            Err(Interrupted::LeaseLost) => {}
        }
    }
}

async fn publish(
    actuator: &RollbackActuator,
    handle: &SubscriptionHandle,
    record: &InboundRecord,
    ending: &Ending,
    stop: &CancellationToken,
) -> Result<(), RollbackError> {
    let topic = actuator.kafka.topic(record.topic);
    let outbound = decided::outbound(ROLE, record, &topic, ending);
    let offsets = vec![(record.topic_partition(), record.offset + 1)];
    for failures in 0u32.. {
        fail::fail_point!("rollback-before-publish", |_| std::process::abort());
        match handle.publish(vec![outbound.clone()], offsets.clone()).await {
            Ok(()) => break,
            Err(error @ PublishError::TooLarge { .. }) => {
                return Err(RollbackError::Unpublishable(error.to_string()));
            }
            Err(PublishError::Gone(_) | PublishError::Closed) => return Ok(()),
            Err(error @ PublishError::Retry(_)) => {
                tracing::warn!(%error, "an outcome waits to be published");
                tokio::select! {
                    () = sleep(Duration::from_millis(50 << failures.min(6))) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
        }
    }
    let status = match ending {
        Ending::Outcome(outcome) => outcome.status.name(),
        Ending::DeadLetter { .. } => "dead_letter",
    };
    metrics::ROLLBACK_OUTCOMES.counter(&[status]).increment(1);
    Ok(())
}
