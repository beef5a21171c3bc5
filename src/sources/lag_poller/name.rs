//! What a group is called on topics.

use sha2::{Digest, Sha256};

/// Longest name, in bytes; indexes of databases take no more than twice as much.
const MOST: usize = 1_024;
/// What is kept of a longer one.
const KEPT: usize = 960;

/// `cluster:group`, or `group` in trunkline's own cluster. Kafka takes names of 32 767
/// bytes: a longer one than 1 024 is cut, and ends with a digest of the whole.
pub(super) fn of(cluster: Option<&str>, group: &str) -> String {
    let whole = match cluster {
        Some(cluster) => format!("{cluster}:{group}"),
        None => group.to_owned(),
    };
    if whole.len() <= MOST {
        return whole;
    }
    let digest = Sha256::digest(whole.as_bytes());
    let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let kept = whole.floor_char_boundary(KEPT);
    format!("{}…{digest}", &whole[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_as_it_is_unless_nothing_could_hold_it() {
        assert_eq!(of(None, "orders\n\"x\""), "orders\n\"x\"");
        assert_eq!(of(Some("west"), "orders"), "west:orders");
        let long = "ä".repeat(512);
        assert_eq!(of(None, &long), long);
        let (one, other) = ("ä".repeat(4_000) + "1", "ä".repeat(4_000) + "2");
        let names = [of(None, &one), of(None, &other), of(Some("west"), &one)];
        assert!(names.iter().all(|name| name.len() <= MOST), "{names:?}");
        assert!(names[0] != names[1] && names[0] == of(None, &one), "one name each, always the same");
        assert!(names[2].starts_with("west:"), "{names:?}");
    }
}
