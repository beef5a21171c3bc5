//! `trunkline compliance export`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::pack::Pack;
use super::period::{self, Period};
use super::signature::Signer;
use super::{ConfigFile, Opened, open};
use crate::clock;
use crate::model::Timestamp;
use crate::model::compliance::{Counters, Tally, Window, WindowKind, definitions, figures};
use crate::postgres::compliance::CallRevision;

/// Rows of one kind in a pack at most.
const MOST_ROWS: u32 = 2_000_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The campaign's id
    #[arg(long, value_name = "ID")]
    campaign: String,
    #[arg(long, value_name = "P", help = format!("The window: {}", period::ALLOWED))]
    period: Period,
    /// Where to write; `-` is stdout. Without it a file here, named after campaign and period
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Tell what was written as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let opened = open(&self.campaign, &self.config).await?;
        let signer = opened.config.compliance.signing_key.as_ref().map(Signer::from_pem).transpose()?;
        let window = self.period.window(&opened.calendar, clock::now());
        let evidence = Evidence::gather(&opened, &self.campaign, window).await?;
        let folder = format!("compliance-{}-{}", plain(&self.campaign), period::file_name(&window));
        let pack = evidence.pack(&opened, folder.clone(), signer.as_ref())?;
        let files = pack.listed();
        let out = self.out.unwrap_or_else(|| PathBuf::from(format!("{folder}.tar")));
        let to_stdout = out.as_os_str() == "-";
        if to_stdout {
            if self.json {
                bail!("--json tells what was written on stdout: give --out a file");
            }
            pack.write(signer.as_ref(), &mut std::io::stdout().lock())?;
        } else {
            let file = File::create(&out).with_context(|| format!("{} cannot be written", out.display()))?;
            pack.write(signer.as_ref(), &mut BufWriter::new(file))
                .with_context(|| format!("{} cannot be written", out.display()))?;
        }
        if signer.is_none() {
            eprintln!(
                "trunkline: the pack is not signed: set compliance.signing_key to an Ed25519 key (openssl genpkey \
                 -algorithm ed25519)"
            );
        }
        let fingerprint = signer.as_ref().map(Signer::fingerprint);
        if self.json {
            let files: Vec<Value> = files
                .iter()
                .map(|(name, bytes, sha256)| json!({"name": name, "bytes": bytes, "sha256": sha256}))
                .collect();
            let told = json!({"file": out, "signed": fingerprint.is_some(), "publicKeySha256": fingerprint,
                "windowStart": window.start, "windowEnd": window.end, "files": files});
            crate::cli::print_json(&told)?;
        } else if !to_stdout {
            writeln!(std::io::stdout(), "{}", out.display())?;
            if let Some(fingerprint) = fingerprint {
                writeln!(std::io::stdout(), "public key, SHA-256: {fingerprint}")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A name that is plain in every file system.
fn plain(name: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' };
    name.chars().take(64).map(plain).collect()
}

/// What is recorded of one campaign and window.
struct Evidence {
    campaign_id: String,
    window: Window,
    calls: Vec<CallRevision>,
    polls: Vec<(Timestamp, Counters)>,
    decisions: Vec<String>,
    figures: Vec<Value>,
}

impl Evidence {
    async fn gather(opened: &Opened, campaign_id: &str, window: Window) -> anyhow::Result<Self> {
        let (database, Window { start, end, .. }) = (&opened.database, window);
        let calls = database.call_revisions(campaign_id, start, end, MOST_ROWS + 1).await?;
        let polls = database.campaign_polls(campaign_id, start, end, MOST_ROWS + 1).await?;
        let decisions = database.explained_decisions(campaign_id, start, end, MOST_ROWS + 1).await?;
        let most = [calls.len(), polls.len(), decisions.len()].into_iter().max().unwrap_or(0);
        if most > MOST_ROWS as usize {
            bail!("the period has more than {MOST_ROWS} calls or decisions: export shorter ones");
        }
        let figures = kept_figures(opened, campaign_id, window).await?;
        Ok(Self { campaign_id: campaign_id.to_owned(), window, calls, polls, decisions, figures })
    }

    fn pack(&self, opened: &Opened, folder: String, signer: Option<&Signer>) -> anyhow::Result<Pack> {
        let mut pack = Pack::new(folder);
        pack.add("README.txt", readme(signer));
        pack.add("definitions.md", definitions::DEFINITIONS);
        pack.add("figures.json", serde_json::to_vec_pretty(&self.told_figures(opened))?);
        pack.add("calls.csv", self.calls_csv());
        pack.add("counters.csv", self.counters_csv());
        let decisions: String = self.decisions.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        pack.add("decisions.jsonl", decisions);
        Ok(pack)
    }

    /// The window, the terms, what was stated, and what this pack's own calls and counters give.
    fn told_figures(&self, opened: &Opened) -> Value {
        let revisions = self.calls.iter().map(|call| (call.revision, call.rules, &call.call));
        let tally = Tally::of(revisions, &self.window);
        let sum = |of: fn(&Counters) -> Option<u64>| {
            let counts: Vec<u64> = self.polls.iter().filter_map(|(_, counters)| of(counters)).collect();
            (!counts.is_empty()).then(|| counts.iter().sum())
        };
        let counters = Counters {
            attempts: sum(|counters| counters.attempts),
            answers: sum(|counters| counters.answers),
            abandoned: sum(|counters| counters.abandoned),
        };
        json!({
            "campaignId": self.campaign_id,
            "window": self.window.kind,
            "windowStart": self.window.start,
            "windowEnd": self.window.end,
            "day": self.window.day.to_string(),
            "timeZone": opened.terms.time_zone,
            "terms": opened.terms.terms,
            "definitionsVersion": definitions::VERSION,
            "program": concat!("trunkline ", env!("CARGO_PKG_VERSION")),
            "stated": self.figures,
            "counted": {
                "calls": tally,
                "counters": counters,
                "figures": figures(&tally, &counters, &opened.terms.terms),
            },
        })
    }

    fn calls_csv(&self) -> String {
        let mut csv = String::from(
            "conversation_id,revision,counted_at,disposition,heard,from_number,to_number,contact_id,placed_at,\
             answered_at,queued_at,agent_at,message_at,ended_at,duration_seconds,answered_by,abandoned_in_queue,\
             greeting_allowance_ms,looked_up_at,recorded_at\r\n",
        );
        for revision in &self.calls {
            let call = &revision.call;
            let time = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let lasted = call.ended_at.map(|ended_at| ended_at.millis_since(call.placed_at) as f64 / 1_000.0);
            let in_queue = call.abandoned_in_queue();
            let fields = [
                call.conversation_id.clone(),
                revision.revision.to_string(),
                call.counted_at().to_string(),
                revision.disposition.clone(),
                text(&revision.heard),
                text(&call.from_number),
                text(&call.to_number),
                text(&call.contact_id),
                call.placed_at.to_string(),
                time(call.answered_at),
                time(call.queued_at),
                time(call.agent_at),
                time(call.message_at),
                time(call.ended_at),
                lasted.map(|seconds| seconds.to_string()).unwrap_or_default(),
                format!("{:?}", call.answered_by).to_lowercase(),
                in_queue.map(|abandoned| abandoned.to_string()).unwrap_or_default(),
                revision.rules.greeting_allowance_ms.to_string(),
                revision.looked_up_at.to_string(),
                revision.recorded_at.to_string(),
            ];
            push_row(&mut csv, &fields);
        }
        csv
    }

    fn counters_csv(&self) -> String {
        let mut csv = String::from("observed_at,attempts,answers,abandoned\r\n");
        let count = |count: Option<u64>| count.map(|count| count.to_string()).unwrap_or_default();
        for (at, Counters { attempts, answers, abandoned }) in &self.polls {
            push_row(&mut csv, &[at.to_string(), count(*attempts), count(*answers), count(*abandoned)]);
        }
        csv
    }
}

/// The window's own figures and those of the days and hours in it that are settled; what still
/// moves would make each pack another.
async fn kept_figures(opened: &Opened, campaign_id: &str, window: Window) -> anyhow::Result<Vec<Value>> {
    let (from, to) = match window.kind {
        WindowKind::Period30d | WindowKind::Life => {
            let last = Timestamp::from_millis(window.end.as_millis() - 1);
            (opened.calendar.day_of(window.start), opened.calendar.day_of(last))
        }
        _ => (window.day, window.day),
    };
    let kinds: BTreeSet<&str> = match window.kind {
        WindowKind::Hour | WindowKind::Rolling24h => [window.kind.name()].into(),
        kind => [kind.name(), WindowKind::Day.name()].into(),
    };
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let mut kept = opened.database.kept_figures(campaign_id, &kinds, from, to).await?;
    kept.retain(|figure| {
        figure.statement != "so_far" && window.start <= figure.window_start && figure.window_end <= window.end
    });
    Ok(kept.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

/// RFC 4180.
fn push_row(csv: &mut String, fields: &[String]) {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            csv.push(',');
        }
        if field.contains([',', '"', '\r', '\n']) {
            csv.push('"');
            csv.push_str(&field.replace('"', "\"\""));
            csv.push('"');
        } else {
            csv.push_str(field);
        }
    }
    csv.push_str("\r\n");
}

fn readme(signer: Option<&Signer>) -> String {
    let signed = match signer {
        Some(signer) => format!(
            "Is the list of digests the one that was signed? (openssl 3)\n\n    \
             openssl pkeyutl -verify -pubin -inkey public-key.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig\n\n\
             Is the key the sender's? Compare with what the sender has published:\n\n    \
             openssl pkey -pubin -in public-key.pem -outform DER | sha256sum\n    {}\n",
            signer.fingerprint()
        ),
        None => "This pack is NOT SIGNED: nothing shows who made it.\n".to_owned(),
    };
    format!(
        "Evidence of one campaign and period, made by trunkline {}.\n\n\
         Are the files as they were written?\n\n    sha256sum -c SHA256SUMS\n\n{signed}\n\
         definitions.md   what each word and figure means, with the rules of law\n\
         figures.json     the figures as stated, and as this pack's own rows give them\n\
         calls.csv        every call with all revisions of what it counts as; the greatest revision counts\n\
         counters.csv     what the platform's statistics counted, poll by poll\n\
         decisions.jsonl  every decision about the dial rate with what it was made on and what came of it\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_commas_quotes_and_line_breaks_stay_one_field() {
        let mut csv = String::new();
        push_row(&mut csv, &["a,b".into(), "c\"d".into(), String::new(), "e\nf".into()]);
        assert_eq!(csv, "\"a,b\",\"c\"\"d\",,\"e\nf\"\r\n");
    }

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(plain("../ä b/c-1"), "_____b_c-1");
    }
}
