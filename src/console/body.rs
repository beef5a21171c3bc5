//! Reads requests' bodies as far as they may go.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::Body as _;

/// A request's body.
pub(super) enum Read {
    Whole(Bytes),
    /// Its first bytes, as many as are allowed; more followed.
    TooLarge(Bytes),
}

/// Reads a body of `limit` bytes at most.
///
/// # Errors
/// When it breaks off.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Read, axum::Error> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
    let mut read = Vec::with_capacity(announced.min(limit));
    while let Some(data) = next(&mut body).await {
        let data = data?;
        let left = limit - read.len();
        if data.len() > left {
            read.extend_from_slice(&data[..left]);
            pass_over(body).await;
            return Ok(Read::TooLarge(read.into()));
        }
        read.extend_from_slice(&data);
    }
    Ok(Read::Whole(read.into()))
}

/// Reads what is refused, up to a bound: whoever is still sending would find the
/// connection closed instead of an answer.
pub(super) async fn pass_over(mut body: Body) {
    const MOST_BYTES: usize = 16 * 1_024 * 1_024;
    const LONGEST: Duration = Duration::from_secs(2);
    let reading = async {
        let mut left = MOST_BYTES;
        while let Some(Ok(data)) = next(&mut body).await {
            left = left.saturating_sub(data.len());
            if left == 0 {
                return;
            }
        }
    };
    // However it ends, the answer is the same.
    let _ = tokio::time::timeout(LONGEST, reading).await;
}

/// The next piece of a body; trailers are none.
async fn next(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}
