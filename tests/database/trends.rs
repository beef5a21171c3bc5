//! How campaigns have gone lately, as the console draws it beside a list of them.

use serde_json::json;

use crate::support::postgres::TestDatabase;

#[tokio::test]
async fn a_trend_has_the_newest_rates_in_their_order_and_what_was_abandoned_of_what_was_answered() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    let decided = [
        ("a", 1_i64, json!({"dialRate": 9.0}), json!({"answered": 1000, "abandoned": 1000})),
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
    for (key, sequence, parameters, inputs) in &decided {
        let sql = "INSERT INTO audit.decision_log (decision_id, loop, key, sequence, mode, decided_at, event_time, expires_at,
                action, reason, parameters, inputs, policy, policy_version, policy_hash, settings_revision, cause_ids,
                topic, partition, \"offset\")
            SELECT (lpad(to_hex(floor(extract(epoch FROM now()) * 1000)::bigint), 12, '0') || lpad($2::bigint::text, 19, '0') || $5::text)::uuid,
                'dial', $1, $2::bigint, 'live', to_timestamp($2::bigint::float8), now(), now(), 'hold', 'r', $3, $4, 'p', 1, 'h', 0, '[]', $1, 0, $2::bigint";
        let digit = if *key == "a" { "0" } else { "1" };
        let inserted = sqlx::query(sql).bind(key).bind(sequence).bind(parameters).bind(inputs).bind(digit);
        inserted.execute(&owner).await.unwrap();
    }
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
