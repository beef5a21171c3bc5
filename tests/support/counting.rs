//! A stage small enough to know every answer of: it counts and sums numbers per key.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use trunkline::model::Timestamp;
use trunkline::pipeline::{Declaration, Outputs, Record, Stage, Step};
use trunkline::topics::{self, Cleanup, Topic, Values};

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) static NUMBERS: Topic = Topic {
    name: "test.numbers.v1",
    key: "key",
    description: "numbers",
    cleanup: Cleanup::Delete { retention: DAY },
    values: Values::Internal,
    max_message_bytes: 128 * 1_024,
};

pub(crate) static SUMS: Topic = Topic { name: "test.sums.v1", max_message_bytes: 64 * 1_024, ..NUMBERS };

pub(crate) static CHANGELOG: Topic = Topic {
    name: "test.counting-changelog.v1",
    cleanup: Cleanup::Compact,
    max_message_bytes: 4 * 1_024,
    ..NUMBERS
};

/// Everything the stage needs to exist.
pub(crate) static TOPICS: &[&Topic] =
    &[&NUMBERS, &SUMS, &CHANGELOG, &topics::DEAD_LETTERS, &topics::LATE_EVENTS];

static DECLARATION: Declaration = Declaration {
    name: "counting",
    description: "counts and sums numbers",
    input: &NUMBERS,
    outputs: &[&SUMS],
    changelog: &CHANGELOG,
    state_version: 1,
    lateness: Duration::from_secs(60),
};

pub(crate) struct Counting;

#[derive(Debug, Deserialize)]
pub(crate) struct Number<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    at: Timestamp,
    n: i64,
    /// What else to do: `nothing`, `reject`, `shout` (too large an output), `grow` (state by 3 KiB).
    #[serde(borrow, default)]
    order: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sum {
    count: u64,
    sum: i64,
    weight: String,
}

impl Stage for Counting {
    type Input<'a> = Number<'a>;
    type State = Sum;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key<'i>(input: &'i Number<'_>) -> &'i str {
        &input.key
    }

    fn event_time(input: &Number<'_>) -> Timestamp {
        input.at
    }

    fn step(&self, record: &Record<'_>, state: &mut Sum, input: Number<'_>, outputs: &mut Outputs) -> Step {
        let padding = match input.order.as_deref() {
            Some("nothing") => return Step::NoOp("asked to"),
            Some("reject") => return Step::Rejected("asked to".to_owned()),
            Some("shout") => 70 * 1_024,
            Some("grow") => {
                state.weight.push_str(&"x".repeat(3 * 1_024));
                0
            }
            _ => 0,
        };
        state.count += 1;
        state.sum += input.n;
        let position = record.position;
        let from = format!("{}/{}", position.partition, position.offset);
        outputs.send(
            &SUMS,
            record.key,
            &json!({"n": input.n, "count": state.count, "sum": state.sum, "from": from, "padding": "x".repeat(padding)}),
        );
        Step::Applied
    }
}

/// A number's record value.
pub(crate) fn number(key: &str, at: Timestamp, n: i64) -> Vec<u8> {
    json!({"key": key, "at": at, "n": n}).to_string().into_bytes()
}

/// The same with an order.
pub(crate) fn order(key: &str, at: Timestamp, n: i64, order: &str) -> Vec<u8> {
    json!({"key": key, "at": at, "n": n, "order": order}).to_string().into_bytes()
}

/// A record that must not be applied: the reason's code, key and value.
pub(crate) type Poison = (&'static str, Option<Vec<u8>>, Option<Vec<u8>>);

/// One record of every kind that ends as a dead letter, for facts of the time `at`.
pub(crate) fn poisons(at: Timestamp) -> Vec<Poison> {
    let fields = format!(r#""key":"p","at":"{at}""#);
    let mut framed = vec![0, 0, 0, 0, 7];
    framed.extend(number("p", at, 1));
    let mut invalid = number("p", at, 1);
    invalid.insert(8, 0xff);
    let deep = format!(r#"{{{fields},"n":1,"deep":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let long = format!(r#"{{{fields},"n":1,"long":"{}"}}"#, "x".repeat(200 * 1_024));
    let text = |code: &'static str, value: String| (code, Some(b"p".to_vec()), Some(value.into_bytes()));
    vec![
        text("bad_json", "{\"key\":".to_owned()),
        text("bad_json", format!("{{{fields},\"n\":1}} trailing")),
        text("bad_json", "<html>not json</html>".to_owned()),
        text("bad_json", format!(r#"{{{fields},"n":1,"n":2}}"#)),
        text("bad_json", format!(r#"{{{fields},"n":1e999}}"#)),
        text("bad_json", format!(r#"{{{fields},"n":"one"}}"#)),
        text("bad_json", String::new()),
        text("too_deep", deep),
        text("too_large", long),
        text("nul_character", format!(r#"{{{fields},"n":1,"order":"a\u0000b"}}"#)),
        text("nul_character", format!("{{{fields},\"n\":1,\"order\":\"a\0b\"}}")),
        ("invalid_utf8", Some(b"p".to_vec()), Some(invalid)),
        ("schema_registry_framing", Some(b"p".to_vec()), Some(framed)),
        ("tombstone", Some(b"p".to_vec()), None),
        ("key_missing", None, Some(number("p", at, 1))),
        ("key_mismatch", Some(b"q".to_vec()), Some(number("p", at, 1))),
        ("key_mismatch", Some(vec![0xff, 0xfe]), Some(number("p", at, 1))),
        ("from_the_future", Some(b"p".to_vec()), Some(number("p", at.plus(2 * DAY), 1))),
        ("rejected", Some(b"p".to_vec()), Some(order("p", at, 1, "reject"))),
        ("output_too_large", Some(b"p".to_vec()), Some(order("p", at, 1, "shout"))),
    ]
}
