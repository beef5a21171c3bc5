//! How campaigns have gone lately, as the console draws it beside a list of them.

use serde_json::json;
use trunkline::clock;
use trunkline::model::Timestamp;

use crate::support::postgres::TestDatabase;
use crate::support::records::{decision_observed, fill};

#[tokio::test]
async fn a_trend_has_the_newest_rates_in_their_order_and_what_was_abandoned_of_what_was_answered() {
    let (_own, database) = TestDatabase::migrated().await;
    let decided = [
        ("a", 1, json!({"dialRate": 9.0}), json!({"answered": 1000, "abandoned": 1000})),
        (
            "a",
            2,
            json!({"dialRate": 1.5, "previousDialRate": 1.0}),
            json!({"dialRate": 1.0, "answered": 40, "abandoned": 1}),
        ),
        ("a", 3, json!({}), json!({"dialRate": 1.5, "answered": 60, "abandoned": 2})),
        ("a", 4, json!({}), json!({})),
        ("b", 1, json!({"dialRate": 2}), json!({"answered": 5})),
    ];
    let now = clock::now();
    let decisions = decided.map(|(key, sequence, parameters, inputs)| {
        let mut decision = decision_observed(key, sequence, now);
        decision["decidedAt"] = json!(Timestamp::from_millis(1_000 * sequence as i64));
        (decision["parameters"], decision["inputs"]) = (parameters, inputs);
        decision
    });
    fill(&database, &decisions, &[]).await;
    let names = ["a", "b", "unknown"].map(str::to_owned);
    let trends = database.trends(&names, 3).await.unwrap();
    assert_eq!(trends.keys().collect::<Vec<_>>(), ["a", "b"]);
    let rates =
        |key: &str| trends[key].rates.iter().map(|(at, rate)| (at.as_millis(), *rate)).collect::<Vec<_>>();
    assert_eq!(
        rates("a"),
        [(2_000, 1.5), (3_000, 1.5)],
        "one with no rate has no point, the oldest is not asked for"
    );
    assert_eq!((trends["a"].answered, trends["a"].abandoned), (100.0, 3.0));
    assert_eq!((rates("b"), trends["b"].answered, trends["b"].abandoned), (vec![(1_000, 2.0)], 5.0, 0.0));
}
