//! One consumer for all topics that an instance follows as a whole: a table's records are few, and a
//! client for each table is five threads and a connection that asks twice a second.

use std::mem;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_util::sync::CancellationToken;

use super::assignment::partition_list;
use super::settings::KafkaSettings;
use super::topic_reader::{Places, TopicReader};
use super::whole_topic::{self, ANSWER_WAIT, Connection, LOOK_UNREACHABLE, POLL, Watch};
use crate::backoff;

/// Records of all topics that are taken before the tables show them, at most.
const RECORDS_AT_ONCE: usize = 1_000;
/// Time between two looks at the topics' partitions.
const LOOK: Duration = Duration::from_secs(10);

/// Follows topics that have been read up to their ends. Clones share one consumer and its thread, which
/// end with the shutdown, or when there is neither a clone nor a topic any more.
#[derive(Clone, Debug)]
pub struct GlobalConsumer {
    pub(super) kafka: KafkaSettings,
    pub(super) stop: CancellationToken,
    joining: Sender<Joining>,
}

/// A topic to be followed from these places on.
type Joining = (TopicReader, Places);

impl GlobalConsumer {
    /// Without a client until there is a topic to follow.
    pub fn new(kafka: &KafkaSettings, shutdown: &CancellationToken) -> Self {
        let (joining, joined) = mpsc::channel();
        let following = Following::new(kafka, shutdown, joined);
        thread::Builder::new()
            .name("global".to_owned())
            .spawn(move || following.run())
            .expect("the system can start a thread");
        Self { kafka: kafka.clone(), stop: shutdown.clone(), joining }
    }

    pub(super) fn follow(&self, reader: TopicReader, places: Places) {
        // Refused only after the shutdown.
        let _ = self.joining.send((reader, places));
    }
}

struct Followed {
    reader: TopicReader,
    partitions: Vec<i32>,
    /// Has taken records that it has not settled.
    is_unsettled: bool,
}

struct Following {
    kafka: KafkaSettings,
    stop: CancellationToken,
    joined: Receiver<Joining>,
    consumer: Option<BaseConsumer<Watch>>,
    followed: Vec<Followed>,
    looked_at: Instant,
}

impl Following {
    fn new(kafka: &KafkaSettings, stop: &CancellationToken, joined: Receiver<Joining>) -> Self {
        Self {
            kafka: kafka.clone(),
            stop: stop.clone(),
            joined,
            consumer: None,
            followed: Vec::new(),
            looked_at: Instant::now(),
        }
    }

    fn run(mut self) {
        while !self.stop.is_cancelled() && self.welcome() {
            if let Err(reason) = self.follow() {
                self.consumer = None;
                self.followed.drain(..).for_each(|followed| followed.reader.again(reason.clone()));
            }
        }
    }

