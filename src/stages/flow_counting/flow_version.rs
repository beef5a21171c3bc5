//! A flow's version as a key that is looked up without copies.

use std::hash::{Hash, Hasher};

use hashbrown::Equivalent;

/// A flow and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlowVersion {
    flow_id: Box<str>,
    version: Box<str>,
}

/// The same, borrowed from an event.
#[derive(Clone, Copy, Debug)]
pub struct FlowVersionRef<'e> {
    pub flow_id: &'e str,
    pub version: &'e str,
}

impl FlowVersion {
    pub(super) fn borrow(&self) -> FlowVersionRef<'_> {
        FlowVersionRef { flow_id: &self.flow_id, version: &self.version }
    }
}

impl FlowVersionRef<'_> {
    pub(super) fn to_owned(self) -> FlowVersion {
        FlowVersion { flow_id: self.flow_id.into(), version: self.version.into() }
    }
}

impl Hash for FlowVersionRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.flow_id.hash(state);
        self.version.hash(state);
    }
}

impl Hash for FlowVersion {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl Equivalent<FlowVersion> for FlowVersionRef<'_> {
    fn equivalent(&self, key: &FlowVersion) -> bool {
        *self.flow_id == *key.flow_id && *self.version == *key.version
    }
}
