//! A load of interactions that ask a decision service where to go, as Architect's data
//! actions would: so many a second, some of them twice.
//!
//! Requests are due at fixed times whatever became of those before, as far as `concurrency`
//! allows; how late each was sent is recorded beside its latency.

mod ask;
mod settings;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::chance::Chance;
use crate::time::Timestamp;
pub(crate) use ask::work;
pub(crate) use settings::DecisionSettings;

/// Answers kept before the oldest are forgotten.
const MAX_ANSWERS: usize = 1_000_000;
/// Interactions that may ask again.
const RECENT: usize = 10_000;
/// Half of the repeats are of these: mostly still under way.
const NEWEST: u64 = 50;

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Question {
    /// Since the load began.
    pub due: Duration,
    pub conversation_id: Uuid,
    pub configuration: usize,
    /// Which of the service's addresses is asked.
    pub address: usize,
    pub repeat: bool,
}

/// What came back, and how long it took.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub question: Question,
    pub sent_at: Timestamp,
    /// How long after its time it was sent.
    pub late: Duration,
    pub latency: Duration,
    pub outcome: Result<Decided, String>,
}

/// The service's answer, as far as it is looked at.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Decided {
    pub destination_id: String,
    pub source: String,
    pub sequence: Option<u64>,
    pub revision: Option<u64>,
}

/// A page of answers.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerPage {
    pub items: Vec<Value>,
    /// What to pass as `since` for the answers after these; null when there are none yet.
    pub next: Option<u64>,
    pub last: u64,
    /// Answers forgotten because there were too many.
    pub dropped: u64,
}

/// Where the load stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    pub running: bool,
    pub settings: Option<DecisionSettings>,
    pub asked: u64,
    pub answered: u64,
    /// Without an answer that says where to go: the flow takes its default.
    pub failed: u64,
    pub sources: BTreeMap<String, u64>,
    pub destinations: BTreeMap<String, u64>,
    /// Of the answers held, in milliseconds.
    pub latency_ms: Option<Percentiles>,
    pub last_problem: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// One load at a time, and the answers of the last.
#[derive(Debug, Default)]
pub(crate) struct DecisionLoad {
    run: Option<Run>,
    answers: VecDeque<Answer>,
    last: u64,
    failed: u64,
    sources: BTreeMap<String, u64>,
    destinations: BTreeMap<String, u64>,
    last_problem: Option<String>,
}

#[derive(Debug)]
struct Run {
    settings: Arc<DecisionSettings>,
    chance: Chance,
    asked: u64,
    recent: VecDeque<(Uuid, usize)>,
    stop: CancellationToken,
}

impl DecisionLoad {
    /// Forgets the last load and begins another. The caller starts the workers, which end
    /// with the token.
    ///
    /// # Errors
    /// All that is impossible about the settings, or that one is running.
    pub(crate) fn begin(
        &mut self,
        settings: DecisionSettings,
        seed: u64,
        stop: CancellationToken,
    ) -> Result<Arc<DecisionSettings>, String> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        if self.is_running() {
            return Err("a load is running; stop it first with DELETE".into());
        }
        let settings = Arc::new(settings);
        let chance = Chance::new(seed, "decisions");
        let run = Run { settings: settings.clone(), chance, asked: 0, recent: VecDeque::new(), stop };
        *self = Self { run: Some(run), ..Self::default() };
        Ok(settings)
    }

    /// Questions under way are still answered and recorded.
    pub(crate) fn stop(&self) {
        if let Some(run) = &self.run {
            run.stop.cancel();
        }
    }

    fn is_running(&self) -> bool {
        self.run.as_ref().is_some_and(|run| !run.stop.is_cancelled() && !run.is_over())
    }

    /// The next question; none when the load is over.
    pub(crate) fn next(&mut self) -> Option<Question> {
        let run = self.run.as_mut().filter(|run| !run.is_over())?;
        Some(run.next())
    }

    pub(crate) fn record(&mut self, answer: Answer) {
        match &answer.outcome {
            Ok(decided) => {
                count(&mut self.sources, &decided.source);
                count(&mut self.destinations, &decided.destination_id);
            }
            Err(problem) => {
                self.failed += 1;
                self.last_problem = Some(problem.clone());
            }
        }
        self.last += 1;
        self.answers.push_back(answer);
        if self.answers.len() > MAX_ANSWERS {
            self.answers.pop_front();
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            running: self.is_running(),
            settings: self.run.as_ref().map(|run| (*run.settings).clone()),
            asked: self.run.as_ref().map_or(0, |run| run.asked),
            answered: self.last - self.failed,
            failed: self.failed,
            sources: self.sources.clone(),
            destinations: self.destinations.clone(),
            latency_ms: self.percentiles(),
            last_problem: self.last_problem.clone(),
        }
    }

    fn percentiles(&self) -> Option<Percentiles> {
        let mut latencies: Vec<Duration> = self.answers.iter().map(|answer| answer.latency).collect();
        latencies.sort_unstable();
        let at = |share: f64| {
            let rank = (share * latencies.len() as f64).ceil() as usize;
            latencies.get(rank.max(1) - 1).map(milliseconds)
        };
        Some(Percentiles { p50: at(0.50)?, p99: at(0.99)?, max: at(1.0)? })
    }

    /// Answers after `since` in the order they came, at most `limit`.
    pub(crate) fn page(&self, since: u64, limit: usize) -> AnswerPage {
        let dropped = self.last - self.answers.len() as u64;
        let skipped = usize::try_from(since.saturating_sub(dropped)).unwrap_or(usize::MAX);
        let first = dropped.saturating_add(skipped as u64).saturating_add(1);
        let held = self.answers.iter().skip(skipped).take(limit);
        let configurations = self.run.as_ref().map(|run| &run.settings.configuration_ids);
        let items: Vec<Value> = (first..)
            .zip(held)
            .map(|(sequence, answer)| {
                let named = configurations.and_then(|ids| ids.get(answer.question.configuration));
                answer.shown(sequence, named.map_or("", String::as_str))
            })
            .collect();
        let reached = first - 1 + items.len() as u64;
        let next = (!items.is_empty() && reached < self.last).then_some(reached);
        AnswerPage { items, next, last: self.last, dropped }
    }
}

