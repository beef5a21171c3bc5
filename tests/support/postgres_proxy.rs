//! A proxy before Postgres that loses the reply to a COMMIT, or the COMMIT itself, makes
//! commits slow, and can be away altogether, or stand still with all connections open.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt as _;

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    None,
    /// The next COMMIT reaches the server; its reply is lost with the connection.
    LoseNextReply,
    /// The next COMMIT is lost with the connection.
    LoseNextCommit,
}

/// Runs until it is dropped.
pub(crate) struct PostgresProxy {
    port: u16,
    fault: Arc<AtomicU8>,
    done: Arc<AtomicUsize>,
    away: watch::Sender<bool>,
    stalled: watch::Sender<bool>,
    slow: watch::Sender<Option<Range<u64>>>,
    slow_replies: watch::Sender<Option<Range<u64>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for PostgresProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl PostgresProxy {
    pub(crate) async fn before(server: &PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let upstream = (server.get_host().to_owned(), server.get_port());
        let (fault, done) = (Arc::new(AtomicU8::new(Fault::None as u8)), Arc::new(AtomicUsize::new(0)));
        let (away, is_away) = watch::channel(false);
        let (stalled, is_stalled) = watch::channel(false);
        let (slow, is_slow) = watch::channel(None);
        let (slow_replies, are_slow) = watch::channel(None);
        let accepting = tokio::spawn({
            let (fault, done) = (Arc::clone(&fault), Arc::clone(&done));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if *is_away.borrow() {
                        continue;
                    }
                    let Ok(server) = TcpStream::connect(&upstream).await else { continue };
                    let (fault, done, mut is_away) = (Arc::clone(&fault), Arc::clone(&done), is_away.clone());
                    let is_stalled = is_stalled.clone();
                    let is_slow = (is_slow.clone(), are_slow.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = pass(client, server, fault, done, is_stalled, is_slow) => {}
                            _ = is_away.wait_for(|away| *away) => {}
                        }
                    });
                }
            }
        });
        Self { port, fault, done, away, stalled, slow, slow_replies, accepting }
    }

    /// The same database through the proxy.
    pub(crate) fn through(&self, options: PgConnectOptions) -> PgConnectOptions {
        options.host("127.0.0.1").port(self.port)
    }

    /// Prepares a fault for the next COMMIT on any connection.
    pub(crate) fn prepare(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// Faults that have happened.
    pub(crate) fn happened(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Passes nothing on while connections stay open, or goes on where it stopped.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// Each commit takes so many milliseconds more from now on; `None`: none.
    pub(crate) fn set_slow_commits(&self, milliseconds: Option<Range<u64>>) {
        self.slow.send_replace(milliseconds);
    }

    /// Every reply takes so many milliseconds more from now on; `None`: none.
    pub(crate) fn set_slow_replies(&self, milliseconds: Option<Range<u64>>) {
        self.slow_replies.send_replace(milliseconds);
    }

    /// Cuts every connection and takes no new ones, or takes them again.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.send_replace(away);
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    fault: Arc<AtomicU8>,
    done: Arc<AtomicUsize>,
    mut stalled: watch::Receiver<bool>,
    (slow_commits, slow_replies): (watch::Receiver<Slowness>, watch::Receiver<Slowness>),
) {
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                if stalled.wait_for(|stalled| !stalled).await.is_err() {
                    return;
                }
                let bytes = &from_client[..count];
                let is_commit = bytes.windows(7).any(|window| window == b"COMMIT\0");
                if is_commit {
                    take_time(&slow_commits).await;
                }
                let planned = if is_commit { fault.swap(Fault::None as u8, Ordering::SeqCst) } else { 0 };
                if planned == Fault::LoseNextCommit as u8 {
                    done.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
                if planned == Fault::LoseNextReply as u8 {
                    // The reply shows that it is committed; nobody will hear of it.
                    let _ = server.read(&mut from_server).await;
                    done.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                if stalled.wait_for(|stalled| !stalled).await.is_err() {
                    return;
                }
                let bytes = &from_server[..count];
                take_time(&slow_replies).await;
                if commits_by_itself(bytes) {
                    take_time(&slow_commits).await;
                }
                if client.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Milliseconds, where any.
type Slowness = Option<Range<u64>>;

async fn take_time(slowness: &watch::Receiver<Slowness>) {
    let milliseconds = slowness.borrow().clone().map(|range| rand::rng().random_range(range));
    if let Some(milliseconds) = milliseconds {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

/// Whether this ends a statement that was a transaction of its own and wrote rows.
fn commits_by_itself(reply: &[u8]) -> bool {
    let wrote = |tag: &[u8]| reply.windows(tag.len()).any(|window| window == tag);
    let nothing = wrote(b"INSERT 0 0\0") || wrote(b"UPDATE 0\0") || wrote(b"DELETE 0\0");
    reply.ends_with(b"Z\0\0\0\x05I")
        && !nothing
        && (wrote(b"INSERT 0 ") || wrote(b"UPDATE ") || wrote(b"DELETE "))
}
