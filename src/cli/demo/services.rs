//! The demo's own broker and database, started by the project's script.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// A running Kafka and Postgres. The script's watchdog stops them even when this
/// process is killed.
pub(super) struct Services {
    script: PathBuf,
    folder: PathBuf,
    pub brokers: String,
    pub postgres_url: String,
}

impl Services {
    /// Starts both in a new folder below the project's `.local`. Where that fails nothing is
    /// left of it.
    ///
    /// # Errors
    /// When the script is not found, fails, or `shutdown` comes first; with the script's own words.
    pub(super) async fn start(shutdown: &CancellationToken) -> anyhow::Result<Self> {
        let root = project_root()?;
        let script = root.join("scripts/services.sh");
        let folder = root.join(".local").join(format!("demo-{}", std::process::id()));
        match launch(&script, &folder, shutdown).await {
            Ok((brokers, postgres_url)) => Ok(Self { script, folder, brokers, postgres_url }),
            Err(error) => {
                if let Err(left) = remove(&script, &folder).await {
                    return Err(error.context(format!("and its remains are still there: {left:#}")));
                }
                Err(error)
            }
        }
    }

    /// Stops both and deletes their data.
    ///
    /// # Errors
    /// When the script fails; with its own words.
    pub(super) async fn remove(self) -> anyhow::Result<()> {
        remove(&self.script, &self.folder).await
    }
}

/// Starts both; answers the brokers and the database's URL.
async fn launch(
    script: &Path,
    folder: &Path,
    shutdown: &CancellationToken,
) -> anyhow::Result<(String, String)> {
    let mut starting = Command::new(script);
    starting.arg("start").args(["--owner", &std::process::id().to_string()]).arg(folder);
    let lines = tokio::select! {
        told = told(starting) => told.context("Kafka and Postgres could not be started; `make demo` installs what is missing")?,
        () = shutdown.cancelled() => bail!("interrupted while Kafka and Postgres were starting"),
    };
    let value = |name: &str| {
        let prefix = format!("export {name}=");
        let found = lines.lines().find_map(|line| line.strip_prefix(&prefix));
        found.map(str::to_owned).with_context(|| format!("{} did not tell {name}", script.display()))
    };
    Ok((value("TRUNKLINE_KAFKA__BROKERS")?, value("TRUNKLINE_POSTGRES__URL")?))
}

async fn remove(script: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut removing = Command::new(script);
    removing.arg("remove").arg(folder);
    told(removing).await.with_context(|| format!("{} could not be removed", folder.display()))?;
    Ok(())
}

/// Runs the script; answers what it prints, or why it failed in its own words.
async fn told(mut command: Command) -> anyhow::Result<String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // A Ctrl-C is ours to handle, not the script's and the broker's.
        .process_group(0);
    let output = command.output().await.context("scripts/services.sh cannot be run")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{}", words.trim().replace('\n', "\n  "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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
