use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;

use super::*;

fn assert_same(value: &(impl Serialize + ?Sized)) {
    let mut bytes = Vec::new();
    append(&mut bytes, value);
    let written = String::from_utf8(bytes).expect("UTF-8");
    assert_eq!(written, serde_json::to_string(value).expect("JSON"));
}

#[derive(Serialize)]
struct Unit;

#[derive(Serialize)]
struct Newtype(&'static str);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Variant {
    Nothing,
    OneNumber(f64),
    Pair(i8, Option<bool>),
    Named { first_one: u128, second: () },
}

#[derive(Serialize)]
struct All<'a> {
    numbers: (i64, u64, f32, f64, f64),
    letter: char,
    texts: [&'a str; 3],
    maps: BTreeMap<i32, Vec<Unit>>,
    variants: Vec<Variant>,
    newtype: Newtype,
    raw: &'a RawValue,
    verbatim: Verbatim<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<u8>,
    #[serde(flatten)]
    flat: BTreeMap<&'a str, u8>,
    told: crate::model::decision::Position<'a>,
}

#[test]
fn every_kind_of_value_is_written_as_serde_json_does() {
    let raw: &RawValue = serde_json::from_str(" {\"a\" : [1, 2]}\n").expect("JSON");
    let verbatim = Verbatim::new("\t{\"a\" : [1, 2]}\r\n");
    assert_same(&verbatim);
    let variants = vec![
        Variant::Nothing,
        Variant::OneNumber(0.1),
        Variant::Pair(-3, None),
        Variant::Pair(0, Some(true)),
    ];
    assert_same(&All {
        numbers: (i64::MIN, u64::MAX, 0.1, 1.0, f64::NAN),
        letter: '"',
        texts: ["", "pl\u{e4}in \u{7f}", "\u{0}\t\\\"\u{1f}"],
        maps: BTreeMap::from([(-1, vec![Unit]), (7, vec![])]),
        variants,
        newtype: Newtype("n"),
        raw,
        verbatim,
        absent: None,
        flat: BTreeMap::from([("x\"y", 1), ("z", 2)]),
        told: crate::model::decision::Position { topic: "odd\"topic", partition: 1, offset: -1 },
    });
    assert_same(&Variant::Named { first_one: 7, second: () });
    let keyed: BTreeMap<bool, BTreeMap<String, [u8; 0]>> = BTreeMap::from([(true, BTreeMap::new())]);
    assert_same(&keyed);
}

proptest! {
    #[test]
    fn any_text_and_number_is_written_as_serde_json_does(
        texts in prop::collection::vec(any::<String>(), 0..4),
        number in any::<f64>(),
        whole in any::<i64>(),
    ) {
        assert_same(&(&texts, number, whole));
        assert_same(&texts.iter().map(|text| (text.as_str(), whole)).collect::<BTreeMap<_, _>>());
    }
}
