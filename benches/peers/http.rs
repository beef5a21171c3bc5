//! One request, as plain as can be.

use std::io::{Read, Write};
use std::net::TcpStream;

/// The status that `GET path` is answered with, once all of the answer has come; `None` where nobody answers.
pub(crate) fn get(address: &str, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8_lossy(answer.get(..16)?).split(' ').nth(1)?.parse().ok()
}
