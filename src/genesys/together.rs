//! Reads that are shared: one question about everybody who is asked about answers for a while.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::client::Scope;
use super::error::{CallError, CallErrorKind as Kind};

/// Whoever was not asked about for so many answers is not asked about any more, but not sooner
/// than polls may come apart.
const FORGOTTEN_AFTER: u32 = 120;
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// Ids in one question at most, where nothing else is said.
const QUESTION_LIMIT: usize = 500;

/// The newest answer about things of one kind, and about which of them is asked.
pub(super) struct Together<T> {
    fresh_for: Duration,
    /// Ids in one question at most.
    at_once: usize,
    /// When each was asked about last.
    members: Mutex<BTreeMap<String, Instant>>,
    /// Held while a question is on its way: whoever else asks waits for its answer.
    answer: tokio::sync::Mutex<Option<Answer<T>>>,
}

struct Answer<T> {
    at: Instant,
    asked: Vec<String>,
    told: Result<BTreeMap<String, T>, CallError>,
}

/// What was told about one of them, and how long ago.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Told<T> {
    /// `None`: the answer says nothing of it.
    pub value: Option<T>,
    pub age: Duration,
}

impl<T: Clone> Together<T> {
    pub(super) fn new(fresh_for: Duration) -> Self {
        Self::asking(QUESTION_LIMIT, fresh_for)
    }

    /// About so many at once, if there are more.
    pub(super) fn asking(at_once: usize, fresh_for: Duration) -> Self {
        Self { fresh_for, at_once, members: Mutex::default(), answer: tokio::sync::Mutex::new(None) }
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are asked about.
    pub(super) fn len(&self) -> usize {
        self.members().len()
    }

    /// These will be asked about.
    pub(super) fn expect<'i>(&self, ids: impl IntoIterator<Item = &'i str>) {
        let now = Instant::now();
        self.members().extend(ids.into_iter().map(|id| (id.to_owned(), now)));
    }

    /// What is known of `id`: from the newest answer if it is fresh and was about `id` too,
    /// else `ask` is asked about all.
    ///
    /// # Errors
    /// As `ask`. An error answers everybody for a while, unless it is the asker's own matter.
    pub(super) async fn get<F>(
        &self,
        id: &str,
        scope: &Scope,
        ask: impl Fn(Vec<String>, Scope) -> F,
    ) -> Result<Told<T>, CallError>
    where
        F: Future<Output = Result<BTreeMap<String, T>, CallError>>,
    {
        self.expect([id]);
        let mut answer = scope.wait(self.answer.lock(), || "waiting for a shared answer".to_owned()).await?;
        let fits = |answer: &&Answer<T>| {
            answer.at.elapsed() < self.fresh_for
                && answer.asked.binary_search_by(|asked| asked.as_str().cmp(id)).is_ok()
        };
        if answer.as_ref().filter(fits).is_none() {
            let asked = self.to_ask();
            let at = Instant::now();
            let mut told = Ok(BTreeMap::new());
            for some in asked.chunks(self.at_once) {
                let for_many = Scope { priority: scope.priority.shared(), ..scope.clone() };
                match (ask(some.to_vec(), for_many).await, &mut told) {
                    (Ok(more), Ok(told)) => told.extend(more),
                    (Err(error), _) => {
                        told = Err(error);
                        break;
                    }
                    (Ok(_), Err(_)) => {}
                }
            }
            if let Err(error) = &told
                && matches!(error.kind, Kind::Cancelled | Kind::DeadlinePassed)
            {
                return Err(error.clone());
            }
            *answer = Some(Answer { at, asked, told });
        }
        let answer = answer.as_ref().expect("one is there now");
        let told = answer.told.as_ref().map_err(Clone::clone)?;
        Ok(Told { value: told.get(id).cloned(), age: answer.at.elapsed() })
    }

    /// In order; those that nobody wants to know about any more are forgotten.
    fn to_ask(&self) -> Vec<String> {
        let kept = self.fresh_for.saturating_mul(FORGOTTEN_AFTER).max(REMEMBERED_FOR);
        let mut members = self.members();
        members.retain(|_, asked| asked.elapsed() <= kept);
        members.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio_util::sync::CancellationToken;

    use super::super::priority::Priority;
    use super::*;

    const FRESH: Duration = Duration::from_secs(5);

    fn scope() -> Scope {
        Scope {
            priority: Priority::Read,
            deadline: Instant::now() + Duration::from_secs(60),
            cancelled: CancellationToken::new(),
            withdrawn: CancellationToken::new(),
            waited_ms: Arc::default(),
        }
    }

    /// Answers with how many were asked about, for all but those that begin with an x.
    async fn size(ids: Vec<String>, _: Scope) -> Result<BTreeMap<String, usize>, CallError> {
        let count = ids.len();
        Ok(ids.into_iter().filter(|id| !id.starts_with('x')).map(|id| (id, count)).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_answers_for_all_while_it_is_fresh() {
        let together = Together::new(FRESH);
        together.expect(["a", "b", "xc"]);
        let asked = AtomicUsize::new(0);
        let ask = |ids: Vec<String>, scope: Scope| {
            asked.fetch_add(1, Ordering::Relaxed);
            size(ids, scope)
        };
        for id in ["a", "b"] {
            let told = together.get(id, &scope(), ask).await.unwrap();
            assert_eq!(told.value, Some(3));
        }
        assert_eq!(together.get("xc", &scope(), ask).await.unwrap().value, None, "the answer is silent");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(together.get("a", &scope(), ask).await.unwrap().age, Duration::from_secs(2));
        assert_eq!(together.get("new", &scope(), ask).await.unwrap().value, Some(4), "asked about too");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        tokio::time::advance(FRESH).await;
        together.get("a", &scope(), ask).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn those_nobody_asks_about_are_forgotten_and_questions_stay_small() {
        let together = Together::new(FRESH);
        let ids: Vec<String> = (0..QUESTION_LIMIT + 1).map(|n| format!("{n:04}")).collect();
        together.expect(ids.iter().map(String::as_str));
        assert_eq!(together.get("0000", &scope(), size).await.unwrap().value, Some(QUESTION_LIMIT));
        assert_eq!(together.get(&ids[QUESTION_LIMIT], &scope(), size).await.unwrap().value, Some(1));
        tokio::time::advance(FRESH * (FORGOTTEN_AFTER + 1)).await;
        assert_eq!(together.get("0000", &scope(), size).await.unwrap().value, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_answers_everybody_and_a_deadline_its_owner_alone() {
        let together = Together::<usize>::new(FRESH);
        together.expect(["a", "b"]);
        let failed = |kind| CallError::without_reply(kind, "no");
        let late = |_, _| std::future::ready(Err(failed(Kind::DeadlinePassed)));
        assert_eq!(together.get("a", &scope(), late).await.unwrap_err().kind, Kind::DeadlinePassed);
        let forbidden = |_, _| std::future::ready(Err(failed(Kind::Forbidden)));
        assert_eq!(together.get("a", &scope(), forbidden).await.unwrap_err().kind, Kind::Forbidden);
        assert_eq!(together.get("b", &scope(), size).await.unwrap_err().kind, Kind::Forbidden);
        tokio::time::advance(FRESH).await;
        assert_eq!(together.get("b", &scope(), size).await.unwrap().value, Some(2));
    }
}
