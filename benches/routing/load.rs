//! Requests over connections that are kept open, one at a time on each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What the load saw.
pub(crate) struct Measured {
    /// Sorted.
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
    pub not_exact: usize,
}

/// Asks about a new conversation with every request.
pub(crate) async fn run(
    address: SocketAddr,
    configuration: &str,
    prefix: &'static str,
    connections: usize,
    length: Duration,
) -> Measured {
    let begun = Instant::now();
    let end = begun + length;
    let mut clients = JoinSet::new();
    for client in 0..connections {
        let path = format!("/v1/routes/{configuration}/decisions");
        clients.spawn(async move { ask(address, path, prefix, client, end).await });
    }
    let mut measured = Measured { latencies: Vec::new(), elapsed: Duration::ZERO, not_exact: 0 };
    while let Some(joined) = clients.join_next().await {
        let (latencies, not_exact) = joined.expect("a client");
        measured.latencies.extend(latencies);
        measured.not_exact += not_exact;
    }
    measured.elapsed = begun.elapsed();
    measured.latencies.sort_unstable();
    measured
}

async fn ask(
    address: SocketAddr,
    path: String,
    prefix: &str,
    client: usize,
    end: Instant,
) -> (Vec<Duration>, usize) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("a socket");
    let (mut latencies, mut not_exact) = (Vec::new(), 0);
    let mut reply = Vec::with_capacity(4_096);
    for number in 0u64.. {
        if Instant::now() >= end {
            break;
        }
        let body = format!("{{\"conversationId\":\"{prefix}-{client:08}-0000-4000-8000-{number:012}\"}}");
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let asked_at = Instant::now();
        stream.write_all(request.as_bytes()).await.expect("sent");
        read_reply(&mut stream, &mut reply).await;
        latencies.push(asked_at.elapsed());
        assert!(reply.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply));
        let is_exact = reply.windows(16).any(|window| window == b"\"source\":\"exact\"");
        not_exact += usize::from(!is_exact);
    }
    (latencies, not_exact)
}

/// One reply with a content length.
async fn read_reply(stream: &mut TcpStream, reply: &mut Vec<u8>) {
    reply.clear();
    loop {
        let read = stream.read_buf(reply).await.expect("read");
        assert!(read > 0, "the server hung up");
        let Some(head) = reply.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&reply[..head]).expect("a head");
        let length = text
            .lines()
            .find_map(|line| {
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            })
            .expect("a length");
        let length: usize = length.1.trim().parse().expect("a number");
        if reply.len() >= head + 4 + length {
            return;
        }
    }
}
