//! Record headers as they stand in jsonb: `[[name, value], …]`, byte for byte.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;

/// Bytes in JSON: as text where they are one that Postgres can hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Bytes {
    Text(String),
    Hex { hex: String },
}

impl Bytes {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Self::Text(text.to_owned()),
            _ => Self::Hex { hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() },
        }
    }

    fn into_bytes(self) -> Result<Vec<u8>, sqlx::Error> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Hex { hex } => (0..hex.len())
                .step_by(2)
                .map(|at| hex.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
                .collect::<Option<_>>()
                .ok_or_else(|| sqlx::Error::Decode(format!("not hexadecimal: {hex}").into())),
        }
    }
}

pub(super) fn to_json<'h>(headers: impl Iterator<Item = (&'h str, &'h [u8])>) -> String {
    let headers: Vec<_> =
        headers.map(|(name, value)| (Bytes::of(name.as_bytes()), Bytes::of(value))).collect();
    serde_json::to_string(&headers).expect("texts are JSON")
}

pub(super) fn from_json(
    Json(headers): Json<Vec<(Bytes, Bytes)>>,
) -> Result<Vec<(String, Vec<u8>)>, sqlx::Error> {
    headers
        .into_iter()
        .map(|(name, value)| {
            Ok((String::from_utf8_lossy(&name.into_bytes()?).into_owned(), value.into_bytes()?))
        })
        .collect()
}
