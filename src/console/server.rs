//! Accepts connections, within limits: a client that sends its request byte by byte
//! is cut off, sooner when its [seat](super::seats) is wanted, and shutdown does not wait for
//! idle ones.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::seats::{Busy, Seat, Seats};

/// Marks a request that came while all ordinary seats were taken: only what must be answered
/// however busy we are is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowded;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub connections: usize,
    /// Until a request's head is complete; also how long an idle connection is kept.
    pub head_timeout: Duration,
}

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1_024;
/// After shutdown requests in progress may take this long.
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let cut_off = CancellationToken::new();
    let seats = Seats::new(limits.connections);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        let (stream, seat) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, most likely: taking a breath beats spinning.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (router, shutdown, cut_off) = (router.clone(), shutdown.clone(), cut_off.clone());
        connections.spawn(async move {
            let seat = Arc::new(seat);
            tokio::select! {
                () = connection(stream, router, limits, Arc::clone(&seat), shutdown) => {}
                () = cut_off.cancelled() => {}
                () = seat.evicted.cancelled() => tracing::debug!("a connection without a request made room"),
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        cut_off.cancel();
        connections.wait().await;
    }
}

async fn accept(listener: &TcpListener, seats: &Seats) -> std::io::Result<(TcpStream, Seat)> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, seats.take().await))
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    seat: Arc<Seat>,
    shutdown: CancellationToken,
) {
    let answer = service_fn(|request: Request<Incoming>| {
        let busy = seat.begin();
        let router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            if !busy.may_ask_for_anything() {
                request.extensions_mut().insert(Crowded);
            }
            let response = router.oneshot(request).await?;
            Ok::<_, std::convert::Infallible>(response.map(|body| Sending { body, _busy: busy }))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// An answer's body; its connection is at work until the last of it is sent.
struct Sending {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
