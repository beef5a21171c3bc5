//! HTTP load as event senders make it: keep-alive connections, one request after the other on each.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes in a number that is written over for every event.
pub(crate) const DIGITS: usize = 12;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub connections: usize,
    /// Events in one request.
    pub batch: usize,
    /// Events altogether.
    pub events: usize,
}

/// What came of it.
pub(crate) struct Sent {
    pub events: usize,
    pub took: Duration,
    /// Of each request, sorted.
    pub latencies: Vec<Duration>,
}

/// Sends everything and waits for the receipts.
pub(crate) fn send(address: &str, load: Load) -> Sent {
    let begun = Instant::now();
    let requests = load.events.div_ceil(load.batch * load.connections);
    let connections: Vec<_> = (0..load.connections)
        .map(|connection| {
            let address = address.to_owned();
            std::thread::spawn(move || one_connection(&address, connection, load.batch, requests))
        })
        .collect();
    let mut latencies: Vec<Duration> =
        connections.into_iter().flat_map(|connection| connection.join().expect("a connection")).collect();
    let took = begun.elapsed();
    latencies.sort();
    Sent { events: latencies.len() * load.batch, took, latencies }
}

fn one_connection(address: &str, connection: usize, batch: usize, requests: usize) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).expect("the edge listens");
    stream.set_nodelay(true).expect("a socket option");
    let (mut request, places) = request(address, batch);
    let wanted = format!("\"accepted\":{batch},\"duplicates\":0,\"rejected\":[]");
    let mut reply = Vec::new();
    (0..requests)
        .map(|number| {
            for (event, places) in places.iter().enumerate() {
                let id = format!("{:0DIGITS$}", (connection * requests + number) * batch + event);
                places.iter().for_each(|at| request[*at..*at + DIGITS].copy_from_slice(id.as_bytes()));
            }
            let begun = Instant::now();
            stream.write_all(&request).expect("the edge reads");
            read_reply(&mut stream, &mut reply);
            let took = begun.elapsed();
            let text = String::from_utf8_lossy(&reply);
            assert!(text.starts_with("HTTP/1.1 200 ") && text.contains(&wanted), "{text}");
            took
        })
        .collect()
}

/// A request and, for each of its events, where its number stands.
fn request(address: &str, batch: usize) -> (Vec<u8>, Vec<Vec<usize>>) {
    let mark = "#".repeat(DIGITS);
    let conversation = format!("9f0a7c1e-2b5d-4c3e-8f6a-{mark}");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    let envelope = format!(
        "{{\"version\":\"0\",\"id\":\"0b9c7d1e-51a2-4c11-9d0f-{mark}\",\
         \"detail-type\":\"v2.detail.events.conversation.{{id}}.flow.end\",\
         \"source\":\"aws.partner/genesys.com/cloud/0d9b3c4e-1111-4222-8333-444455556666/events\",\
         \"account\":\"123456789012\",\"time\":\"2026-01-02T03:04:05Z\",\"region\":\"us-east-1\",\"resources\":[],\
         \"detail\":{{\"topicName\":\"v2.detail.events.conversation.{conversation}.flow.end\",\"version\":\"2\",\
         \"eventBody\":{{\"eventTime\":{now},\"conversationId\":\"{conversation}\",\
         \"flowId\":\"3c5e7a90-1b2d-4e6f-8a0c-2d4f6b8e0a1c\",\"flowVersion\":\"12.0\",\"exitReason\":\"TRANSFER\",\
         \"mediaType\":\"VOICE\",\"direction\":\"INBOUND\"}},\"metadata\":{{\"CorrelationId\":\"f2a1\"}}}}}}"
    );
    let body = match batch {
        1 => envelope,
        _ => format!("[{}]", vec![envelope; batch].join(",")),
    };
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = format!("{head}{body}");
    let all: Vec<usize> = request.match_indices(&mark).map(|(at, _)| at).collect();
    let places = all.chunks(all.len() / batch).map(<[usize]>::to_vec).collect();
    (request.into_bytes(), places)
}

fn read_reply(stream: &mut TcpStream, reply: &mut Vec<u8>) {
    reply.clear();
    let mut buffer = [0; 4_096];
    loop {
        let read = stream.read(&mut buffer).expect("a reply");
        assert!(read > 0, "the edge hung up");
        reply.extend_from_slice(&buffer[..read]);
        let Some(head) = reply.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&reply[..head]).to_ascii_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if length.is_some_and(|length| reply.len() >= head + 4 + length) {
            return;
        }
    }
}
