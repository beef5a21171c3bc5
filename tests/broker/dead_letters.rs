//! What cannot be used is set aside, byte for byte, once.
#![expect(unsafe_code, reason = "headers whose names are not UTF-8 can be sent through librdkafka alone")]

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use trunkline::model::Timestamp;
use trunkline::topics::{DEAD_LETTERS, LATE_EVENTS};

use super::exactly_once::{Instance, now};
use crate::support::counting::{NUMBERS, SUMS, TOPICS, number, poisons};
use crate::support::kafka::{self, client, create_topics, read_all};
use crate::support::until;

fn header<'m>(message: &'m OwnedMessage, name: &str) -> Option<&'m [u8]> {
    let headers = message.headers()?;
    (0..headers.count()).map(|index| headers.get(index)).find(|header| header.key == name)?.value
}

fn reason(message: &OwnedMessage) -> String {
    String::from_utf8(header(message, "trunkline-error-reason").expect("a reason").to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_every_kind_becomes_a_dead_letter_byte_for_byte() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 2).await;
    let topic = kafka.topic(&NUMBERS);
    let at = now();
    let poisons = poisons(at);
    let (config, name, records) = (client(&kafka), topic.clone(), poisons.clone());
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        let neighbour = (Some(b"p".to_vec()), Some(number("p", at, 1)));
        for (_, key, value) in records {
            for (key, value) in [(key, value), neighbour.clone()] {
                let headers = OwnedHeaders::new()
                    .insert(Header { key: "theirs", value: Some(&[0xff_u8, 0, 1][..]) })
                    .insert(Header::<&[u8]> { key: "empty", value: None });
                let mut record = BaseRecord::<[u8], [u8]>::to(&name).partition(0).headers(headers);
                record.timestamp = Some(at.as_millis());
                record.key = key.as_deref();
                record.payload = value.as_deref();
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        producer.flush(Duration::from_secs(20)).unwrap();
    })
    .await
    .unwrap();
    let instance = Instance::start(&kafka, "one", 1);
    let mut letters = until("all dead letters", async || {
        let letters = read_all(&kafka, &DEAD_LETTERS);
        (letters.len() >= poisons.len()).then_some(letters)
    })
    .await;
    until("all neighbours", async || (read_all(&kafka, &SUMS).len() == poisons.len()).then_some(())).await;
    for (code, key, value) in poisons {
        let found = letters.iter().position(|letter| {
            letter.key() == key.as_deref()
                && letter.payload() == value.as_deref()
                && reason(letter).split(':').next() == Some(code)
        });
        let letter = letters.remove(found.unwrap_or_else(|| panic!("no dead letter for {code}")));
        assert_eq!(letter.timestamp().to_millis(), Some(at.as_millis()), "{code}");
        assert_eq!(header(&letter, "theirs"), Some(&[0xff, 0, 1][..]), "{code}");
        assert_eq!(header(&letter, "empty"), None, "{code}");
        assert_eq!(header(&letter, "trunkline-error-stage"), Some(&b"counting"[..]));
        assert_eq!(header(&letter, "trunkline-error-topic"), Some(topic.as_bytes()));
        assert_eq!(header(&letter, "trunkline-error-partition"), Some(&b"0"[..]));
        let time = String::from_utf8(header(&letter, "trunkline-error-time").unwrap().to_vec()).unwrap();
        time.parse::<Timestamp>().unwrap();
    }
    assert!(letters.is_empty(), "{} dead letters too many", letters.len());
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_go_to_their_topic_also_after_a_restart() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let at = now();
    let late = Timestamp::from_millis(at.as_millis() - 60_001);
    let in_time = Timestamp::from_millis(at.as_millis() - 60_000);
    let numbers = [number("a", at, 1), number("a", late, 2), number("a", in_time, 3)];
    for value in &numbers {
        kafka::produce(&kafka, &NUMBERS, None, &[("a", value)]).await;
    }
    let first = Instance::start(&kafka, "one", 1);
    until("two sums", async || (read_all(&kafka, &SUMS).len() == 2).then_some(())).await;
    first.stop().await;
    kafka::produce(&kafka, &NUMBERS, None, &[("a", &numbers[1])]).await;
    let second = Instance::start(&kafka, "one", 1);
    let events = until("two late events", async || {
        let events = read_all(&kafka, &LATE_EVENTS);
        (events.len() == 2).then_some(events)
    })
    .await;
    for event in &events {
        assert_eq!(event.payload(), Some(&numbers[1][..]));
        assert_eq!(reason(event), "late");
    }
    second.stop().await;
    assert_eq!(read_all(&kafka, &SUMS).len(), 2);
}

/// rdkafka panics when it is asked for a header whose name is not UTF-8, and cannot
/// send one, so these are sent with librdkafka's own call.
#[tokio::test(flavor = "multi_thread")]
async fn a_header_name_that_is_no_text_harms_nothing() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let (config, topic) = (client(&kafka), kafka.topic(&NUMBERS));
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        for value in [number("a", now(), 1), b"{broken".to_vec()] {
            send_with_header(&producer, &topic, c"n\xff\xfe", &value);
        }
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(5));
        }
    })
    .await
    .unwrap();
    let instance = Instance::start(&kafka, "one", 1);
    until("the sum", async || (read_all(&kafka, &SUMS).len() == 1).then_some(())).await;
    let letters = until("the dead letter", async || {
        let letters = read_all(&kafka, &DEAD_LETTERS);
        (letters.len() == 1).then_some(letters)
    })
    .await;
    assert_eq!(letters[0].payload(), Some(&b"{broken"[..]));
    assert_eq!(letters[0].headers().unwrap().count(), 8, "theirs and ours");
    instance.stop().await;
}

fn send_with_header(producer: &BaseProducer, topic: &str, name: &CStr, value: &[u8]) {
    use rdkafka_sys::rd_kafka_vtype_t as vtype;
    let topic = CString::new(topic).unwrap();
    // SAFETY: every argument has the type its tag demands, all pointers outlive the
    // call, and the value and header are copied by librdkafka.
    let error = unsafe {
        rdkafka_sys::rd_kafka_producev(
            producer.client().native_ptr(),
            vtype::RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            vtype::RD_KAFKA_VTYPE_MSGFLAGS,
            rdkafka_sys::RD_KAFKA_MSG_F_COPY,
            vtype::RD_KAFKA_VTYPE_KEY,
            c"a".as_ptr(),
            1_usize,
            vtype::RD_KAFKA_VTYPE_VALUE,
            value.as_ptr(),
            value.len(),
            vtype::RD_KAFKA_VTYPE_HEADER,
            name.as_ptr(),
            c"x".as_ptr(),
            1_isize,
            vtype::RD_KAFKA_VTYPE_END,
        )
    };
    assert_eq!(error, rdkafka_sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
}