impl Run {
    fn is_over(&self) -> bool {
        self.settings.limit.is_some_and(|limit| self.asked >= limit)
    }

    fn next(&mut self) -> Question {
        let due = Duration::from_secs_f64(self.asked as f64 / self.settings.rate_per_second);
        self.asked += 1;
        let last = |count: usize| count.saturating_sub(1) as u64;
        let address = self.chance.between(0, last(self.settings.to.len())) as usize;
        let repeat = !self.recent.is_empty() && self.chance.happens(self.settings.repeat_share);
        let (conversation_id, configuration) = if repeat {
            let span = if self.chance.happens(0.5) { NEWEST } else { u64::MAX };
            let newest = last(self.recent.len());
            self.recent[self.chance.between(newest.saturating_sub(span.saturating_sub(1)), newest) as usize]
        } else {
            let configuration = self.chance.between(0, last(self.settings.configuration_ids.len())) as usize;
            (self.chance.uuid(), configuration)
        };
        if !repeat {
            self.recent.push_back((conversation_id, configuration));
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
        Question { due, conversation_id, configuration, address, repeat }
    }
}

impl Answer {
    fn shown(&self, sequence: u64, configuration_id: &str) -> Value {
        let mut shown = json!({
            "answer": sequence,
            "conversationId": self.question.conversation_id,
            "configurationId": configuration_id,
            "address": self.question.address,
            "repeat": self.question.repeat,
            "sentAt": self.sent_at,
            "lateMs": milliseconds(&self.late),
            "latencyMs": milliseconds(&self.latency),
        });
        match &self.outcome {
            Ok(decided) => {
                shown["destinationId"] = json!(decided.destination_id);
                shown["source"] = json!(decided.source);
                shown["sequence"] = json!(decided.sequence);
                shown["revision"] = json!(decided.revision);
            }
            Err(problem) => shown["problem"] = json!(problem),
        }
        shown
    }
}

fn milliseconds(duration: &Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// Texts come from the service under test: only so many different ones are counted.
fn count(counts: &mut BTreeMap<String, u64>, text: &str) {
    if counts.len() < 1_000 || counts.contains_key(text) {
        *counts.entry(text.to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> DecisionSettings {
        DecisionSettings {
            to: vec!["http://127.0.0.1:1".into(), "http://127.0.0.1:2".into()],
            configuration_ids: vec!["a".into(), "b".into()],
            rate_per_second: 100.0,
            repeat_share: 0.2,
            limit: Some(2_000),
            ..DecisionSettings::default()
        }
    }

    #[test]
    fn questions_come_at_the_rate_and_repeats_ask_the_same_configuration() {
        let questions = |seed| {
            let mut load = DecisionLoad::default();
            load.begin(settings(), seed, CancellationToken::new()).unwrap();
            std::iter::from_fn(|| load.next()).collect::<Vec<_>>()
        };
        let asked = questions(5);
        assert_eq!(asked, questions(5));
        assert_ne!(asked, questions(6));
        assert_eq!((asked.len(), asked[100].due), (2_000, Duration::from_secs(1)));
        let repeats = asked.iter().filter(|question| question.repeat).count();
        assert!((330..470).contains(&repeats), "{repeats}");
        let mut first = BTreeMap::new();
        for question in &asked {
            let configuration = *first.entry(question.conversation_id).or_insert(question.configuration);
            assert_eq!(configuration, question.configuration);
        }
        assert_eq!(first.len(), 2_000 - repeats);
    }

    #[test]
    fn one_load_at_a_time_and_impossible_ones_never() {
        let mut load = DecisionLoad::default();
        let stop = CancellationToken::new();
        let impossible = DecisionSettings { rate_per_second: 0.0, to: vec![], ..settings() };
        let problem = load.begin(impossible, 1, stop.clone()).unwrap_err();
        assert!(problem.contains("ratePerSecond") && problem.contains("to"), "{problem}");
        load.begin(settings(), 1, stop.clone()).unwrap();
        assert!(load.begin(settings(), 1, stop.clone()).is_err());
        load.stop();
        assert!(stop.is_cancelled() && !load.standing().running);
        load.begin(settings(), 1, CancellationToken::new()).unwrap();
    }
}
