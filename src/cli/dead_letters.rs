//! `trunkline dead-letters list|show|redrive`: what was set aside and why, and how it
//! gets on its way again once the cause is mended.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use serde_json::json;

use super::ConfigFile;
use super::explain::printable;
use crate::config::{Config, Needs};
use crate::model::Timestamp;
use crate::postgres::Database;
use crate::postgres::dead_letters::{DeadLetter, DeadLetterId, Filter, Redrive, Summary};
use crate::topics::{self, Topic, Values};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What was set aside, newest first
    List {
        #[command(flatten)]
        which: Which,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// One of them whole: why, where from, headers, key and value
    Show {
        /// The id from `list`, such as 2/117
        id: DeadLetterId,
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long, conflicts_with = "raw")]
        json: bool,
        /// The value alone, byte for byte
        #[arg(long)]
        raw: bool,
    },
    /// Sends the original records to the topics they were read from, each once
    Redrive {
        /// Ids from `list`
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<DeadLetterId>,
        /// All of --topic that were not sent again yet and that the other filters let through
        #[arg(long, requires = "topic")]
        all: bool,
        #[command(flatten)]
        which: Which,
        /// Does not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Read from this topic, with or without the prefix
    #[arg(long)]
    topic: Option<String>,
    /// Set aside by this stage or role
    #[arg(long)]
    stage: Option<String>,
    /// Reasons that begin so, such as bad_json
    #[arg(long)]
    reason: Option<String>,
    /// Set aside at this time or later, RFC 3339
    #[arg(long)]
    from: Option<Timestamp>,
    /// Set aside before this time, RFC 3339
    #[arg(long)]
    to: Option<Timestamp>,
    /// Without those that were sent again
    #[arg(long)]
    open: bool,
}

/// Records redriven by one command at most.
const MOST_AT_ONCE: i64 = 100_000;

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::List { which, limit, config, json } => {
                let ledger = Ledger::open(&config).await?;
                list(&ledger, which, limit, json).await
            }
            Action::Show { id, config, json, raw } => {
                let ledger = Ledger::open(&config).await?;
                show(&ledger, id, json, raw).await
            }
            Action::Redrive { ids, all, which, yes, config, json } => {
                let ledger = Ledger::open(&config).await?;
                let ids = if all { ledger.open_ones(which).await? } else { ids };
                redrive(&ledger, &ids, yes, json).await
            }
        }
    }
}

/// The dead letters of one installation.
struct Ledger {
    database: Database,
    topic_prefix: String,
    /// Full name of the topic of dead letters.
    topic: String,
}

impl Ledger {
    async fn open(config: &ConfigFile) -> anyhow::Result<Self> {
        let config: Config = config.load(Needs::Postgres)?;
        let database = super::start::database(&config).await?;
        let topic_prefix = config.topic_prefix().to_owned();
        let topic = format!("{topic_prefix}{}", topics::DEAD_LETTERS.name);
        Ok(Self { database, topic_prefix, topic })
    }

    fn filter(&self, which: Which) -> Filter {
        let Which { topic, stage, reason, from, to, open } = which;
        // Topics of ours may be named without the prefix.
        let full = |topic: String| match topics::ALL.iter().any(|known| known.name == topic) {
            true => format!("{}{topic}", self.topic_prefix),
            false => topic,
        };
        Filter { topic: topic.map(full), stage, reason, from, to, open }
    }

    /// Oldest first, so that they leave in the order they came.
    async fn open_ones(&self, which: Which) -> anyhow::Result<Vec<DeadLetterId>> {
        let filter = Filter { open: true, ..self.filter(which) };
        let mut found = self.database.dead_letters(&self.topic, &filter, MOST_AT_ONCE).await?;
        found.sort_by(|a, b| (&a.topic, a.partition, a.offset).cmp(&(&b.topic, b.partition, b.offset)));
        Ok(found.into_iter().map(|letter| letter.id).collect())
    }

    async fn letter(&self, id: DeadLetterId) -> anyhow::Result<DeadLetter> {
        self.database.dead_letter(&self.topic, id).await?.with_context(|| {
            format!(
                "there is no dead letter {id} of {}; one set aside just now is here once the audit has recorded it",
                self.topic
            )
        })
    }

    /// The topic a letter goes back to, or why it cannot.
    fn target(&self, letter: &DeadLetter) -> Result<&'static Topic, String> {
        let Summary { id, topic, reason, partition, offset, .. } = &letter.summary;
        let (Some(source), Some(partition), Some(offset)) = (topic, partition, offset) else {
            return Err("its headers do not tell where it was read".to_owned());
        };
        let name = source.strip_prefix(self.topic_prefix.as_str());
        let target = topics::ALL
            .iter()
            .copied()
            .find(|topic| Some(topic.name) == name && matches!(topic.values, Values::Json(_)));
        let Some(target) = target else {
            return Err(format!(
                "it was not read from a topic of ours but from {source}; once it is mended, send it there again: \
                 trunkline dead-letters show {id} --raw | curl --data-binary @- …"
            ));
        };
        if letter.value.is_none() && !reason.starts_with("tombstone") {
            return Err(format!(
                "its value was too large to be kept; it stands at {source}/{partition}/{offset} while that topic keeps it"
            ));
        }
        let headers: usize = letter.headers.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
        let bytes = letter.summary.key.as_ref().map_or(0, Vec::len)
            + letter.value.as_ref().map_or(0, Vec::len)
            + headers;
        // Room for the record's framing and the header that names the dead letter.
        let limit = target.max_message_bytes - 1_024;
        if bytes > limit {
            return Err(format!("its {bytes} bytes are more than {source} takes ({limit}); send it smaller"));
        }
        Ok(target)
    }
}

