//! How old what is shown may get, by a clock that the test holds.

use trunkline::console::Settings;

use super::devtools::Browser;
use super::scene::{decide, now_dated};
use crate::Running;
use crate::support::postgres::TestDatabase;
use crate::support::records::decision;

#[tokio::test]
async fn a_silent_stream_is_told_within_five_seconds_and_figures_go_grey_after_two_ticks() {
    let (_own, database) = TestDatabase::migrated().await;
    decide(&database, &now_dated(decision("campaign-a", 1)), 0).await;
    let console = Running::start(Settings::default(), database).await;
    let page = Browser::start().await.page().await;
    page.open(&console.url("/campaigns?id=campaign-a")).await;
    page.until("figures", "document.querySelectorAll('[data-at]').length > 2").await;
    // Nobody speaks any more, and no time passes but what the test lets pass.
    console.shutdown.cancel();
    console.served.await.expect("ends");
    page.eval("window.held = Date.now(); Date.now = () => window.held; 0").await;
    let lost = "!document.getElementById('lost').hidden";
    let stale = "document.querySelectorAll('#live .stale').length";
    assert_eq!(page.eval(stale).await, 0, "fresh figures are not grey");
    page.eval("window.held += 5000").await;
    page.until("the banner", lost).await;
    assert_eq!(page.eval(stale).await, 0, "nor after five seconds");
    // A tick of the dial loop is 30 s here.
    page.eval("window.held += 61000").await;
    page.until("grey figures", &format!("{stale} > 2")).await;
    let said = "getComputedStyle(document.querySelector('#live .stale .age'), '::after').content";
    assert_eq!(page.eval(said).await, "\" · old\"", "it is said, not only coloured");
}
