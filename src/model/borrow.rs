//! Optional text that is not copied out of its record.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

/// serde borrows a `Cow`, but not one inside an `Option`.
pub(super) fn borrowed<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'a, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text<'_>>::deserialize(deserializer)?.map(|text| text.0))
}