async fn list(ledger: &Ledger, which: Which, limit: u32, as_json: bool) -> anyhow::Result<ExitCode> {
    let filter = ledger.filter(which);
    let found = ledger.database.dead_letters(&ledger.topic, &filter, i64::from(limit)).await?;
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json!({"deadLetters": found}))?;
    } else if found.is_empty() {
        writeln!(out, "none")?;
    } else {
        writeln!(out, "{}", table(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(letters: &[Summary]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["ID", "SET ASIDE", "BY", "READ FROM", "BYTES", "REASON", "SENT AGAIN"]);
    for letter in letters {
        let sent = letter.redriven_at.map(|at| at.to_string()).unwrap_or_default();
        table.add_row([
            letter.id.to_string(),
            letter.set_aside_at.to_string(),
            printable(&letter.stage),
            printable(&place(letter)),
            letter.value_bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
            printable(&letter.reason),
            sent,
        ]);
    }
    table
}

fn place(letter: &Summary) -> String {
    match (&letter.topic, letter.partition, letter.offset) {
        (Some(topic), Some(partition), Some(offset)) => format!("{topic}/{partition}/{offset}"),
        _ => "not told".to_owned(),
    }
}

async fn show(ledger: &Ledger, id: DeadLetterId, as_json: bool, raw: bool) -> anyhow::Result<ExitCode> {
    let letter = ledger.letter(id).await?;
    let mut out = std::io::stdout().lock();
    if raw {
        out.write_all(letter.value.as_deref().unwrap_or_default())?;
    } else if as_json {
        super::print_json(&letter)?;
    } else {
        write!(out, "{}", render(&letter))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The letter for people, in lines.
fn render(letter: &DeadLetter) -> String {
    let Summary { id, stage, reason, set_aside_at, key, redriven_at, redriven_by, .. } = &letter.summary;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("  {name:<20} {value}\n"));
    };
    line("dead letter", &id.to_string());
    line("set aside", &format!("{set_aside_at} by {}", printable(stage)));
    line("why", &printable(reason));
    line("read from", &printable(&place(&letter.summary)));
    match (redriven_at, redriven_by) {
        (Some(at), Some(who)) => line("sent again", &format!("{at} by {}", printable(who))),
        _ => line("sent again", "no"),
    }
    for (name, value) in &letter.headers {
        line("header", &format!("{}: {}", printable(name), readable(value)));
    }
    line("key", &key.as_deref().map_or_else(|| "none".to_owned(), readable));
    match &letter.value {
        None => line("value", "none"),
        Some(value) => {
            line("value", &format!("{} bytes", value.len()));
            text.push_str(&readable(value));
            text.push('\n');
        }
    }
    text
}

/// Bytes for a terminal: text with what could steer it spelled out, or hexadecimal
/// digits, sixteen bytes a line.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.lines().map(printable).collect::<Vec<_>>().join("\n"),
        Err(_) => {
            let lines = bytes.chunks(16).enumerate().map(|(nth, chunk)| {
                let digits: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
                let text: String = chunk
                    .iter()
                    .map(
                        |byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' },
                    )
                    .collect();
                format!("{:08x}  {:<47}  {text}", nth * 16, digits.join(" "))
            });
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}

async fn redrive(
    ledger: &Ledger,
    ids: &[DeadLetterId],
    yes: bool,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    if ids.is_empty() {
        eprintln!("trunkline: nothing to send again");
    } else if !yes && !confirmed(ledger, ids)? {
        bail!("nothing was sent");
    }
    let who = super::who();
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let letter = ledger.letter(*id).await?;
        let result = match ledger.target(&letter) {
            Err(reason) => ("refused", reason),
            Ok(target) => match ledger.database.redrive(&ledger.topic, &letter, target.name, &who).await? {
                Redrive::Appended => ("redriven", format!("to {}{}", ledger.topic_prefix, target.name)),
                Redrive::Before { who, at } => ("refused", format!("sent again before, {at} by {who}")),
            },
        };
        if !as_json {
            writeln!(std::io::stdout(), "{id:<12} {:<9} {}", result.0, printable(&result.1))?;
        }
        results.push((id, result));
    }
    let refused = results.iter().filter(|(_, (status, _))| *status == "refused").count();
    if as_json {
        let items: Vec<_> = results
            .iter()
            .map(|(id, (status, reason))| json!({"id": id, "status": status, "detail": reason}))
            .collect();
        writeln!(
            std::io::stdout(),
            "{}",
            json!({"redriven": results.len() - refused, "refused": refused, "items": items})
        )?;
    } else {
        writeln!(std::io::stdout(), "{} redriven, {refused} refused", results.len() - refused)?;
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what is about to happen, and asks a person at a terminal.
fn confirmed(ledger: &Ledger, ids: &[DeadLetterId]) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nobody is here to confirm; add --yes");
    }
    eprint!(
        "{} of {}: the original key, value and headers go back to the topics they were read from, once each, \
         through the outbox; all readers of those topics get them. What is still wrong with them comes back as \
         a new dead letter. Go on? [y/N] ",
        match ids.len() {
            1 => "1 dead letter".to_owned(),
            count => format!("{count} dead letters"),
        },
        ledger.topic
    );
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hexadecimal() {
        assert_eq!(readable(b"{\"a\":\"\x1b[31m\"}\nb"), "{\"a\":\"\\u{1b}[31m\"}\nb");
        assert_eq!(
            readable(b"ab\xff\0 klmnopqrstuv"),
            "00000000  61 62 ff 00 20 6b 6c 6d 6e 6f 70 71 72 73 74 75  ab.. klmnopqrstu\n\
             00000010  76                                               v"
        );
    }
}
