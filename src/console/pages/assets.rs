//! What pages load: three files, compiled in.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::console::problem::{Kind, Problem};

struct Asset {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

static ALL: &[Asset] = &[
    Asset {
        name: "console.css",
        media_type: "text/css; charset=utf-8",
        text: include_str!("assets/console.css"),
    },
    Asset {
        name: "console.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("assets/console.js"),
    },
    Asset { name: "icon.svg", media_type: "image/svg+xml", text: include_str!("assets/icon.svg") },
];

/// Changes with the files: browsers keep each version for good.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = Sha256::new();
    ALL.iter().for_each(|asset| hasher.update(asset.text));
    hasher.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
});

/// Where a file of this name is.
pub(super) fn address(name: &str) -> String {
    format!("/assets/{name}?v={}", *VERSION)
}

pub(in crate::console) async fn asset(Path(name): Path<String>) -> Result<Response, Problem> {
    let Some(asset) = ALL.iter().find(|asset| asset.name == name) else {
        return Err(Problem::new(Kind::NotFound, "there is no such file", "open / instead"));
    };
    let headers = [
        (header::CONTENT_TYPE, asset.media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, asset.text).into_response())
}
