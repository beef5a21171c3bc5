//! The program itself as a process, to be watched, stopped and killed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running `trunkline`; killed when dropped. Its log is shown when the test fails.
pub(crate) struct Process {
    pub name: String,
    child: Child,
    log: PathBuf,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    pub(crate) fn start(name: &str, arguments: &[&str], environment: &[(String, String)]) -> Self {
        let log = std::env::temp_dir().join(format!("t-{}-{name}.log", uuid::Uuid::now_v7().simple()));
        // Times that are promised are measured with a release build.
        let built = env!("CARGO_BIN_EXE_trunkline").to_owned();
        let mut command = Command::new(std::env::var("TRUNKLINE_TEST_BINARY").unwrap_or(built));
        // Nothing but what the test says: neither a developer's variables nor a file in the checkout.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TRUNKLINE_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(std::env::temp_dir());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).expect("a log file"));
        let mut child = command.spawn().expect("trunkline starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { name: name.to_owned(), child, log, output }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line on stdout; `None` when it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.output.read_line(&mut line).expect("stdout is text");
        (length > 0).then(|| line.trim_end().to_owned())
    }

    /// What it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log can be read")
    }

    /// SIGKILL: no chance to clean up.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    /// Waits for the end, `limit` at most.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("waitable") {
                return status;
            }
            assert!(Instant::now() < end, "{} had not ended after {limit:?}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("waitable").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- last lines of {} ---", self.name);
            for line in &lines[lines.len().saturating_sub(40)..] {
                eprintln!("{line}");
            }
        }
        let _ = std::fs::remove_file(&self.log);
    }
}
