//! Takes the pictures that README and docs show; `scripts/pictures.sh` runs it against a demo.

use std::path::PathBuf;

use super::devtools::Browser;

const VIEWS: &[(&str, &str)] = &[
    ("now", "/"),
    ("campaigns", "/campaigns"),
    ("flows", "/flows"),
    ("lag", "/lag"),
    ("routes", "/routes"),
    ("canaries", "/canaries"),
    ("platform", "/platform"),
    ("alerts", "/alerts"),
    ("ledger", "/ledger"),
    ("settings", "/settings"),
];

/// Views that are shown dark as well: one picture of each colour is enough.
const DARK: [&str; 3] = ["now", "campaign", "decision"];

#[tokio::test]
#[ignore = "needs a demo that runs: scripts/pictures.sh"]
async fn of_each_view_in_light_and_on_a_phone_and_of_some_in_dark() {
    let console =
        std::env::var("TRUNKLINE_PICTURES_OF").expect("TRUNKLINE_PICTURES_OF: the console's address");
    let folder =
        PathBuf::from(std::env::var("TRUNKLINE_PICTURES_IN").expect("TRUNKLINE_PICTURES_IN: a folder"));
    let page = Browser::start().await.page().await;
    let mut views: Vec<(String, String)> =
        VIEWS.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect();
    // One campaign, one flow, one canary, and one decision of the loop that acts.
    for (name, list, found) in [
        ("campaign", "/campaigns", "main tbody th a"),
        ("flow", "/flows", "main tbody th a"),
        ("canary", "/canaries", "main tbody th a"),
        ("decision", "/ledger?loop=dial", "main tbody td a"),
    ] {
        page.open(&format!("{console}{list}")).await;
        let path = page.eval(&format!("document.querySelector({found:?})?.getAttribute('href') ?? ''")).await;
        let path =
            path.as_str().filter(|path| !path.is_empty()).unwrap_or_else(|| panic!("{list} lists nothing"));
        views.push((name.to_owned(), path.to_owned()));
    }
    for (name, path) in &views {
        for (suffix, width, height, dark) in
            [("light", 1_280, 860, false), ("dark", 1_280, 860, true), ("phone", 360, 740, false)]
        {
            if dark && !DARK.contains(&name.as_str()) {
                continue;
            }
            page.set_width(width, height).await;
            page.set_dark(dark).await;
            page.open(&format!("{console}{path}")).await;
            std::fs::write(folder.join(format!("{name}-{suffix}.png")), page.picture().await)
                .expect("writes");
        }
    }
}
