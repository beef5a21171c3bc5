//! `trunkline explain DECISION_ID`: what was decided, from which inputs, under which
//! policy and settings, what was sent, what came back.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;
use uuid::Uuid;

use super::ConfigFile;
use super::known::Known;
use crate::config::Needs;
use crate::model::Timestamp;
use crate::model::chain::Chain;
use crate::model::decision::DecisionId;
use crate::model::outcome::Waited;
use crate::postgres::ledger::{LedgerEntry, OutcomeEntry};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The decision's id, as in audit.decisions or from /v1/decisions
    #[arg(value_name = "DECISION_ID")]
    id: Uuid,
    #[command(flatten)]
    config: ConfigFile,
    /// The decision as on its topic, with its outcome
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.config.load(Needs::Postgres)?;
        let database = super::start::database(&config).await?;
        let entry = database.decision(DecisionId(self.id)).await?.with_context(|| {
            format!(
                "there is no decision {}; a decision taken just now is here once the audit has recorded it",
                self.id
            )
        })?;
        let mut out = std::io::stdout();
        if self.json {
            super::print_json(&entry)?;
        } else {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let known = Known::of(&entry, &config, &database).await;
            write!(out, "{}", render(&entry, &known, out.is_terminal() && !no_color))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The decision for people, in lines. With `colour` headings are bold and the
/// outcome is green, yellow or red. Control characters from outside never reach the
/// terminal.
pub fn render(entry: &LedgerEntry, known: &Known, colour: bool) -> String {
    let mut page = Page { text: String::new(), colour };
    page.heading(&format!("Decision {}", entry.decision_id));
    let about = known.called(&entry.key);
    page.line("about", &format!("{} of {about}, number {}", entry.r#loop, entry.sequence));
    if let Some(organization) = &entry.organization {
        page.line("organisation", organization);
    }
    page.line("decided", &decided(entry));
    if let Some(said) = super::canary::sentence(entry) {
        page.line("that is", &said);
    }
    page.line("why", &entry.reason);
    let expiry = format!("facts of {}, not to be applied after {}", entry.event_time, entry.expires_at);
    page.line("when", &format!("{}, on {expiry}", entry.decided_at));
    page.line("mode", &entry.mode);

    page.heading("Inputs");
    page.fields(&entry.inputs);
    page.heading("Rule");
    page.line("policy", &format!("{} version {}", entry.policy.name, entry.policy.version));
    match &known.rule {
        Some(numbers) => page.fields(numbers),
        None => page.line("numbers", "not those of the configuration here"),
    }
    if let Some(sum) = known.rule.as_ref().and_then(|rule| sum(rule, &entry.inputs)) {
        page.line("sum", &sum);
    }
    page.line("hash of the numbers", &entry.policy.hash);
    page.chain(&entry.parameters);
    let settings = match entry.settings_revision {
        0 => "the configuration alone (revision 0)".to_owned(),
        revision => format!("revision {revision}"),
    };
    page.line("settings", &settings);
    page.line("caused by", &texts(&entry.cause_ids));
    page.line("recorded at", &entry.position);

    match &entry.outcome {
        Some(outcome) => page.outcome(outcome),
        None => {
            page.heading("Outcome");
            page.line("", &without_outcome(entry, known.now));
        }
    }
    if let Some(found) = &entry.verification {
        page.heading("Looked at again");
        page.line("status", &found.status);
        page.line("why", &found.reason);
        page.line("finished", &found.finished_at.to_string());
    }
    page.text
}

/// Why there is no outcome.
fn without_outcome(entry: &LedgerEntry, now: Timestamp) -> String {
    let actuator = match entry.r#loop.as_str() {
        "route" => return "none: a routing decision is carried out by being given".to_owned(),
        "lag" => return "none: people are told, nothing is changed".to_owned(),
        "rollback" => "rollback-actuator",
        "delivery" if entry.action == "promote" => "promotion-actuator",
        "delivery" => "canary-shares",
        _ => "actuator",
    };
    if now > entry.expires_at {
        return format!(
            "none, although it was not to be applied after {}: is the role {actuator} running, and the role audit?",
            entry.expires_at
        );
    }
    format!("none yet: the role {actuator} carries it out or lets it expire at {}", entry.expires_at)
}

/// The rule with the decision's own numbers, for dial rates.
fn sum(rule: &Value, inputs: &Value) -> Option<String> {
    let input = |name: &str| inputs.get(name)?.as_f64();
    let (target, rate, mean) = (rule.get("target")?.as_f64()?, input("dialRate")?, input("meanAnswerRate")?);
    let (min, max) = (input("minDialRate")?, input("maxDialRate")?);
    (mean > 0.0).then(|| {
        format!("{rate} × {target} ÷ {mean:.3} = {:.2}, limits {min} to {max}", rate * target / mean)
    })
}

struct Page {
    text: String,
    colour: bool,
}

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Page {
    fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let text = self.painted(&printable(text), BOLD);
        let _ = writeln!(self.text, "{text}");
    }

    fn line(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.text, "  {name:<20} {}", printable(text));
    }

    fn fields(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| self.line(&printable(name), &texts(value)))
            }
            other => self.line("", &texts(other)),
        }
    }

    /// How the value came to be, and what another policy would have made of it.
    fn chain(&mut self, parameters: &Value) {
        if let Some(steps) = parameters.get("chain").and_then(chain) {
            self.line("came to be", &steps);
        }
        if let Some(holds) = parameters.get("holds") {
            self.line("held by", &texts(holds));
        }
        let Some(shadow) = parameters.get("shadow") else { return };
        let (policy, version) = (text_of(shadow, "policy"), text_of(shadow, "policyVersion"));
        let (rate, reason) = (text_of(shadow, "dialRate"), text_of(shadow, "reason"));
        self.line("in shadow", &format!("{policy} version {version}: {rate}, {reason}"));
        if let Some(steps) = shadow.get("chain").and_then(chain) {
            self.line("  came to be", &steps);
        }
    }

    fn outcome(&mut self, outcome: &OutcomeEntry) {
        self.heading("Outcome");
        let colour = match outcome.status.as_str() {
            "applied" | "recovered" => GREEN,
            "conflicted" | "failed" | "not_recovered" => RED,
            _ => YELLOW,
        };
        let status = self.painted(&printable(&outcome.status), colour);
        let attempts = match outcome.attempts {
            1 => "1 attempt".to_owned(),
            attempts => format!("{attempts} attempts"),
        };
        let _ = writeln!(self.text, "  {:<20} {status}, {attempts}", "status");
        self.line("why", &outcome.reason);
        match &outcome.request {
            Some(request) => {
                let at = outcome.requested_at.map(|at| format!(" at {at}")).unwrap_or_default();
                self.line(
                    "sent",
                    &format!("{} {}{at}", text_of(request, "method"), text_of(request, "path")),
                );
                for (name, field) in [("  If-Match", "ifMatch"), ("  body", "body")] {
                    if let Some(value) = request.get(field) {
                        self.line(name, &texts(value));
                    }
                }
            }
            None => self.line("sent", "nothing"),
        }
        match &outcome.response {
            Some(response) => {
                let status = response.get("status").map_or_else(|| "no reply".to_owned(), texts);
                self.line("came back", &status);
                for (name, field) in
                    [("  error", "error"), ("  body", "body"), ("  correlation", "correlationId")]
                {
                    if let Some(value) = response.get(field) {
                        self.line(name, &texts(value));
                    }
                }
            }
            None => self.line("came back", "nothing"),
        }
        if let Some(effect) = &outcome.effect {
            self.line("in force", &change(effect).unwrap_or_else(|| texts(effect)));
        }
        if let Some(waited) = outcome.waited.as_ref().and_then(Waited::of) {
            self.line("waited", &waited.to_string());
        }
        self.line("finished", &outcome.finished_at.to_string());
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn decided(entry: &LedgerEntry) -> String {
    match change(&entry.parameters) {
        Some(change) => format!("{}: {change}", entry.action),
        None => format!("{} {}", entry.action, texts(&entry.parameters)),
    }
}

/// `2 → 1.7 lines per idle agent`, or `version 12 → 11`.
fn change(parameters: &Value) -> Option<String> {
    if let Some(version) = parameters.get("version")
        && parameters.get("canaryId").is_none()
    {
        return Some(format!("version {} → {}", text_of(parameters, "previousVersion"), texts(version)));
    }
    let rate = |field| parameters.get(field)?.as_f64();
    Some(format!("{} → {} lines per idle agent", rate("previousDialRate")?, rate("dialRate")?))
}

/// `4.5 → 3 by budget → 2.5 by slew (bound) → 2.5`: limits that changed nothing are left out.
fn chain(chain: &Value) -> Option<String> {
    let chain: Chain = serde_json::from_value(chain.clone()).ok()?;
    let mut text = chain.raw.to_string();
    let mut value = chain.raw;
    for limited in
        chain.limits.iter().filter(|limited| std::mem::replace(&mut value, limited.value) != limited.value)
    {
        let bound = if chain.bound == Some(limited.limit) { " (bound)" } else { "" };
        let _ = write!(text, " → {} by {}{bound}", limited.value, limited.limit.name());
    }
    Some(text)
}

pub(super) fn text_of(value: &Value, field: &str) -> String {
    value.get(field).map(texts).unwrap_or_default()
}

/// Texts as they are, lists with spaces, everything else as JSON.
pub(super) fn texts(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            items.iter().map(texts).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Texts from outside are not trusted: what could steer a terminal is spelled out.
pub(super) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut clean, character| {
        if character.is_control() {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
        clean
    })
}

#[cfg(test)]
mod tests;
