//! What a client may do, as the seed documents name it (`genesys-api.md` §1).

/// Reading campaigns and their statistics.
pub const SCOPE_READ: &str = "outbound:campaign:read";
/// Changing campaigns.
pub const SCOPE_WRITE: &str = "outbound:campaign:write";
/// Both are needed to query conversations' details.
pub const DETAILS: &[&str] = &["analytics:conversation:read", "analytics:details:read"];

/// Every scope there is: what the demo's client has.
pub const ALL: &[&str] = &[SCOPE_READ, SCOPE_WRITE, DETAILS[0], DETAILS[1]];
