//! The command line: results on stdout, logs and progress on stderr; exit code 0
//! done, 1 failed, 2 wrong usage.

mod alerts;
mod asyncapi;
mod canary;
mod check;
mod compliance;
mod database;
mod dead_letters;
mod demo;
mod dial_model;
pub mod documents;
pub mod evaluate;
pub mod explain;
mod known;
mod lag;
mod maintenance;
mod manual;
mod notify;
mod pause;
mod recommend;
mod replay;
mod review;
mod routes;
mod run;
mod settings;
mod simulate;
mod start;
mod topics;
mod topology;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

use start::{ConfigFile, print_items, print_json, who};

/// Contact-centre control loops for Genesys Cloud on Kafka.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on this machine: broker, database, simulated Genesys Cloud, all stages
    Demo(demo::Arguments),
    /// The stages against the configured Kafka, Postgres and Genesys Cloud
    Run(run::Arguments),
    /// A simulated Genesys Cloud organisation with live contact-centre dynamics and fault injection
    Simulate(simulate::Arguments),
    /// Tests the configuration and every connection, all problems in one go, each with its remedy
    Check(check::Arguments),
    /// The dataflow as it is in the code
    Topology(topology::Arguments),
    /// Lists, creates or verifies the topics
    Topics(topics::Arguments),
    /// Brings the database to this version, or tells where it stands
    Database(database::Arguments),
    /// What was decided, from which inputs, under which policy, what was sent, what came back
    Explain(explain::Arguments),
    /// Decides again what is on record: the same rules must say the same, others say what would have been
    Replay(replay::Arguments),
    /// What settings would come to, by a model of each campaign; nothing is applied
    Recommend(recommend::Arguments),
    /// What a rule does on simulated data, before it does it for real
    Evaluate(evaluate::Arguments),
    /// Abandonment as an auditor counts it, and the evidence for it
    Compliance(compliance::Arguments),
    /// Which consumer groups are behind, by how long, and what helps
    Lag(lag::Arguments),
    /// What was set aside and why; sends it on its way again
    DeadLetters(dead_letters::Arguments),
    /// Who is told of incidents; switches on again who was switched off
    Alerts(alerts::Arguments),
    /// Times in which flows are not rolled back
    Maintenance(maintenance::Arguments),
    /// Stops a loop, or all: it decides and records, and changes nothing; without a loop, lists what is stopped
    Pause(pause::PauseArguments),
    /// Lets a loop go on, or all
    Resume(pause::ResumeArguments),
    /// What was changed at run time, and by whom
    Settings(settings::Arguments),
    /// Routing configurations: drafts, what is in force, what was
    Routes(routes::Arguments),
    /// Tries a flow out beside the one in force, by exact shares; takes it away, or publishes it
    Canary(canary::Arguments),
    /// Prints shell completions
    Completions {
        /// The shell they are for
        shell: clap_complete::Shell,
    },
    /// Writes manual pages, one per command
    Man(manual::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _crash_points = fail::FailScenario::setup();
    let arguments = Arguments::parse();
    // Any TLS provider would do; two in one process would be an error at first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            // A reader that closed our stdout (`| head`) is not worth a message.
            let closed = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if closed != Some(std::io::ErrorKind::BrokenPipe) {
                eprintln!("trunkline: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "trunkline", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(arguments) => arguments.run(Arguments::command()),
        Command::Topology(arguments) => arguments.run(),
        Command::Evaluate(arguments) => arguments.run(),
        Command::Alerts(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Maintenance(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Pause(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Resume(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Settings(arguments) => on_runtime("warn", |_| arguments.run()),
        // Lines on the terminal would tear the picture.
        Command::Demo(arguments) => {
            let on_terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
            let log = on_terminal
                .then(|| std::env::temp_dir().join(format!("trunkline-demo-{}.log", std::process::id())));
            let level = if on_terminal { "warn" } else { "error" };
            on_runtime_with_log(level, log.as_deref(), |shutdown| arguments.run(shutdown, log.as_deref()))
        }
        Command::Run(arguments) => on_runtime("info", |shutdown| arguments.run(shutdown)),
        Command::Simulate(arguments) => on_runtime("info", |shutdown| arguments.run(shutdown)),
        Command::Check(arguments) => on_runtime("error", |_| arguments.run()),
        Command::Topics(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Database(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Compliance(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Lag(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Routes(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Canary(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Explain(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Replay(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::Recommend(arguments) => on_runtime("warn", |_| arguments.run()),
        Command::DeadLetters(arguments) => on_runtime("warn", |_| arguments.run()),
    }
}

/// Runs a command until it is done. The first Ctrl-C or SIGTERM asks it to end,
/// the second ends the process.
fn on_runtime<F>(log_level: &str, command: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    on_runtime_with_log(log_level, None, command)
}

/// The same with the log in a file.
fn on_runtime_with_log<F>(
    log_level: &str,
    log: Option<&Path>,
    command: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let telemetry = telemetry::start(log_level, log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(end_on_signal(shutdown.clone()));
        command(shutdown).await
    });
    // Work that ignores its end, such as a name look-up, must not hold up ours.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    drop(telemetry);
    result
}

/// `30s`, `2m`, `500ms`.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let parsed =
        text.parse::<jiff::SignedDuration>().map_err(|_| "a duration such as 30s or 2m".to_owned())?;
    std::time::Duration::try_from(parsed).map_err(|_| "a duration that is not negative".to_owned())
}

async fn end_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be received; only kill -9 will end this process");
        return;
    };
    let mut next = async || tokio::select! { _ = interrupt.recv() => 130, _ = terminate.recv() => 143 };
    next().await;
    shutdown.cancel();
    let code = next().await;
    eprintln!("trunkline: ended at the second signal; work in progress is taken up at the next start");
    std::process::exit(code);
}
