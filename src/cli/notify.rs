//! What a service manager that has set `NOTIFY_SOCKET` is told: systemd's `sd_notify` protocol, datagrams of
//! `NAME=value` lines.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// How often the status line is brought up to date, and the watchdog pinged at the least.
const INTERVAL: Duration = Duration::from_secs(2);
/// Longest status line, in bytes.
const STATUS_LIMIT: usize = 400;

/// The socket of a service manager.
#[derive(Debug)]
pub(super) struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    interval: Duration,
}

impl Supervisor {
    /// `None` where nobody wants to be told, or its socket cannot be used.
    pub(super) fn of_environment() -> Option<Self> {
        let path = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())?;
        let watchdog = watchdog(
            std::env::var("WATCHDOG_USEC").ok().as_deref(),
            std::env::var("WATCHDOG_PID").ok().as_deref(),
        );
        match Self::at(&path, watchdog) {
            Ok(supervisor) => Some(supervisor),
            Err(error) => {
                tracing::warn!(socket = ?path, %error, "the service manager cannot be told");
                None
            }
        }
    }

    /// A path, or behind an `@` a name in Linux' abstract namespace. `watchdog` is how long it
    /// waits for a ping at most.
    fn at(path: &OsStr, watchdog: Option<Duration>) -> std::io::Result<Self> {
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold us up.
        socket.set_nonblocking(true)?;
        let interval = watchdog.map_or(INTERVAL, |limit| INTERVAL.min(limit / 3));
        Ok(Self { socket, address, interval })
    }

    /// Says that the process has started, how it is, and at `shutdown` that it stops.
    pub(super) async fn keep_told(self, health: Health, shutdown: CancellationToken) {
        self.tell("READY=1");
        let mut told = String::new();
        loop {
            let status = status(&health);
            if status != told && self.tell(&format!("STATUS={status}")) {
                told = status;
            }
            self.tell("WATCHDOG=1");
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.tell("STOPPING=1");
    }

    fn tell(&self, lines: &str) -> bool {
        let sent = self.socket.send_to_addr(lines.as_bytes(), &self.address);
        sent.inspect_err(|error| tracing::debug!(%error, "the service manager was not told {lines}")).is_ok()
    }
}

/// How long the watchdog waits, where it is meant for this process.
fn watchdog(microseconds: Option<&str>, process: Option<&str>) -> Option<Duration> {
    let is_ours = process.is_none_or(|id| id == std::process::id().to_string());
    let limit = microseconds?.parse().ok().filter(|limit| *limit > 0)?;
    is_ours.then_some(Duration::from_micros(limit))
}

/// One line: what is missing, else what does not work well.
fn status(health: &Health) -> String {
    let line = |what: &str, parts: Vec<(String, String)>| {
        let parts: Vec<_> = parts.into_iter().map(|(part, reason)| format!("{part}: {reason}")).collect();
        (!parts.is_empty()).then(|| format!("{what}: {}", parts.join("; ")))
    };
    let waiting = line("waiting", health.reasons());
    let told = waiting.or_else(|| line("ready, impaired", health.impairments()));
    let mut told = told.unwrap_or_else(|| "ready".to_owned()).replace(['\n', '\r'], " ");
    let end = told.floor_char_boundary(STATUS_LIMIT);
    told.truncate(end);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 1_024];
        let length = manager.recv(&mut buffer).expect("a datagram");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_manager_hears_of_start_condition_and_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("binds");
        manager.set_read_timeout(Some(Duration::from_secs(30))).expect("waits");
        let health = Health::default();
        let kafka = health.part("kafka");
        kafka.not_ready("no answer\nfrom 127.0.0.1:9092");
        let shutdown = CancellationToken::new();
        let supervisor = Supervisor::at(path.as_os_str(), Some(Duration::from_secs(3))).expect("a socket");
        let told = tokio::spawn(supervisor.keep_told(health, shutdown.clone()));
        assert_eq!(next(&manager), "READY=1");
        assert_eq!(next(&manager), "STATUS=waiting: kafka: no answer from 127.0.0.1:9092");
        assert_eq!([next(&manager), next(&manager)], ["WATCHDOG=1", "WATCHDOG=1"]);
        kafka.ready();
        let mut heard = next(&manager);
        while heard == "WATCHDOG=1" {
            heard = next(&manager);
        }
        assert_eq!(heard, "STATUS=ready");
        shutdown.cancel();
        told.await.expect("ends");
        while heard != "STOPPING=1" {
            heard = next(&manager);
        }
    }

    #[test]
    fn an_abstract_name_is_told_too_and_somebody_elses_watchdog_is_not_ours() {
        let name = format!("trunkline-{}", uuid::Uuid::now_v7());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("binds");
        manager.set_read_timeout(Some(Duration::from_secs(30))).expect("waits");
        assert!(Supervisor::at(OsStr::new(&format!("@{name}")), None).expect("a socket").tell("READY=1"));
        assert_eq!(next(&manager), "READY=1");
        let ours = std::process::id().to_string();
        assert_eq!(watchdog(Some("30000000"), Some(&ours)), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(Some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(Some("30000000"), Some("1x")), None);
        assert_eq!(watchdog(Some("0"), None), None);
        assert_eq!(watchdog(None, Some(&ours)), None);
    }
}