    /// Begins with the topics that were read meanwhile; waits for one where there is none. `false` when
    /// there will be none any more.
    fn welcome(&mut self) -> bool {
        let mut joined = Vec::new();
        if self.followed.is_empty() {
            self.consumer = None;
            match self.joined.recv_timeout(POLL) {
                Ok(first) => joined.push(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        joined.extend(self.joined.try_iter());
        for (reader, places) in joined {
            match self.begin(&reader.name, &places) {
                Ok(()) => {
                    let partitions = places.into_keys().collect();
                    self.followed.push(Followed { reader, partitions, is_unsettled: false });
                }
                Err(reason) => reader.again(reason),
            }
        }
        true
    }

    fn begin(&mut self, topic: &str, places: &Places) -> Result<(), String> {
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            // Ends are of no interest any more.
            none => none.insert(whole_topic::consumer(&self.kafka, &[("enable.partition.eof", "false")])?),
        };
        let list = whole_topic::list(topic, places);
        consumer.incremental_assign(&list).map_err(|error| format!("cannot follow {topic}: {error}"))
    }

    /// Takes what has come. An error is one of the consumer, for all topics.
    fn follow(&mut self) -> Result<(), String> {
        self.take()?;
        self.keep(|_, followed| match mem::take(&mut followed.is_unsettled) {
            true => followed.reader.maintainer.settle(&followed.reader.health),
            false => Ok(()),
        })?;
        self.keep_those_in_use()?;
        self.look_at_connection();
        if self.looked_at.elapsed() > LOOK {
            self.looked_at = Instant::now();
            self.keep(has_the_same_partitions)?;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<(), String> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let mut wait = POLL;
        for _ in 0..RECORDS_AT_ONCE {
            match consumer.poll(mem::take(&mut wait)) {
                None => break,
                Some(Err(error)) => whole_topic::judge(&error)?,
                Some(Ok(record)) => {
                    let of = |followed: &&mut Followed| followed.reader.name == record.topic();
                    if let Some(followed) = self.followed.iter_mut().find(of) {
                        followed.reader.maintainer.take(&record);
                        followed.is_unsettled = true;
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on with the topics for which `judge` has no objection; the others are read anew.
    fn keep(
        &mut self,
        judge: impl Fn(&BaseConsumer<Watch>, &mut Followed) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let mut anew = Vec::new();
        for mut followed in mem::take(&mut self.followed) {
            match judge(consumer, &mut followed) {
                Ok(()) => self.followed.push(followed),
                Err(reason) => anew.push((followed, reason)),
            }
        }
        let ended = anew.iter().try_for_each(|(followed, _)| end(consumer, followed));
        anew.into_iter().for_each(|(followed, reason)| followed.reader.again(reason));
        ended
    }

    fn keep_those_in_use(&mut self) -> Result<(), String> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let is_dropped = |followed: &mut Followed| followed.reader.stop.is_cancelled();
        let dropped: Vec<Followed> = self.followed.extract_if(.., is_dropped).collect();
        dropped.iter().try_for_each(|followed| end(consumer, followed))
    }

    /// Says so while the brokers cannot be reached, and when they can be again.
    fn look_at_connection(&mut self) {
        let (Some(consumer), Some(any)) = (&self.consumer, self.followed.first()) else { return };
        match whole_topic::connection(consumer, &any.reader.name) {
            Connection::Sound => {}
            Connection::Lost => {
                self.followed.iter().for_each(|followed| followed.reader.is_cut_off());
                backoff::sleep(LOOK_UNREACHABLE, &self.stop);
            }
            Connection::Back => {
                for Followed { reader, .. } in &mut self.followed {
                    reader.maintainer.whole(&reader.health);
                }
            }
        }
    }
}

/// Partitions that came later hold keys that are read nowhere yet.
fn has_the_same_partitions(consumer: &BaseConsumer<Watch>, followed: &mut Followed) -> Result<(), String> {
    let name = &followed.reader.name;
    match whole_topic::partitions(consumer, name, ANSWER_WAIT) {
        Ok(now) if now.len() != followed.partitions.len() => {
            Err(format!("the number of partitions of {name} has changed"))
        }
        // Not known counts as unchanged.
        _ => Ok(()),
    }
}

fn end(consumer: &BaseConsumer<Watch>, followed: &Followed) -> Result<(), String> {
    let name = &followed.reader.name;
    let list = partition_list(name, &followed.partitions);
    consumer.incremental_unassign(&list).map_err(|error| format!("cannot let {name} go: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn without_anything_to_follow_it_ends_with_the_last_who_could_bring_something() {
        let kafka = KafkaSettings {
            brokers: "127.0.0.1:9".to_owned(),
            topic_prefix: String::new(),
            instance: "test".to_owned(),
            properties: BTreeMap::new(),
        };
        let (joining, joined) = mpsc::channel();
        let following = Following::new(&kafka, &CancellationToken::new(), joined);
        let ended = thread::spawn(|| following.run());
        drop(joining);
        ended.join().expect("ends");
    }
}
