//! A proxy before the broker that can take one request off the wire and deliver it
//! later, as a network may.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex as Waiting, MutexGuard, mpsc, oneshot, watch};

use super::within;

/// The request that ends a transaction (Kafka protocol, API key 26).
pub(crate) const END_TXN: i16 = 26;

/// The broker advertises one address for proxies: one of them at a time.
static ONLY_ONE: Waiting<()> = Waiting::const_new(());

/// Runs until it is dropped.
pub(crate) struct Proxy {
    /// What clients are to connect to; the broker advertises the same address to them.
    pub address: String,
    traps: Arc<Mutex<Option<Trap>>>,
    accepting: tokio::task::JoinHandle<()>,
    away: watch::Sender<bool>,
    delay: watch::Sender<Duration>,
    _only: MutexGuard<'static, ()>,
}

struct Trap {
    api_key: i16,
    caught: oneshot::Sender<Held>,
}

/// A request that was taken off the wire. Its client's connection is dead; the one
/// to the broker lives.
pub(crate) struct Held {
    deliver: oneshot::Sender<()>,
    reply: mpsc::Receiver<Vec<u8>>,
}

impl Held {
    /// Delivers the request and answers the broker's reply.
    pub(crate) async fn deliver(mut self) -> Vec<u8> {
        self.deliver.send(()).expect("the connection to the broker is kept");
        self.reply.recv().await.expect("the broker replies")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// Listens where the broker's second listener says it is.
    pub(crate) async fn start() -> Self {
        let variable =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"));
        let address = variable("TRUNKLINE_TEST_KAFKA_PROXY");
        let upstream = variable("TRUNKLINE_TEST_KAFKA_PROXY_UPSTREAM");
        let only = ONLY_ONE.lock().await;
        // The runtime of the one before may not have let it go yet.
        let listener = within(Duration::from_secs(10), "the proxy's port to be free", async || {
            TcpListener::bind(&address).await.ok()
        })
        .await;
        let traps = Arc::new(Mutex::new(None));
        let (away, gone) = watch::channel(false);
        let (delay, delayed) = watch::channel(Duration::ZERO);
        let accepting = tokio::spawn({
            let traps = Arc::clone(&traps);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if *gone.borrow() {
                        continue;
                    }
                    let Ok(broker) = TcpStream::connect(&upstream).await else { continue };
                    tokio::spawn(connection(
                        client,
                        broker,
                        Arc::clone(&traps),
                        gone.clone(),
                        delayed.clone(),
                    ));
                }
            }
        });
        Self { address, traps, accepting, away, delay, _only: only }
    }

    /// Cuts every connection and takes no new ones, or takes them again. A request that
    /// was taken off the wire keeps its connection to the broker.
    pub(crate) fn set_away(&self, away: bool) {
        self.away.send_replace(away);
    }

    /// Holds every reply back for so long, as a host under load does.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.delay.send_replace(delay);
    }

    /// Takes the next request of this kind off the wire and kills its connection.
    pub(crate) fn catch_next(&self, api_key: i16) -> oneshot::Receiver<Held> {
        let (caught, receiver) = oneshot::channel();
        *self.traps.lock().unwrap() = Some(Trap { api_key, caught });
        receiver
    }
}

async fn connection(
    client: TcpStream,
    broker: TcpStream,
    traps: Arc<Mutex<Option<Trap>>>,
    gone: watch::Receiver<bool>,
    delayed: watch::Receiver<Duration>,
) {
    let (client_reads, client_writes) = client.into_split();
    let (broker_reads, broker_writes) = broker.into_split();
    let (replies, reply) = mpsc::channel(1);
    let (dead, died) = oneshot::channel();
    tokio::spawn(pass_replies(broker_reads, client_writes, died, replies, delayed));
    pass_requests(client_reads, broker_writes, dead, reply, traps, gone).await;
}

async fn pass_replies(
    mut broker: OwnedReadHalf,
    client: OwnedWriteHalf,
    died: oneshot::Receiver<()>,
    replies: mpsc::Sender<Vec<u8>>,
    delayed: watch::Receiver<Duration>,
) {
    let mut client = Some(client);
    let mut died = Box::pin(died);
    loop {
        tokio::select! {
            biased;
            died = &mut died, if client.is_some() => match died {
                Ok(()) => client = None,
                // The way there has ended with nothing taken off it.
                Err(_) => return,
            },
            frame = read_frame(&mut broker) => {
                let Some(frame) = frame else { return };
                let delay = *delayed.borrow();
                tokio::time::sleep(delay).await;
                match &mut client {
                    Some(client) => if client.write_all(&frame).await.is_err() { return },
                    None => if replies.send(frame).await.is_err() { return },
                }
            }
        }
    }
}

async fn pass_requests(
    mut client: OwnedReadHalf,
    mut broker: OwnedWriteHalf,
    dead: oneshot::Sender<()>,
    reply: mpsc::Receiver<Vec<u8>>,
    traps: Arc<Mutex<Option<Trap>>>,
    mut gone: watch::Receiver<bool>,
) {
    loop {
        let frame = tokio::select! {
            frame = read_frame(&mut client) => frame,
            _ = gone.wait_for(|gone| *gone) => None,
        };
        let Some(frame) = frame else { return };
        let api_key = i16::from_be_bytes([frame[4], frame[5]]);
        let trap = traps.lock().unwrap().take_if(|trap| trap.api_key == api_key);
        let Some(trap) = trap else {
            if broker.write_all(&frame).await.is_err() {
                return;
            }
            continue;
        };
        // Both halves gone: the client sees its connection die.
        drop(client);
        let _ = dead.send(());
        let (deliver, delivered) = oneshot::channel();
        let _ = trap.caught.send(Held { deliver, reply });
        if delivered.await.is_ok() {
            broker.write_all(&frame).await.expect("the broker still listens");
            // Held open until the broker closes it.
            std::future::pending::<()>().await;
        }
        return;
    }
}

/// A size and as many bytes.
async fn read_frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).await.ok()?;
    let size = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + size, 0);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}
