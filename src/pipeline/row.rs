//! State that is kept as numbers in one row, where older versions of it kept a list for each entry.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, SeqAccess, Visitor};

/// A number of the row, or an entry as it was kept before. Told apart at its first byte: as an
/// untagged enum each would first be copied.
pub enum Piece<N, E> {
    Number(N),
    Entry(E),
}

impl<'de, N: Deserialize<'de>, E: Deserialize<'de>> Deserialize<'de> for Piece<N, E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either(PhantomData))
    }
}

struct Either<N, E>(PhantomData<(N, E)>);

impl<'de, N: Deserialize<'de>, E: Deserialize<'de>> Visitor<'de> for Either<N, E> {
    type Value = Piece<N, E>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number or a list")
    }

    fn visit_u64<F: Error>(self, number: u64) -> Result<Self::Value, F> {
        N::deserialize(number.into_deserializer()).map(Piece::Number)
    }

    fn visit_i64<F: Error>(self, number: i64) -> Result<Self::Value, F> {
        N::deserialize(number.into_deserializer()).map(Piece::Number)
    }

    fn visit_f64<F: Error>(self, number: f64) -> Result<Self::Value, F> {
        N::deserialize(number.into_deserializer()).map(Piece::Number)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        E::deserialize(SeqAccessDeserializer::new(list)).map(Piece::Entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists_are_told_apart_and_anything_else_is_refused() {
        let told = |text: &str| match serde_json::from_str::<Piece<i64, (i64, String)>>(text) {
            Ok(Piece::Number(number)) => format!("{number}"),
            Ok(Piece::Entry((number, text))) => format!("{number} {text}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(told("7"), "7");
        assert_eq!(told("-7"), "-7");
        assert_eq!(told(r#"[7, "a"]"#), "7 a");
        for (refused, why) in [
            ("7.5", "invalid type: floating point `7.5`, expected i64"),
            ("18446744073709551615", "invalid value: integer `18446744073709551615`, expected i64"),
            (r#"[7]"#, "invalid length 1, expected a tuple of size 2"),
            ("null", "invalid type: null, expected a number or a list"),
            (r#"{"a": 1}"#, "invalid type: map, expected a number or a list"),
        ] {
            assert!(told(refused).starts_with(why), "{refused}: {}", told(refused));
        }
        assert!(matches!(serde_json::from_str::<Piece<f64, ()>>("7"), Ok(Piece::Number(7.0))));
    }
}
