//! State on a changelog as JSON, each value with the version of its form.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{UnreadableState, json};

#[derive(Serialize)]
struct Versioned<T> {
    v: u32,
    s: T,
}

/// A value as it stands on the changelog.
///
/// # Panics
/// When it cannot be written as JSON, which for a stage's own state is a bug.
pub fn written<T: Serialize>(v: u32, s: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&mut bytes, v, s);
    bytes
}

/// The same behind what is in `bytes`.
///
/// # Panics
/// As [`written`].
pub fn append<T: Serialize>(bytes: &mut Vec<u8>, v: u32, s: &T) {
    json::append(bytes, &Versioned { v, s });
}

/// The value that `key` has on the changelog, `known` being the newest version that can be read.
///
/// # Errors
/// When it is of a newer version or makes no sense.
pub fn read<'r, T: Deserialize<'r>>(known: u32, key: &[u8], value: &'r [u8]) -> Result<T, UnreadableState> {
    /// The state is looked into once its version is known to be one that can be read.
    #[derive(Deserialize)]
    struct Kept<'r> {
        v: u32,
        #[serde(borrow)]
        s: &'r RawValue,
    }
    // As we write it; any other form, and what is wrong with one, is looked at below.
    if let Some((found, s)) = as_written(value)
        && found <= known
        && let Ok(state) = serde_json::from_slice(s)
    {
        return Ok(state);
    }
    let Kept { v: found, s } = serde_json::from_slice(value).map_err(|cause| malformed(key, &cause))?;
    if found > known {
        return Err(UnreadableState::Newer { found, known });
    }
    serde_json::from_str(s.get()).map_err(|cause| malformed(key, &cause))
}

/// Version and state of what [`append`] has written, the state not looked through for its end.
fn as_written(value: &[u8]) -> Option<(u32, &[u8])> {
    let rest = value.strip_prefix(br#"{"v":"#)?;
    let comma = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let version = std::str::from_utf8(&rest[..comma]).ok()?.parse().ok()?;
    Some((version, rest[comma..].strip_prefix(br#","s":"#)?.strip_suffix(b"}")?))
}

/// A key that is JSON.
///
/// # Errors
/// When it makes no sense.
pub fn read_key<'r, T: Deserialize<'r>>(key: &'r [u8]) -> Result<T, UnreadableState> {
    serde_json::from_slice(key).map_err(|cause| malformed(key, &cause))
}

fn malformed(key: &[u8], cause: &serde_json::Error) -> UnreadableState {
    UnreadableState::Malformed { key: String::from_utf8_lossy(key).into_owned(), cause: cause.to_string() }
}
