//! Faults that can be switched on over HTTP: which requests they hit and what they do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;

/// Rules at once.
pub(crate) const MAX_RULES: usize = 1_000;
/// A reply is delayed this long at most.
pub(crate) const MAX_DELAY_MS: u64 = 600_000;
/// The largest body a fault sends.
pub(crate) const MAX_FAULT_BODY_BYTES: u64 = 2 << 30;

/// One rule. Of all rules that match a request the delays add up, and the first
/// other one acts; the rest are not used up by it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    #[serde(rename = "match", default)]
    pub matching: Match,
    /// How often the rule acts; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Chance of acting on a request that matches, 0–1; always when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    pub fault: Fault,
}

/// Which requests; an absent member matches all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A prefix of the path; with `*` in it a pattern for the whole path, where `*` is any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The campaign the path names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
}

/// What goes wrong. "Effect" is what the request would have changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// This status with the platform's error body, instead of or after the effect.
    Status {
        code: u16,
        #[serde(default)]
        retry_after: RetryAfter,
        #[serde(default)]
        seconds: f64,
        #[serde(default)]
        after_effect: bool,
        /// With 429: which family of calls is throttled, as `limit.namespace` tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
    },
    /// The reply comes later; the effect does too unless `afterEffect`.
    Delay {
        ms: u64,
        #[serde(default)]
        after_effect: bool,
    },
    /// The connection is closed without a reply, nothing has happened.
    DropBeforeEffect,
    /// The connection is closed without a reply, the effect has taken place.
    DropAfterEffect,
    /// Half of the announced body, then the connection is closed. After the effect.
    TruncateBody,
    /// A body that is no JSON. After the effect.
    GarbageBody,
    /// A proxy's error page with status 200.
    #[serde(rename = "html_with_200")]
    HtmlWith200 {
        #[serde(default)]
        after_effect: bool,
    },
    /// Sends the client elsewhere, without effect.
    Redirect { location: String },
    /// The true reply, dripping. After the effect.
    SlowBody { bytes_per_second: u32 },
    /// A body of spaces around the true one, so long. After the effect.
    HugeBody { bytes: u64 },
    /// The same, gzipped: a thousandth on the wire, `bytes` once unpacked. After the effect.
    GzipBomb { bytes: u64 },
}

/// How `Retry-After` is spelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// Whole seconds, rounded up.
    Int,
    /// Seconds with decimals.
    Float,
    /// An HTTP date, rounded up to its second.
    Date,
    #[default]
    Missing,
}

impl RetryAfter {
    /// The header's text, if there is to be one; `now_ms` is Unix time.
    pub fn text(self, seconds: f64, now_ms: i64) -> Option<String> {
        match self {
            Self::Int => Some(format!("{}", seconds.ceil() as u64)),
            Self::Float => Some(format!("{seconds:.3}")),
            Self::Date => {
                let at = (now_ms as f64 / 1_000.0 + seconds).ceil() as i64;
                let at = jiff::Timestamp::from_second(at).ok()?;
                jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()
            }
            Self::Missing => None,
        }
    }
}

impl Fault {
    /// As it is spelled in rules and in the request log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Delay { .. } => "delay",
            Self::DropBeforeEffect => "drop_before_effect",
            Self::DropAfterEffect => "drop_after_effect",
            Self::TruncateBody => "truncate_body",
            Self::GarbageBody => "garbage_body",
            Self::HtmlWith200 { .. } => "html_with_200",
            Self::Redirect { .. } => "redirect",
            Self::SlowBody { .. } => "slow_body",
            Self::HugeBody { .. } => "huge_body",
            Self::GzipBomb { .. } => "gzip_bomb",
        }
    }

    /// Whether the request is carried out all the same.
    pub fn lets_effect_happen(&self) -> bool {
        match self {
            Self::Status { after_effect, .. } | Self::HtmlWith200 { after_effect } => *after_effect,
            Self::DropBeforeEffect | Self::Redirect { .. } => false,
            _ => true,
        }
    }

    fn problem(&self) -> Option<String> {
        match self {
            Self::Status { code, namespace: Some(_), .. } if *code != 429 => {
                Some("status: namespace goes with code 429 alone".into())
            }
            Self::Status { code, seconds, .. } => {
                let allowed = (200..=599).contains(code) && (0.0..=86_400.0).contains(seconds);
                (!allowed).then(|| format!("status: code {code} must be 200–599, seconds {seconds} 0–86400"))
            }
            Self::Delay { ms, .. } => {
                (*ms > MAX_DELAY_MS).then(|| format!("delay: ms {ms} must be at most {MAX_DELAY_MS}"))
            }
            Self::SlowBody { bytes_per_second: 0 } => {
                Some("slow_body: bytesPerSecond must be at least 1".into())
            }
            Self::HugeBody { bytes } | Self::GzipBomb { bytes } => (*bytes > MAX_FAULT_BODY_BYTES)
                .then(|| format!("{}: bytes {bytes} must be at most {MAX_FAULT_BODY_BYTES}", self.name())),
            _ => None,
        }
    }
}

