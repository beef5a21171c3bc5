//! Records that the brokers refuse for what they are: set aside, and those beside them go on.

use rdkafka::message::{Headers, Message, OwnedMessage};
use trunkline::topics::{CONVERSATIONS, DEAD_LETTERS, LATE_EVENTS, OUTBOX_PROGRESS};

use super::exactly_once::{Instance, now};
use super::outbox::{Publisher, emptied, published};
use crate::support::counting::{CHANGELOG, NUMBERS, SUMS, number};
use crate::support::kafka::{self, create_small_topic, create_topics, incompressible, read_all};
use crate::support::postgres::TestDatabase;
use crate::support::until;

/// What dead letters with contents do not fit into.
const TINY: &str = "1024";
/// And what comes of a long key does not.
const SMALL: &str = "2048";
const LONG: usize = 3_000;

fn header(letter: &OwnedMessage, name: &str) -> String {
    let found = letter.headers().unwrap().iter().find(|header| header.key == name);
    String::from_utf8(found.expect("is there").value.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_sets_the_input_aside_whose_output_is_refused() {
    for letters_are_refused in [false, true] {
        let kafka = kafka::settings();
        create_topics(&kafka, &[&NUMBERS, &CHANGELOG, &LATE_EVENTS], 1).await;
        create_small_topic(&kafka, &SUMS, SMALL).await;
        match letters_are_refused {
            true => create_small_topic(&kafka, &DEAD_LETTERS, TINY).await,
            false => create_topics(&kafka, &[&DEAD_LETTERS], 1).await,
        }
        let (at, long) = (now(), incompressible(LONG));
        let numbers = [("a", 1), (&*long, 2), ("b", 3), ("a", 4)];
        let values: Vec<Vec<u8>> = numbers.iter().map(|(key, n)| number(key, at, *n)).collect();
        let records: Vec<(&str, &[u8])> =
            numbers.iter().zip(&values).map(|((key, _), value)| (*key, &**value)).collect();
        kafka::produce(&kafka, &NUMBERS, Some(0), &records).await;
        let stage = Instance::start(&kafka, "one", 1);
        let sums = until("the others to be summed up", async || {
            let sums = read_all(&kafka, &SUMS);
            (sums.len() >= 3).then_some(sums)
        })
        .await;
        let letters = until("the dead letter", async || {
            let letters = read_all(&kafka, &DEAD_LETTERS);
            (!letters.is_empty()).then_some(letters)
        })
        .await;
        stage.ready().await;
        stage.stop().await;
        let sum = |sum: &OwnedMessage| {
            let value: serde_json::Value = serde_json::from_slice(sum.payload().unwrap()).unwrap();
            (value["n"].as_i64().unwrap(), value["sum"].as_i64().unwrap())
        };
        assert_eq!(sums.iter().map(sum).collect::<Vec<_>>(), [(1, 1), (3, 3), (4, 5)]);
        let [letter] = &letters[..] else { panic!("{} dead letters", letters.len()) };
        let reason = header(letter, "trunkline-error-reason");
        assert!(reason.starts_with("refused_by_broker: "), "{reason}");
        assert_eq!(header(letter, "trunkline-error-offset"), "1");
        let kept = (!letters_are_refused).then_some(&values[1][..]);
        assert_eq!(letter.payload(), kept, "its contents, unless those are refused as well");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_goes_on_behind_a_message_that_is_refused() {
    for letters_are_refused in [false, true] {
        let kafka = kafka::settings();
        create_topics(&kafka, &[&OUTBOX_PROGRESS], 1).await;
        create_small_topic(&kafka, &CONVERSATIONS, SMALL).await;
        match letters_are_refused {
            true => create_small_topic(&kafka, &DEAD_LETTERS, TINY).await,
            false => create_topics(&kafka, &[&DEAD_LETTERS], 1).await,
        }
        let (_own, database) = TestDatabase::migrated().await;
        let long = incompressible(LONG);
        let mut transaction = database.pool().begin().await.unwrap();
        for value in ["1", &*long, "2", "3"] {
            let message =
                trunkline::postgres::outbox::Message::new(CONVERSATIONS.name, b"k", value.as_bytes());
            trunkline::postgres::outbox::append(&mut transaction, &message).await.unwrap();
        }
        transaction.commit().await.unwrap();
        let publisher = Publisher::start(&kafka, &database, "one");
        emptied(&database).await;
        publisher.stop().await;
        let values = published(&kafka).await.into_iter().map(|record| record.value.unwrap());
        assert_eq!(values.collect::<Vec<_>>(), [b"1", b"2", b"3"]);
        let letters = read_all(&kafka, &DEAD_LETTERS);
        let [letter] = &letters[..] else { panic!("{} dead letters", letters.len()) };
        assert!(header(letter, "trunkline-error-reason").starts_with("refused_by_broker: "));
        assert_eq!(header(letter, "trunkline-error-topic"), kafka.topic(&CONVERSATIONS));
        assert_eq!(letter.payload(), (!letters_are_refused).then_some(long.as_bytes()));
    }
}
