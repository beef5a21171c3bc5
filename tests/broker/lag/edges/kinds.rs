//! Groups of the newer protocols, made by their own requests on a broker that knows them.

use super::*;
use crate::support::services::Services;

/// Kafka 4.1 has both before they are meant for everybody.
const NEWER_PROTOCOLS: &str = "unstable.api.versions.enable=true
unstable.feature.versions.enable=true
group.coordinator.rebalance.protocols=classic,consumer,share,streams";

/// Kafka's flexible wire format, as much of it as is needed here.
fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8 + 1][..], text.as_bytes()].concat()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [&[items.len() as u8 + 1][..], &items.concat()].concat()
}

const NOTHING: [u8; 1] = [0];
const NONE: [u8; 1] = [1];

/// What the broker says behind correlation, tagged fields and throttling: an error's number first.
fn ask(brokers: &str, key: i16, version: i16, body: &[Vec<u8>]) -> i16 {
    let header = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 1, 0, 1, b't', 0]].concat();
    let request = [header, body.concat()].concat();
    let mut stream = TcpStream::connect(brokers).expect("a connection");
    stream.write_all(&(request.len() as i32).to_be_bytes()).expect("is sent");
    stream.write_all(&request).expect("is sent");
    let mut reply = [0; 15];
    stream.read_exact(&mut reply).expect("an answer");
    i16::from_be_bytes([reply[13], reply[14]])
}

fn enable(brokers: &str, feature: &str) {
    let update = [text(feature), vec![0, 1, 1, 0]].concat();
    let body = [10_000i32.to_be_bytes().to_vec(), list(&[update]), vec![0, 0]];
    assert_eq!(ask(brokers, 57, 1, &body), 0, "{feature}");
}

/// Until the coordinator has been found and has loaded.
async fn joins(brokers: &str, key: i16, version: i16, body: &[Vec<u8>]) {
    within(PATIENCE, "the group to be joined", || async {
        tokio::task::block_in_place(|| ask(brokers, key, version, body) == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn share_and_streams_groups_are_listed_with_the_type_the_brokers_give() {
    let services = tokio::task::spawn_blocking(|| Services::start_with(NEWER_PROTOCOLS)).await.unwrap();
    let kafka = KafkaSettings { brokers: services.kafka.clone(), ..kafka::settings() };
    create(&kafka, &["named"], 1).await;
    let topic = topic_of(&kafka, "named");
    send(&producer(&kafka), &topic, 0, 5);
    // A commit makes the topic of groups' offsets, which the newer requests do not.
    commit(&kafka, "plain", &topic, &[(0, 5)]);
    let brokers = kafka.brokers.clone();
    ["share.version", "streams.version"].iter().for_each(|feature| enable(&brokers, feature));
    let group = |name: &str| text(&format!("{}{name}", kafka.topic_prefix));
    let member = || text(&uuid::Uuid::new_v4().simple().to_string());
    let start = 0i32.to_be_bytes().to_vec();
    // ShareGroupHeartbeat: group, member, epoch, rack, topics.
    let share =
        [group("shared"), member(), start.clone(), NOTHING.to_vec(), list(&[text(&topic)]), NOTHING.to_vec()];
    joins(&brokers, 76, 1, &share).await;
    // StreamsGroupHeartbeat with a topology of one subtopology that reads the topic.
    let none = || NONE.to_vec();
    let subtopology =
        [text("0"), list(&[text(&topic)]), none(), none(), none(), none(), none(), NOTHING.to_vec()].concat();
    let topology = [vec![1], start.clone(), list(&[subtopology]), NOTHING.to_vec()].concat();
    let streams = [
        group("streaming"),
        member(),
        start.clone(),
        start,
        NOTHING.to_vec(),
        NOTHING.to_vec(),
        60_000i32.to_be_bytes().to_vec(),
        topology,
        [none(), none(), none()].concat(),
        text("p"),
        // No endpoint, no tags of the client, no offsets of tasks, no shutdown.
        vec![0xff, 1, 0, 0, 0, 0],
    ];
    joins(&brokers, 88, 0, &streams).await;
    let watch = Watch::start(&kafka, own_groups(&kafka), vec![]).await;
    for (name, kind, told) in
        [("shared", GroupType::Share, "a share group"), ("streaming", GroupType::Streams, "a streams group")]
    {
        let seen = watch.until(name, LagStatus::Unknown).await;
        assert_eq!(
            (seen.group_type, seen.reasons[0].rule.as_str()),
            (Some(kind), "kind_not_judged"),
            "{seen:?}"
        );
        assert_eq!(seen.reasons[0].example.as_deref(), Some(told));
    }
    assert_eq!(watch.until("plain", LagStatus::Ok).await.group_type, Some(GroupType::Classic));
    watch.stop().await;
}
