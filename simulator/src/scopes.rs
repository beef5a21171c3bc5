//! What a client may do, as the seed documents name it (`docs/platform.md`).

/// Reading campaigns and their statistics.
pub const SCOPE_READ: &str = "outbound:campaign:read";
/// Changing campaigns.
pub const SCOPE_WRITE: &str = "outbound:campaign:write";
/// Both are needed to query conversations' details.
pub(crate) const DETAILS: &[&str] = &["analytics:conversation:read", "analytics:details:read"];

/// Reading flows' versions.
pub(crate) const VIEW_CONFIGURATION: &str = "view:configuration";
/// Activating one.
pub(crate) const WRITE_CONFIGURATION: &str = "write:configuration";
/// Reading interactions and errors.
pub(crate) const VIEW_METRICS: &str = "view:metrics";

/// All are needed to publish a routing configuration.
pub(crate) const ROUTING: &[&str] = &["routing:read", "routing:write", "apps:read"];

/// Both are needed to query how events are consumed.
pub(crate) const EVENTS: &[&str] = &["analytics:events:read", "platform:eventstream:read"];

/// Every scope there is: what the demo's client has.
pub(crate) const ALL: &[&str] = &[
    SCOPE_READ,
    SCOPE_WRITE,
    DETAILS[0],
    DETAILS[1],
    VIEW_CONFIGURATION,
    WRITE_CONFIGURATION,
    VIEW_METRICS,
    ROUTING[0],
    ROUTING[1],
    ROUTING[2],
    EVENTS[0],
    EVENTS[1],
];
