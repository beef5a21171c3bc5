//! A program under measurement: started as its users start it, looked at from outside.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::measure::{cpu_seconds, peak_megabytes};

/// How long one may go on after it was asked to end.
const ENDING: Duration = Duration::from_secs(20);

pub(crate) struct Program {
    child: Child,
    started: Instant,
}

/// What one has used from its start on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub cpu_seconds: f64,
    pub peak_megabytes: f64,
}

impl Program {
    /// Its log goes to `log`.
    pub(crate) fn start(mut command: Command, log: &std::path::Path) -> Self {
        let log = std::fs::File::create(log).expect("a file for its log");
        let errors = log.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let started = Instant::now();
        Self { child: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")), started }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Panics where it has ended.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child") {
            panic!("it ended by itself: {status}");
        }
    }

    pub(crate) fn id(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn used(&self) -> Used {
        let process = self.id();
        Used { cpu_seconds: cpu_seconds(&process), peak_megabytes: peak_megabytes(&process) }
    }

    /// Asks it to end, so that it leaves its groups.
    pub(crate) fn end(mut self) {
        let process = self.id();
        let asked = Command::new("kill").arg(&process).status().expect("kill");
        assert!(asked.success(), "{process} cannot be ended");
        let until = Instant::now() + ENDING;
        while self.child.try_wait().expect("a child").is_none() {
            if Instant::now() > until {
                self.child.kill().expect("killed");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    /// What a panic leaves running would be measured with what comes next.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // It may have ended by now.
            let _ = self.child.kill();
        }
    }
}
