//! Keeps what the platform calls things, for people to read. Beside the work: nobody waits for it, and
//! what cannot be written now is written later.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::model::name::{Kind, Named};
use crate::postgres::Database;

/// Names on their way here at most; what finds no room is told again with the next poll.
pub(super) const WAITING: usize = 1_024;
/// From the first new name on, until those that come with it are written as well.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(30);
/// Names known at most, far more than an instance polls.
const MOST: usize = 100_000;
/// Names of one statement.
const AT_ONCE: usize = 1_000;

/// Keeps what is `told` until `stop`.
pub async fn keep(database: Database, mut told: mpsc::Receiver<Named>, stop: CancellationToken) {
    let mut heard = Heard::default();
    let keeping = async {
        // Ends with the last poller.
        while let Some(named) = told.recv().await {
            heard.hear(named);
            if heard.news.is_empty() {
                continue;
            }
            sleep(GATHERED_FOR).await;
            while let Ok(named) = told.try_recv() {
                heard.hear(named);
            }
            if let Err(error) = heard.write(&database).await {
                tracing::warn!(%error, "what the platform calls things cannot be kept now: tried again");
                sleep(PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = keeping => stop.cancelled().await,
        () = stop.cancelled() => {}
    }
}

/// What is written, and what is not yet.
#[derive(Debug, Default)]
struct Heard {
    written: BTreeMap<(Kind, String), String>,
    news: BTreeMap<(Kind, String), String>,
}

impl Heard {
    fn hear(&mut self, Named { kind, id, name }: Named) {
        if self.written.len() + self.news.len() > MOST {
            *self = Self::default();
        }
        let what = (kind, id);
        if self.written.get(&what) == Some(&name) {
            self.news.remove(&what);
        } else {
            self.news.insert(what, name);
        }
    }

    async fn write(&mut self, database: &Database) -> Result<(), crate::postgres::Error> {
        while !self.news.is_empty() {
            let some = self.some();
            database.keep_names(&some).await?;
            self.have_written(some);
        }
        Ok(())
    }

    /// The first of what is new.
    fn some(&self) -> Vec<Named> {
        let first = self.news.iter().take(AT_ONCE);
        first.map(|((kind, id), name)| Named { kind: *kind, id: id.clone(), name: name.clone() }).collect()
    }

    fn have_written(&mut self, some: Vec<Named>) {
        for Named { kind, id, name } in some {
            let what = (kind, id);
            self.news.remove(&what);
            self.written.insert(what, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_written_and_stays_new_until_it_is() {
        let named = |id: &str, name: &str| Named::new(Kind::Campaign, id, name).unwrap();
        let mut heard = Heard::default();
        heard.hear(named("a", "Spring"));
        heard.hear(named("b", "Winback"));
        let some = heard.some();
        assert_eq!(some, [named("a", "Spring"), named("b", "Winback")]);
        assert_eq!(heard.some(), some, "it could not be written");
        heard.have_written(some);
        heard.hear(named("a", "Spring"));
        assert_eq!(heard.some(), []);
        heard.hear(named("a", "Summer"));
        assert_eq!(heard.some(), [named("a", "Summer")]);
        heard.hear(named("a", "Spring"));
        assert_eq!(heard.some(), [], "it is called again as it was written");
    }
}