impl Match {
    fn covers(&self, method: &str, path: &str, campaign: Option<&str>) -> bool {
        self.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.campaign.as_deref().is_none_or(|wanted| campaign == Some(wanted))
            && self.path.as_deref().is_none_or(|pattern| path_matches(pattern, path))
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return path.starts_with(pattern) };
    let Some(mut left) = path.strip_prefix(first) else { return false };
    // All but the last part take their first place: what stands between does not matter.
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

/// What the rules do to one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub delay_before: Duration,
    pub delay_after: Duration,
    pub fault: Option<Fault>,
}

impl Plan {
    /// Names of all that acts, for the request log.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let delayed = !self.delay_before.is_zero() || !self.delay_after.is_zero();
        delayed.then_some("delay").into_iter().chain(self.fault.as_ref().map(Fault::name)).collect()
    }
}

/// A rule and how often it has acted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct RuleInForce {
    #[serde(flatten)]
    pub rule: FaultRule,
    pub applied: u64,
}

/// The rules in force. Drawn from the seed: the same rules see the same requests the same way.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    chance: Chance,
    rules: Vec<RuleInForce>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, chance: Chance::new(seed, "faults"), rules: Vec::new() }
    }

    /// Puts these rules in place of all others and starts the draws anew.
    ///
    /// # Errors
    /// What is impossible about the rules; nothing is changed then.
    pub(crate) fn replace(&mut self, rules: Vec<FaultRule>) -> Result<(), String> {
        check(&rules, 0)?;
        self.chance = Chance::new(self.seed, "faults");
        self.rules.clear();
        self.put_in_force(rules);
        Ok(())
    }

    /// Puts these rules behind those in force, which keep their counts.
    ///
    /// # Errors
    /// What is impossible about the rules; nothing is changed then.
    pub(crate) fn add(&mut self, rules: Vec<FaultRule>) -> Result<(), String> {
        check(&rules, self.rules.len())?;
        self.put_in_force(rules);
        Ok(())
    }

    fn put_in_force(&mut self, rules: Vec<FaultRule>) {
        self.rules.extend(rules.into_iter().map(|rule| RuleInForce { rule, applied: 0 }));
    }

    pub(crate) fn rules(&self) -> &[RuleInForce] {
        &self.rules
    }

    /// Decides what happens to a request and uses up the rules that act.
    pub(crate) fn plan(&mut self, method: &str, path: &str, campaign: Option<&str>) -> Plan {
        let mut plan = Plan::default();
        for RuleInForce { rule, applied } in &mut self.rules {
            let spent = rule.times.is_some_and(|times| *applied >= times);
            let is_delay = matches!(rule.fault, Fault::Delay { .. });
            if spent || (!is_delay && plan.fault.is_some()) || !rule.matching.covers(method, path, campaign) {
                continue;
            }
            if rule.probability.is_some_and(|probability| !self.chance.happens(probability)) {
                continue;
            }
            *applied += 1;
            match &rule.fault {
                Fault::Delay { ms, after_effect: false } => plan.delay_before += Duration::from_millis(*ms),
                Fault::Delay { ms, after_effect: true } => plan.delay_after += Duration::from_millis(*ms),
                fault => plan.fault = Some(fault.clone()),
            }
        }
        let longest = Duration::from_millis(MAX_DELAY_MS);
        plan.delay_before = plan.delay_before.min(longest);
        plan.delay_after = plan.delay_after.min(longest);
        plan
    }
}

