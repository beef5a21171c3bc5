//! Types of groups, asked for on the wire: librdkafka 2.12 drops them from the brokers' answers
//! for share and streams groups. One request, `ListGroups` version 5 (Kafka 3.8 and later), and
//! over plain connections alone.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longest reply that is read, in bytes.
const MOST_BYTES: usize = 64 * 1_024 * 1_024;
const LIST_GROUPS: i16 = 16;
const VERSION: i16 = 5;

/// Names of the groups that one broker coordinates, with their types in its words.
///
/// # Errors
/// When it does not answer before the deadline, in a form for people.
pub(super) fn of_broker(host: &str, port: u16, deadline: Instant) -> Result<Vec<(String, String)>, String> {
    let reply = ask(host, port, deadline).map_err(|error| error.to_string())?;
    read(&reply).ok_or_else(|| "its reply is none to the question".to_owned())?
}

fn ask(host: &str, port: u16, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    let mut connected = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left()) {
            Ok(stream) => {
                connected = Some(stream);
                break;
            }
            Err(error) => last = error,
        }
    }
    let Some(mut stream) = connected else { return Err(last) };
    stream.set_write_timeout(Some(left()))?;
    stream.write_all(&request())?;
    stream.set_read_timeout(Some(left()))?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
    if size > MOST_BYTES {
        return Err(std::io::Error::other(format!("a reply of {size} bytes")));
    }
    let mut reply = vec![0; size];
    let mut filled = 0;
    while filled < size {
        stream.set_read_timeout(Some(left()))?;
        match stream.read(&mut reply[filled..])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => filled += more,
        }
        if Instant::now() >= deadline && filled < size {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
    Ok(reply)
}

/// Header version 2: key, version, correlation, client id, no tagged fields. Then no filter of
/// states and none of types.
fn request() -> Vec<u8> {
    const CLIENT: &[u8] = b"trunkline-groups";
    let mut body = Vec::new();
    body.extend(LIST_GROUPS.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend((CLIENT.len() as i16).to_be_bytes());
    body.extend(CLIENT);
    // Tagged fields of the header; two empty lists; tagged fields.
    body.extend([0, 1, 1, 0]);
    let mut framed = (body.len() as u32).to_be_bytes().to_vec();
    framed.append(&mut body);
    framed
}

/// `None` where it is no reply of this version.
fn read(reply: &[u8]) -> Option<Result<Vec<(String, String)>, String>> {
    let mut rest = Rest(reply);
    // Correlation, tagged fields, throttling.
    rest.take(4)?;
    rest.tags()?;
    rest.take(4)?;
    let error = i16::from_be_bytes(rest.take(2)?.try_into().ok()?);
    if error != 0 {
        return Some(Err(format!("error {error} of Kafka's protocol")));
    }
    let count = rest.varint()?.checked_sub(1)?;
    let mut groups = Vec::new();
    for _ in 0..count {
        let name = rest.text()?;
        // Protocol and state.
        rest.text()?;
        rest.text()?;
        groups.push((name, rest.text()?));
        rest.tags()?;
    }
    Some(Ok(groups))
}

/// What is left to be read.
struct Rest<'r>(&'r [u8]);

impl<'r> Rest<'r> {
    fn take(&mut self, bytes: usize) -> Option<&'r [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0usize;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn text(&mut self) -> Option<String> {
        let length = self.varint()?.checked_sub(1)?;
        Some(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Kafka 4.1.1 answered, with a streams and a share group.
    const REPLY: &[u8] = b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03\
        \x03st\x08streams\x09NotReady\x08streams\x00\x03sh\x06share\x07Stable\x06share\x00\x00";

    #[test]
    fn a_reply_is_read_and_any_part_of_one_refused() {
        let groups = read(REPLY).unwrap().unwrap();
        let pair = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        assert_eq!(groups, [pair("st", "streams"), pair("sh", "share")]);
        for length in 0..REPLY.len() - 1 {
            assert!(read(&REPLY[..length]).is_none(), "{length}");
        }
        let mut refused = REPLY.to_vec();
        refused[10] = 16;
        assert!(read(&refused).unwrap().unwrap_err().contains("16"));
        assert!(read(&[0xff; 64]).is_none());
    }
}
