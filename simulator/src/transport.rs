//! Turns a reply into what travels: whole, cut short, dripping, or endless.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use flate2::{Compress, Compression, Crc, FlushCompress};
use http_body::Frame;
use tokio::time::Sleep;

use crate::exchange::Transport;
use crate::reply::Reply;

/// Marks a response that is not to be sent: its connection is closed instead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped;

/// Spaces sent at once, and spaces in one part of a bomb.
const CHUNK_BYTES: usize = 64 * 1024;
const PART_BYTES: usize = 1 << 20;
/// Time for the first half of a truncated body to leave before the connection is closed.
const FLUSH: Duration = Duration::from_millis(20);

/// The response for the connection to write.
pub(crate) fn response(reply: Reply, transport: Transport) -> Response {
    let bytes = Bytes::from(reply.body.unwrap_or_default());
    let whole_length = bytes.len();
    let body = match transport {
        Transport::Whole => Body::from(bytes),
        Transport::Dropped => Body::empty(),
        Transport::Truncated => Body::new(FaultyBody {
            first: Some(bytes.slice(..whole_length / 2)),
            tail: Tail::Cut,
            pause: None,
        }),
        Transport::Slow { bytes_per_second } => {
            Body::new(FaultyBody { first: None, tail: Tail::Drip { bytes, bytes_per_second }, pause: None })
        }
        Transport::Huge { bytes: total } => {
            let chunk = Bytes::from_static(&[b' '; CHUNK_BYTES]);
            let left = total.saturating_sub(whole_length as u64);
            Body::new(FaultyBody {
                first: Some(bytes),
                tail: Tail::Repeat { chunk, left, last: None },
                pause: None,
            })
        }
        Transport::GzipBomb { bytes: total } => {
            let spaces = total.saturating_sub(whole_length as u64);
            Body::new(gzip_bomb(&bytes, spaces.div_ceil(PART_BYTES as u64)))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value);
    }
    match transport {
        Transport::Truncated | Transport::Slow { .. } => {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(whole_length));
        }
        Transport::Dropped => drop(response.extensions_mut().insert(Dropped)),
        Transport::GzipBomb { .. } => {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Transport::Whole | Transport::Huge { .. } => {}
    }
    response
}

/// A gzip member that holds `first` and then `chunks` times a MiB of spaces. Each part ends
/// on a byte and refers to nothing before it (a full flush), so the same one can be repeated.
fn gzip_bomb(first: &[u8], chunks: u64) -> FaultyBody {
    let spaces = vec![b' '; PART_BYTES];
    let mut head = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    head.extend(deflate(first));
    let chunk = Bytes::from(deflate(&spaces));

    let (mut checksum, mut of_chunk) = (Crc::new(), Crc::new());
    checksum.update(first);
    of_chunk.update(&spaces);
    (0..chunks).for_each(|_| checksum.combine(&of_chunk));
    let mut last = vec![3, 0];
    last.extend(checksum.sum().to_le_bytes());
    last.extend(checksum.amount().to_le_bytes());

    let left = chunks * chunk.len() as u64;
    FaultyBody {
        first: Some(head.into()),
        tail: Tail::Repeat { chunk, left, last: Some(last.into()) },
        pause: None,
    }
}

/// Raw deflate blocks (RFC 1951), none of them the last.
fn deflate(bytes: &[u8]) -> Vec<u8> {
    // Longer than what came in only by a few bytes per block, if at all.
    let mut packed = Vec::with_capacity(bytes.len() + bytes.len() / 100 + 64);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(bytes, &mut packed, FlushCompress::Full).expect("no state to be wrong yet");
    packed
}

/// A body that does not behave.
struct FaultyBody {
    first: Option<Bytes>,
    tail: Tail,
    pause: Option<Pin<Box<Sleep>>>,
}

enum Tail {
    /// An error, which closes the connection.
    Cut,
    Drip {
        bytes: Bytes,
        bytes_per_second: u32,
    },
    /// The chunk over and over until so many bytes are sent, then the last ones.
    Repeat {
        chunk: Bytes,
        left: u64,
        last: Option<Bytes>,
    },
}

/// The fault asked for the body to break off.
#[derive(Debug, thiserror::Error)]
#[error("the body breaks off here, as the fault rule asks")]
struct BrokenOff;

impl http_body::Body for FaultyBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        if let Some(first) = self.first.take() {
            if matches!(self.tail, Tail::Cut) {
                self.pause = Some(Box::pin(tokio::time::sleep(FLUSH)));
            }
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let (chunk, pause) = match &mut self.tail {
            Tail::Cut => return Poll::Ready(Some(Err(BrokenOff))),
            Tail::Drip { bytes, .. } if bytes.is_empty() => return Poll::Ready(None),
            Tail::Drip { bytes, bytes_per_second } => {
                let interval = Duration::from_secs_f64(1.0 / f64::from(*bytes_per_second));
                (bytes.split_to(1), Some(interval))
            }
            Tail::Repeat { left: 0, last, .. } => {
                return Poll::Ready(last.take().map(|last| Ok(Frame::data(last))));
            }
            Tail::Repeat { chunk, left, .. } => {
                let length = (*left).min(chunk.len() as u64);
                *left -= length;
                (chunk.slice(..length as usize), None)
            }
        };
        self.pause = pause.map(|pause| Box::pin(tokio::time::sleep(pause)));
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}
