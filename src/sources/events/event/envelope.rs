//! What stands around what an event tells.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::Timestamp;

/// An EventBridge envelope or a CloudEvent, whichever members it has.
#[derive(Deserialize)]
pub(in crate::sources::events) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default, rename = "detail-type")]
    pub(super) detail_type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) time: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) source: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) detail: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) specversion: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) r#type: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) data_base64: Option<Text<'a>>,
}

#[derive(Clone, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// What the envelope says about everything in it.
#[derive(Clone, Default)]
pub(super) struct Frame<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) name: Option<Cow<'a, str>>,
    pub(super) time: Option<Cow<'a, str>>,
    pub(super) source: Option<Cow<'a, str>>,
    pub(super) received_at: Option<Timestamp>,
}

impl<'a> Frame<'a> {
    pub(super) fn of(envelope: &Envelope<'a>) -> Self {
        let text = |text: &Option<Text<'a>>| text.clone().map(|text| text.0);
        let name = if envelope.specversion.is_some() { &envelope.r#type } else { &envelope.detail_type };
        let id = text(&envelope.id).filter(|id| !id.is_empty());
        let source = text(&envelope.source);
        Self { id, name: text(name), time: text(&envelope.time), source, received_at: None }
    }
}
