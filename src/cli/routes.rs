//! `trunkline routes list|show|draft|publish|history`.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::ConfigFile;
use crate::config::{Config, Needs};
use crate::genesys::Client;
use crate::health::Health;
use crate::model::decision::Mode;
use crate::model::object;
use crate::model::routing::RouteConfiguration;
use crate::postgres::Database;
use crate::postgres::routing::Saved;
use crate::routing::{self, Publisher};
use crate::topology::{SharedBudget, settings};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Routing configurations, in force and as drafts
    List(Options),
    /// One configuration as JSON, as it is in force; with --draft the draft
    Show {
        /// The configuration's id
        id: String,
        #[arg(long)]
        draft: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Keeps a draft, from a JSON file or stdin
    Draft {
        /// JSON file; `-` is stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Puts the draft in force and, where configured, asks the platform to publish it
    Publish {
        /// The configuration's id
        id: String,
        #[command(flatten)]
        options: Options,
    },
    /// The revisions that were in force, newest first
    History {
        /// The configuration's id
        id: String,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, clap::Args)]
struct Options {
    #[command(flatten)]
    config: ConfigFile,
    #[arg(long)]
    json: bool,
}

impl Options {
    async fn database(&self) -> anyhow::Result<Database> {
        self.config.database().await
    }
}

/// Revisions that `history` prints at most.
const HISTORY: u32 = 1_000;
/// Largest configuration read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// It nests no deeper than this.
const MAX_DEPTH: usize = 8;

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::List(options) => list(&options).await?,
            Action::Show { id, draft, options } => show(&id, draft, &options).await?,
            Action::Draft { file, options } => save(&file, &options).await?,
            Action::Publish { id, options } => publish(&id, &options).await?,
            Action::History { id, options } => history(&id, &options).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(options: &Options) -> anyhow::Result<()> {
    let routes = options.database().await?.routes().await?;
    let mut out = std::io::stdout();
    if options.json {
        let item = |(id, saved): &(String, Saved)| {
            let revision = saved.in_force.as_ref().map(|(revision, _)| revision);
            json!({ "id": id, "revision": revision, "draft": saved.draft.is_some(), "name": name_of(saved) })
        };
        let items: Vec<Value> = routes.iter().map(item).collect();
        return super::print_json(&items);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ID", "REVISION", "DRAFT", "NAME"]);
    for (id, saved) in &routes {
        let revision = saved.in_force.as_ref().map_or("–".to_owned(), |(revision, _)| revision.to_string());
        let draft = if saved.draft.is_some() { "yes" } else { "no" };
        table.add_row([id.as_str(), &revision, draft, name_of(saved)]);
    }
    writeln!(out, "{table}")?;
    Ok(())
}

fn name_of(saved: &Saved) -> &str {
    let in_force = saved.in_force.as_ref().map(|(_, configuration)| configuration);
    in_force.or(saved.draft.as_ref()).map_or("", |configuration| &configuration.name)
}

async fn show(id: &str, draft: bool, options: &Options) -> anyhow::Result<()> {
    let saved = options.database().await?.route(id).await?;
    let found = if draft { saved.draft } else { saved.in_force.map(|(_, configuration)| configuration) };
    let found = found.with_context(|| {
        let what = if draft { "no draft of" } else { "nothing in force under" };
        format!("there is {what} {id}; see `trunkline routes list`")
    })?;
    super::print_json(&found)
}

async fn save(file: &PathBuf, options: &Options) -> anyhow::Result<()> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        if std::io::stdin().is_terminal() {
            eprintln!("reading the configuration from the terminal; end it with Ctrl-D");
        }
        std::io::stdin().take(MAX_BYTES).read_to_string(&mut text)?;
    } else {
        let opened =
            std::fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
        opened.take(MAX_BYTES).read_to_string(&mut text)?;
    }
    let draft: RouteConfiguration = object::read(text.as_bytes(), MAX_DEPTH)
        .map_err(|told| anyhow::anyhow!("not a routing configuration: {told}"))?;
    routing::check(&draft)?;
    options.database().await?.save_route_draft(&draft, &super::who()).await?;
    let next = "put it in force with: trunkline routes publish";
    told(
        options,
        &json!({ "configurationId": draft.id, "draft": true }),
        &format!("draft of {} saved; {next} {}", draft.id, draft.id),
    )
}

async fn publish(id: &str, options: &Options) -> anyhow::Result<()> {
    let database = options.database().await?;
    let config = options.config.load(Needs::Postgres)?;
    let mode = config.route.mode.unwrap_or(Mode::Shadow);
    let platform = if config.route.platform_publish && mode == Mode::Live {
        Some(platform(&options.config.load(Needs::Everything)?, &database)?)
    } else {
        None
    };
    let publisher = Publisher::new(database, platform, mode, CancellationToken::new());
    let published = publisher.publish(id, &super::who()).await?;
    let line = format!("{id}: revision {} is in force", published.revision);
    told(options, &serde_json::to_value(&published)?, &line)?;
    if let Some(reason) = published.reason {
        bail!("the platform has not published it: {reason}; publish again to ask again");
    }
    Ok(())
}

fn platform(config: &Config, database: &Database) -> anyhow::Result<Client> {
    let genesys = settings::genesys(config);
    let permits = Arc::new(SharedBudget::new(database.clone(), &genesys));
    Ok(Client::new(&genesys, permits, &Health::default())?)
}

async fn history(id: &str, options: &Options) -> anyhow::Result<()> {
    let entries = options.database().await?.route_history(id, HISTORY).await?;
    if entries.is_empty() {
        bail!("nothing was published under {id}; see `trunkline routes list`");
    }
    let mut out = std::io::stdout();
    if options.json {
        let item = |entry: &crate::postgres::routing::RevisionEntry| {
            json!({
                "revision": entry.revision,
                "publishedBy": entry.published_by,
                "publishedAt": entry.published_at,
                "configuration": entry.definition,
            })
        };
        let items: Vec<Value> = entries.iter().map(item).collect();
        return super::print_json(&items);
    }
    for entry in entries {
        let rules = entry.definition.rules.iter().map(|rule| {
            let drain = if rule.drain { " (drain)" } else { "" };
            format!("{} {}{drain}", rule.destination.id, rule.weight)
        });
        let rules = rules.collect::<Vec<_>>().join(", ");
        writeln!(out, "{:>6}  {}  {}  {rules}", entry.revision, entry.published_at, entry.published_by)?;
    }
    Ok(())
}

fn told(options: &Options, json: &Value, line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if options.json {
        writeln!(out, "{json}")?
    } else {
        writeln!(out, "{line}")?
    }
    Ok(())
}
