//! The demo's own broker and database, started by the project's script.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// A running Kafka and Postgres. The script's watchdog stops them even when this
/// process is killed.
pub struct Services {
    script: PathBuf,
    folder: PathBuf,
    pub brokers: String,
    pub postgres_url: String,
}

impl Services {
    /// Starts both in a new folder below the project's `.local`.
    ///
    /// # Errors
    /// When the script is not found, fails, or `shutdown` comes first; the script's own
    /// messages have then been shown on stderr.
    pub async fn start(shutdown: &CancellationToken) -> anyhow::Result<Self> {
        let root = project_root()?;
        let script = root.join("scripts/services.sh");
        let folder = root.join(".local").join(format!("demo-{}", std::process::id()));
        let mut starting = Command::new(&script);
        starting
            .arg("start")
            .args(["--owner", &std::process::id().to_string()])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // A Ctrl-C is ours to handle, not the script's and the broker's.
            .process_group(0);
        let output = tokio::select! {
            output = starting.output() => output,
            () = shutdown.cancelled() => bail!("interrupted while broker and database were starting"),
        };
        let output = output.with_context(|| format!("{} cannot be run", script.display()))?;
        if !output.status.success() {
            bail!("{} start failed; `make demo` installs what is missing", script.display());
        }
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = |name: &str| {
            let prefix = format!("export {name}=");
            let found = lines.lines().find_map(|line| line.strip_prefix(&prefix));
            found.map(str::to_owned).with_context(|| format!("{} did not tell {name}", script.display()))
        };
        Ok(Self {
            brokers: value("TRUNKLINE_KAFKA__BROKERS")?,
            postgres_url: value("TRUNKLINE_POSTGRES__URL")?,
            script,
            folder,
        })
    }

    /// Stops both and deletes their data.
    ///
    /// # Errors
    /// When the script fails; its messages have been shown on stderr.
    pub async fn remove(self) -> anyhow::Result<()> {
        let status = Command::new(&self.script)
            .arg("remove")
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .status()
            .await
            .with_context(|| format!("{} cannot be run", self.script.display()))?;
        if !status.success() {
            bail!("{} remove {} failed", self.script.display(), self.folder.display());
        }
        Ok(())
    }
}

/// The checkout this binary was built in, or the one we stand in.
fn project_root() -> anyhow::Result<PathBuf> {
    let binary = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    let starts = [binary.as_deref(), here.as_deref()];
    starts
        .into_iter()
        .flatten()
        .flat_map(Path::ancestors)
        .find(|folder| folder.join("scripts/services.sh").is_file())
        .map(Path::to_owned)
        .context("scripts/services.sh is not found above the binary or the working directory; run `make demo` in a checkout")
}
