//! Decisions as the pages of the console list them.

use serde_json::{Value, json};
use trunkline::clock;
use trunkline::model::Timestamp;
use trunkline::postgres::console::DecisionLine;

use crate::support::postgres::TestDatabase;
use crate::support::records::{decision_observed, fill, outcome};

fn decided(key: &str, sequence: u64, action: &str, at: Timestamp) -> Value {
    let mut decision = decision_observed(key, sequence, at);
    (decision["decidedAt"], decision["action"]) = (json!(at), json!(action));
    decision
}

#[tokio::test]
async fn a_key_is_held_by_its_newest_decision_or_where_that_was_only_recorded() {
    let (_own, database) = TestDatabase::migrated().await;
    let now = clock::now();
    let old = Timestamp::from_millis(now.as_millis() - 48 * 3_600_000);
    let decisions = [
        decided("once held", 1, "hold", now),
        decided("once held", 2, "set_dial_rate", now),
        decided("held", 1, "set_dial_rate", now),
        decided("held", 2, "hold", now),
        decided("recorded", 1, "set_dial_rate", now),
        decided("held long ago", 1, "hold", old),
    ];
    let mut recorded = outcome("recorded", 1);
    (recorded["decisionId"], recorded["status"]) = (decisions[4]["decisionId"].clone(), json!("shadowed"));
    fill(&database, &decisions, &[recorded]).await;
    let keys = |lines: Vec<_>| lines.into_iter().map(|line: DecisionLine| line.key).collect::<Vec<_>>();
    assert_eq!(keys(database.held_by_key("dial", 10).await.unwrap()), ["held", "recorded"]);
    assert_eq!(keys(database.newest_by_key("dial", 10).await.unwrap()), ["held", "once held", "recorded"]);
}

#[tokio::test]
async fn a_loop_that_decides_rarely_is_listed_with_what_is_older_and_how_that_ended() {
    let (own, database) = TestDatabase::migrated().await;
    let since = "UPDATE trunkline.audit_months SET since = audit.month_of(now() - interval '200 days')";
    sqlx::raw_sql(since).execute(&own.owner().await).await.unwrap();
    let days_ago = |days: i64| Timestamp::from_millis(clock::now().as_millis() - days * 86_400_000);
    let decisions = [
        decided("a", 1, "hold", days_ago(150)),
        decided("a", 2, "hold", days_ago(100)),
        decided("a", 3, "set_dial_rate", days_ago(50)),
        decided("a", 4, "set_dial_rate", days_ago(0)),
    ];
    let ended = [(2, "shadowed"), (3, "failed")].map(|(at, status)| {
        let mut outcome = outcome("a", at);
        let decision = &decisions[at as usize - 1];
        (outcome["decisionId"], outcome["status"]) = (decision["decisionId"].clone(), json!(status));
        outcome
    });
    fill(&database, &decisions, &ended).await;
    let listed = database.newest_decisions("dial", 3).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|line| (line.sequence, line.status.as_deref())).collect();
    assert_eq!(listed, [(4, None), (3, Some("failed")), (2, Some("shadowed"))]);
    assert_eq!(database.newest_decisions("rollback", 3).await.unwrap(), []);
}
