//! What cannot be used is named, kept, and stops nothing.

use std::time::Instant;

use rdkafka::message::{Message, OwnedMessage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trunkline::topics::{CONVERSATION_EVENTS, DEAD_LETTERS};

use super::limits::chunked;
use super::support::kafka::{self, create_topics, read_all};
use super::{Running, TOPICS, envelope, header, problem, receipt, value};

/// Items that cannot be used, with the reasons they are refused for.
fn poisons() -> Vec<(Vec<u8>, &'static str)> {
    let with = |detail: &str| {
        format!(r#"{{"id":"p","detail-type":"ConversationEnded","detail":{detail}}}"#).into_bytes()
    };
    let nested = format!(r#"{{"conversationId":"c","x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let large = format!(r#"{{"conversationId":"c","x":"{}"}}"#, "x".repeat(300 * 1_024));
    let mut broken = with(r#"{"conversationId":"c?"}"#);
    let at = broken.iter().position(|byte| *byte == b'?').unwrap();
    broken[at] = 0xff;
    vec![
        (b"{\"id\":nonsense}".to_vec(), "bad_json"),
        (broken, "invalid_utf8"),
        (with(&nested), "too_deep"),
        (with(r#"{"conversationId":"c","x":1,"x":2}"#), "rejected: duplicate_key"),
        (with(r#"{"conversationId":"c","x":1e999}"#), "rejected: number_out_of_range"),
        (with(r#"{"conversationId":"c\u0000"}"#), "nul_character"),
        (with("{\"conversationId\":\"c\0\"}"), "nul_character"),
        (with(r#"{"conversationId":"c","x":"\udc00"}"#), "rejected: lone_surrogate"),
        (b"{\"order\":7}".to_vec(), "rejected: no_detail"),
        (b"null".to_vec(), "bad_json"),
        (with(r#"{"flowId":"f"}"#), "rejected: conversation_missing"),
        (with(&large), "too_large"),
        (with(r#"{"conversationId":"c","eventTime":4102444799999}"#), "from_the_future"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_of_every_kind_is_one_dead_letter_each_and_its_neighbours_go_through() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 2).await;
    let edge = Running::start(&kafka).await;
    let poisons = poisons();
    let mut body = b"[".to_vec();
    for (index, (poison, _)) in poisons.iter().enumerate() {
        body.extend_from_slice(envelope(&format!("good-{index}"), "c").to_string().as_bytes());
        body.push(b',');
        body.extend_from_slice(poison);
        body.extend_from_slice(if index + 1 == poisons.len() { b"]" } else { b"," });
    }
    let receipt = edge.take(body).await;
    assert_eq!(receipt["accepted"], poisons.len());
    let rejected = receipt["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), poisons.len(), "{receipt}");

    let letters = read_all(&kafka, &DEAD_LETTERS);
    assert_eq!(letters.len(), poisons.len());
    for (number, (poison, code)) in poisons.iter().enumerate() {
        let index = 2 * number + 1;
        let told = rejected.iter().find(|told| told["index"] == index).expect("told by index");
        let reason = told["reason"].as_str().unwrap();
        assert!(reason.starts_with(code), "{reason}, not {code}");
        let at = letters
            .iter()
            .filter(|letter| header(letter, "trunkline-error-offset") == Some(index.to_string()));
        let letters: Vec<_> = at.collect();
        assert_eq!(letters.len(), 1, "once, with its position: {code}");
        let letter = letters[0];
        assert_eq!(letter.payload(), Some(poison.as_slice()), "byte for byte");
        assert!(header(letter, "trunkline-error-reason").unwrap().starts_with(code));
        assert_eq!(header(letter, "trunkline-error-topic").as_deref(), Some("POST /v1/events"));
        assert_eq!(header(letter, "trunkline-error-stage").as_deref(), Some("ingest"));
        assert!(header(letter, "trunkline-error-time").is_some());
    }
    assert_eq!(read_all(&kafka, &CONVERSATION_EVENTS).len(), poisons.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_alone_is_kept_too() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let framed = b"\0\0\0\0\x01{}".to_vec();
    for (poison, code) in poisons().into_iter().chain([(framed, "schema_registry_framing")]) {
        let receipt = edge.take(poison).await;
        assert_eq!((&receipt["accepted"], &receipt["rejected"][0]["index"]), (&json!(0), &json!(0)));
        assert!(receipt["rejected"][0]["reason"].as_str().unwrap().starts_with(code), "{receipt}");
    }
    assert_eq!(read_all(&kafka, &DEAD_LETTERS).len(), poisons().len() + 1);
    assert!(read_all(&kafka, &CONVERSATION_EVENTS).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_of_a_list_is_set_aside_such_that_it_can_be_sent_again() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let body = r#"{"id":"l","detail-type":"ConversationEnded","detail":[{"conversationId":"a"},{"conversationId":""},{"conversationId":"b"}]}"#;
    let receipt = edge.take(body).await;
    let reason = receipt["rejected"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("rejected: empty: conversationId"), "{reason}");
    assert_eq!((&receipt["accepted"], &receipt["rejected"][0]["detailIndex"]), (&json!(2), &json!(1)));
    let letter = value(&read_all(&kafka, &DEAD_LETTERS)[0]);
    assert_eq!(
        letter,
        json!({"id": "l", "detail-type": "ConversationEnded", "detail": {"conversationId": ""}})
    );
    // Mended and sent again.
    let mended = letter.to_string().replace("\"\"", "\"c\"");
    assert_eq!(edge.take(mended).await["accepted"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_cloud_event_keeps_its_attributes() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let request = edge.post("application/json").header("ce-specversion", "1.0").header("ce-id", "x");
    let answer = request.header("ce-type", "a.b").body("{\"broken\"").send().await.unwrap();
    assert_eq!(receipt(answer).await["rejected"][0]["index"], 0);
    let letters = read_all(&kafka, &DEAD_LETTERS);
    assert_eq!(header(&letters[0], "ce_id").as_deref(), Some("x"));
    assert_eq!(header(&letters[0], "ce_type").as_deref(), Some("a.b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_are_refused_whole_and_leave_a_dead_letter_without_a_value() {
    const LIMIT: usize = 1_048_576;
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let mut event = envelope("large", "c");
    event["detail"]["padding"] = json!("x".repeat(10 * LIMIT));
    let body = event.to_string();
    let sent = edge.post("application/json").header("user-agent", "a sender/1.0").body(body.clone());
    problem(sent.send().await.unwrap(), 413, "body-too-large").await;
    // How much is coming need not be announced.
    let chunks = body.as_bytes().chunks(100_000).map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!(chunked(&edge, &chunks, true).await, 413);
    assert_eq!(edge.take(envelope("e", "c").to_string()).await["accepted"], 1);

    let letters = read_all(&kafka, &DEAD_LETTERS);
    assert_eq!(letters.len(), 2, "one for each request");
    let digest: String =
        Sha256::digest(&body.as_bytes()[..LIMIT]).iter().map(|byte| format!("{byte:02x}")).collect();
    for (letter, bytes, agent) in
        [(&letters[0], body.len(), Some("a sender/1.0")), (&letters[1], LIMIT + 1, None)]
    {
        assert_eq!((letter.payload(), letter.key()), (None, None));
        let header = |name: &str| header(letter, name);
        let reason = format!("too_large: {bytes} bytes, the limit is {LIMIT}");
        assert_eq!(header("trunkline-error-reason"), Some(reason));
        assert_eq!(header("trunkline-error-topic").as_deref(), Some("POST /v1/events"));
        assert_eq!(header("trunkline-error-offset").as_deref(), Some("0"));
        assert_eq!(header("trunkline-error-stage").as_deref(), Some("ingest"));
        assert_eq!(header("trunkline-body-read-bytes"), Some(LIMIT.to_string()));
        assert_eq!(header("trunkline-body-read-sha256").as_ref(), Some(&digest));
        assert_eq!(header("user-agent").as_deref(), agent);
    }
    assert_eq!(read_all(&kafka, &CONVERSATION_EVENTS).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_large_bodies_is_refused_and_floods_nothing() {
    const REQUESTS: usize = 200;
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    // The brokers are found before the clock runs.
    edge.take(envelope("e", "c").to_string()).await;
    let began = Instant::now();
    for _ in 0..REQUESTS {
        problem(edge.send(vec![b' '; 1_048_577]).await, 413, "body-too-large").await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let kept = read_all(&kafka, &DEAD_LETTERS).len();
    let most = 10.0 * (seconds + 1.0);
    assert!(kept > 0 && kept as f64 <= most, "{kept} dead letters in {seconds:.1} s");
    assert!(kept < REQUESTS, "this machine was too slow for a flood: {seconds:.1} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_other_kinds_are_refused_whole() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    problem(edge.send("").await, 400, "bad-body").await;
    let form = edge.post("application/x-www-form-urlencoded").body("a=1").send().await.unwrap();
    problem(form, 415, "unsupported-media-type").await;
    let large = edge.post("application/x-www-form-urlencoded").body(vec![b'a'; 2 * 1_024 * 1_024]);
    problem(large.send().await.unwrap(), 415, "unsupported-media-type").await;
    let zipped =
        edge.post("application/json").header("content-encoding", "zstd").body("x").send().await.unwrap();
    problem(zipped, 415, "unsupported-media-type").await;
    assert!(read_all(&kafka, &DEAD_LETTERS).is_empty());
    assert_eq!(edge.take(envelope("e", "c").to_string()).await["accepted"], 1);
}

/// Brokers that take smaller records than our topic says.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_brokers_refuse_is_rejected_alone() {
    for letters_are_refused in [false, true] {
        let kafka = kafka::settings();
        kafka::create_small_topic(&kafka, &CONVERSATION_EVENTS, "2048").await;
        match letters_are_refused {
            true => kafka::create_small_topic(&kafka, &DEAD_LETTERS, "1024").await,
            false => kafka::create_topics(&kafka, &[&DEAD_LETTERS], 1).await,
        }
        let edge = Running::start(&kafka).await;
        let mut events: Vec<Value> = (0..4).map(|n| envelope(&format!("e{n}"), &format!("c{n}"))).collect();
        events[2]["detail"]["eventBody"]["exitReason"] = json!(kafka::incompressible(3_000));
        events[3]["detail"] = json!("no event");
        let told = edge.take(json!(events).to_string()).await;
        assert_eq!(told["accepted"], 2, "{told}");
        let places: Vec<_> = told["rejected"].as_array().unwrap().iter().map(|item| &item["index"]).collect();
        assert_eq!(places, [2, 3]);
        let reason = told["rejected"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with("refused_by_broker: "), "{reason}");
        // One beside it may be there twice: it is counted once.
        let there: std::collections::BTreeSet<_> = kafka::read_all(&kafka, &CONVERSATION_EVENTS)
            .iter()
            .map(|event| String::from_utf8(event.key().unwrap().to_vec()).unwrap())
            .collect();
        assert_eq!(there.into_iter().collect::<Vec<_>>(), ["c0", "c1"]);
        let letters = kafka::read_all(&kafka, &DEAD_LETTERS);
        let of_it = |letter: &&OwnedMessage| header(letter, "trunkline-error-offset").as_deref() == Some("2");
        let letter = letters.iter().find(of_it).expect("its dead letter");
        assert_eq!(letter.payload().is_some(), !letters_are_refused);
        assert!(edge.health.reasons().is_empty(), "{:?}", edge.health.reasons());
    }
}