fn check(rules: &[FaultRule], in_force: usize) -> Result<(), String> {
    if rules.len() + in_force > MAX_RULES {
        return Err(format!("{} rules, at most {MAX_RULES} are allowed", rules.len() + in_force));
    }
    for (index, rule) in rules.iter().enumerate() {
        if let Some(problem) = rule.fault.problem() {
            return Err(format!("rule {index}: {problem}"));
        }
        if rule.probability.is_some_and(|probability| !(0.0..=1.0).contains(&probability)) {
            return Err(format!("rule {index}: probability must be from 0 to 1"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<FaultRule> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rules_are_spelled_as_promised() {
        let text = r#"[
            {"match":{"method":"PUT","path":"/api/v2/campaigns/*","campaign":"c"},"times":2,"probability":0.5,
             "fault":{"type":"status","code":429,"retryAfter":"float","seconds":1.5}},
            {"fault":{"type":"delay","ms":10,"afterEffect":true}},
            {"fault":{"type":"drop_before_effect"}}, {"fault":{"type":"drop_after_effect"}},
            {"fault":{"type":"truncate_body"}}, {"fault":{"type":"garbage_body"}},
            {"fault":{"type":"html_with_200"}}, {"fault":{"type":"redirect","location":"http://elsewhere"}},
            {"fault":{"type":"slow_body","bytesPerSecond":10}}, {"fault":{"type":"huge_body","bytes":1000}},
            {"fault":{"type":"gzip_bomb","bytes":1000}}]"#;
        let rules = rules(text);
        let mut faults = Faults::new(1);
        faults.replace(rules.clone()).unwrap();
        let names: Vec<_> = rules.iter().map(|rule| rule.fault.name()).collect();
        let spelled = serde_json::to_value(&rules).unwrap();
        for (index, name) in names.iter().enumerate() {
            assert_eq!(spelled[index]["fault"]["type"], *name);
        }
        assert!(serde_json::from_str::<FaultRule>(r#"{"fault":{"type":"delay","ms":1,"mss":2}}"#).is_err());
        assert!(serde_json::from_str::<FaultRule>(r#"{"fault":{"type":"explode"}}"#).is_err());
    }

    #[test]
    fn the_first_rule_acts_as_often_as_it_may_and_delays_add_up() {
        let mut faults = Faults::new(1);
        faults
            .replace(rules(
                r#"[{"match":{"method":"put"},"times":2,"fault":{"type":"drop_after_effect"}},
                    {"fault":{"type":"delay","ms":5}}, {"fault":{"type":"delay","ms":7}},
                    {"match":{"path":"/api"},"times":1,"fault":{"type":"status","code":503}}]"#,
            ))
            .unwrap();
        let mut fault = |method: &str| {
            let plan = faults.plan(method, "/api/v2/campaigns/c", Some("c"));
            assert_eq!(plan.delay_before, Duration::from_millis(12));
            plan.fault.map(|fault| fault.name())
        };
        let seen = [fault("PUT"), fault("GET"), fault("PUT"), fault("PUT"), fault("GET")];
        assert_eq!(seen, [Some("drop_after_effect"), Some("status"), Some("drop_after_effect"), None, None]);
        let applied: Vec<_> = faults.rules().iter().map(|rule| rule.applied).collect();
        assert_eq!(applied, [2, 5, 5, 1]);
    }

    #[test]
    fn paths_match_by_prefix_or_pattern() {
        for (pattern, path, expected) in [
            ("/api", "/api/v2/x", true),
            ("/api", "/oauth/token", false),
            ("/api/*/stats", "/api/v2/campaigns/c/stats", true),
            ("/api/*/stats", "/api/v2/campaigns/c", false),
            ("/api/v2/campaigns/*", "/api/v2/campaigns/c", true),
            ("*c*stats", "/api/v2/campaigns/c/stats", true),
            ("*/nothing/*", "/api/v2/campaigns/c/stats", false),
            ("*", "", true),
            ("*ab", "b", false),
        ] {
            assert_eq!(path_matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_probability_is_kept_and_repeats_with_the_seed() {
        let run = |seed| {
            let mut faults = Faults::new(seed);
            faults.replace(rules(r#"[{"probability":0.3,"fault":{"type":"garbage_body"}}]"#)).unwrap();
            (0..1_000).map(|_| faults.plan("GET", "/", None).fault.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
        assert!((250..350).contains(&run(5).iter().filter(|hit| **hit).count()));
    }

    #[test]
    fn retry_after_has_four_spellings() {
        let now_ms = 1_767_323_045_678;
        let text = |form: RetryAfter| form.text(1.5, now_ms);
        assert_eq!(text(RetryAfter::Int).as_deref(), Some("2"));
        assert_eq!(text(RetryAfter::Float).as_deref(), Some("1.500"));
        assert_eq!(text(RetryAfter::Date).as_deref(), Some("Fri, 02 Jan 2026 03:04:08 GMT"));
        assert_eq!(text(RetryAfter::Missing), None);
    }

    #[test]
    fn impossible_rules_change_nothing() {
        let mut faults = Faults::new(1);
        faults.replace(rules(r#"[{"fault":{"type":"garbage_body"}}]"#)).unwrap();
        for bad in [
            r#"[{"fault":{"type":"status","code":99}}]"#,
            r#"[{"fault":{"type":"delay","ms":600001}}]"#,
            r#"[{"probability":1.5,"fault":{"type":"garbage_body"}}]"#,
            r#"[{"fault":{"type":"slow_body","bytesPerSecond":0}}]"#,
            r#"[{"fault":{"type":"gzip_bomb","bytes":3000000000}}]"#,
        ] {
            assert!(faults.replace(rules(bad)).is_err(), "{bad}");
            assert_eq!(faults.rules().len(), 1);
        }
    }
}
