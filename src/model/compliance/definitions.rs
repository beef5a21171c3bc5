//! What each figure means, for those who read an evidence pack without this program at hand.

/// Version of the texts below; raised with each change of meaning.
pub const VERSION: u32 = 1;

/// As Markdown; part of every evidence pack.
pub const DEFINITIONS: &str = include_str!("../../../docs/compliance-definitions.md");
