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
mod tests {
    use super::*;
    use crate::model::decision::{Loop, Policy};
    use serde_json::json;

    fn entry() -> LedgerEntry {
        let at = Timestamp::from_millis(1_767_323_045_678);
        let decision_id = DecisionId::derive(Loop::Dial, "campaign-7", 42, at);
        LedgerEntry {
            decision_id,
            sequence: 42,
            r#loop: "dial".into(),
            key: "campaign-7".into(),
            mode: "live".into(),
            decided_at: at,
            event_time: at,
            action: "set_dial_rate".into(),
            reason: "above_target".into(),
            parameters: json!({"previousDialRate": 2.0, "dialRate": 1.7}),
            inputs: json!({"answerRates": [0.5, 0.4], "meanAnswerRate": 0.45, "dialRate": 2.0,
                          "minDialRate": 0.5, "maxDialRate": 3.0}),
            policy: Policy { name: "proportional".into(), version: 1, hash: "0123456789abcdef".into() },
            settings_revision: 0,
            cause_ids: json!(["trunkline.campaign-windows.v1/0/41"]),
            expires_at: at,
            outcome: Some(OutcomeEntry {
                decision_id,
                r#loop: "dial".into(),
                key: "campaign-7".into(),
                sequence: 42,
                status: "applied".into(),
                reason: "confirmed".into(),
                attempts: 2,
                request: Some(json!({"method": "PUT", "path": "/api/v2/outbound/campaigns/campaign-7",
                                     "ifMatch": "\"7\"", "body": {"dialRate": 1.7}})),
                response: Some(
                    json!({"status": 200, "body": "ok\u{1b}]0;owned\u{7}", "correlationId": "c-1"}),
                ),
                requested_at: Some(at),
                finished_at: at,
                effect: Some(json!({"previousDialRate": 2.0, "dialRate": 1.7})),
                waited: Some(json!({"turnMs": 200, "budgetMs": 12_400, "pausesMs": 5_000,
                                    "pausedFor": "HTTP 503"})),
            }),
            verification: None,
            position: "trunkline.dial-decisions.v1/0/41".into(),
        }
    }

    fn chained() -> LedgerEntry {
        let limits = json!([
            {"limit": "budget", "value": 3.0}, {"limit": "brake", "value": 3.0}, {"limit": "slew", "value": 2.5},
        ]);
        let shadow = json!({"policy": "proportional", "policyVersion": 2, "policyHash": "0", "dialRate": 3,
            "reason": "at_greatest_rate",
            "chain": {"raw": 7.5, "limits": [{"limit": "maximum", "value": 3.0}], "bound": "maximum"}});
        let parameters = json!({"previousDialRate": 2.0, "dialRate": 2.5,
            "chain": {"raw": 4.5, "limits": limits, "bound": "slew"},
            "holds": ["lag_error:trunkline-dialing"], "shadow": shadow});
        LedgerEntry { parameters, ..entry() }
    }

    fn known() -> Known {
        Known {
            now: entry().expires_at,
            rule: Some(json!({"target": 0.85})),
            names: [("campaign-7".to_owned(), "Renewals".to_owned())].into(),
        }
    }

    #[test]
    fn without_an_outcome_it_says_why() {
        let now = entry().expires_at;
        let told = |of: &str, now| without_outcome(&LedgerEntry { r#loop: of.into(), ..entry() }, now);
        assert!(told("route", now).contains("carried out by being given"));
        assert!(told("lag", now).contains("nothing is changed"));
        assert!(told("dial", now).starts_with("none yet: the role actuator"));
        let late = now.plus(std::time::Duration::from_secs(1));
        assert!(told("rollback", late).contains("is the role rollback-actuator running"));
    }

    #[test]
    fn a_rule_of_other_numbers_is_not_made_up() {
        let text = render(&entry(), &Known { rule: None, ..known() }, false);
        assert!(text.contains("not those of the configuration here") && !text.contains("0.85"), "{text}");
    }

    #[test]
    fn everything_that_was_asked_for_is_told() {
        let text = render(&entry(), &known(), false);
        for expected in [
            &entry().decision_id.to_string(),
            "dial of Renewals (campaign-7), number 42",
            "target               0.85",
            "2 × 0.85 ÷ 0.450 = 3.78, limits 0.5 to 3",
            "0123456789abcdef",
            "set_dial_rate: 2 → 1.7 lines per idle agent",
            "answerRates          0.5 0.4",
            "proportional version 1",
            "the configuration alone (revision 0)",
            "applied, 2 attempts",
            "PUT /api/v2/outbound/campaigns/campaign-7 at 2026-01-02T03:04:05.678Z",
            "  If-Match           \"7\"",
            "{\"dialRate\":1.7}",
            "waited               0.2 s for its turn, 12.4 s for the shared budget, 5.0 s between tries (HTTP 503)",
            "came back            200",
            "trunkline.dial-decisions.v1/0/41",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        let told = render(&chained(), &known(), false);
        for expected in [
            "came to be           4.5 → 3 by budget → 2.5 by slew (bound)",
            "held by              lag_error:trunkline-dialing",
            "in shadow            proportional version 2: 3, at_greatest_rate",
            "  came to be         7.5 → 3 by maximum (bound)",
        ] {
            assert!(told.contains(expected), "{expected:?} is not in\n{told}");
        }
        let open = LedgerEntry { outcome: None, ..entry() };
        assert!(render(&open, &known(), false).contains("none yet"));
    }

    #[test]
    fn only_our_own_colours_reach_a_terminal() {
        assert!(!render(&entry(), &known(), false).contains('\u{1b}'));
        let coloured = render(&entry(), &known(), true);
        assert!(coloured.contains("\u{1b}[32mapplied\u{1b}[0m"));
        assert!(coloured.contains("ok\\u{1b}]0;owned\\u{7}"), "{coloured}");
        assert!(!coloured.contains("\u{1b}]"));
    }
}
