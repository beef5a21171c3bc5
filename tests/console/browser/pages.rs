//! Each view, live updates, pauses, hostile texts, a lost connection, the login.

use std::sync::Arc;

use serde_json::json;
use trunkline::console::{ApiKey, Role, Settings};
use trunkline::model::decision::Loop;
use trunkline::model::name::Kind;
use trunkline::model::pause::Extent;

use super::devtools::{Browser, Page};
use super::scene::{decide, id_of, name, now_dated, run, scene};
use crate::Running;
use crate::support::postgres::TestDatabase;
use crate::support::records::decision;
use crate::support::until;

/// The views, and a text of what [`scene`] brings that each must show.
const VIEWS: &[(&str, &str)] = &[
    ("/", "What is being done now"),
    ("/campaigns", "Renewals campaign-a"),
    ("/campaigns?id=campaign-a", "Campaign Renewals"),
    ("/flows", "Main menu flow-a"),
    ("/flows?id=flow-a", "14.6 %"),
    ("/lag", "crm-sync"),
    ("/routes", "the conversation goes where the answer says"),
    ("/platform", "Budget of calls"),
    ("/alerts", "rollback Main menu flow-a"),
    ("/ledger", "campaign-b"),
    ("/ledger?key=renewal", "Lower the dial rate of campaign Renewals"),
    ("/canaries", "Main menu, next menu-next"),
    ("/canaries?id=canary-7", "What speaks against it"),
    ("/canaries?id=nothing", "There was never a canary"),
    ("/settings", "How campaigns are dialled"),
    ("/settings?id=campaign-a", "Campaign campaign-a"),
];

fn assert_clean(page: &Page, console: &Running) {
    assert_eq!(page.errors(), Vec::<String>::new());
    let own = console.url("/");
    for request in page.requests() {
        assert!(request.starts_with(&own) || request == "about:blank", "{request} leaves this machine");
    }
}

/// Texts on the page whose colour is too near to what is behind them (WCAG 1.4.3), and fields and
/// buttons that nobody can name or hit (2.5.8).
const FAULTS: &str = r#"(() => {
  const faults = [];
  const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; })
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !e.checkVisibility() || e.closest('script')) continue;
    const [one, other] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a);
    const ratio = (one + .05) / (other + .05);
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${walk.currentNode.textContent.trim().slice(0, 40)}`);
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
    if (!e.labels || !e.labels.length) faults.push(`no label: ${e.outerHTML.slice(0, 80)}`);
  for (const e of document.querySelectorAll('button, a, summary'))
    if (!(e.textContent.trim() || e.getAttribute('aria-label'))) faults.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  for (const e of document.querySelectorAll('svg:not([aria-hidden=true])'))
    if (!(e.getAttribute('role') === 'img' && e.getAttribute('aria-label'))) faults.push(`no words: ${e.outerHTML.slice(0, 80)}`);
  for (const e of document.querySelectorAll('nav a, button, summary, input:not([type=hidden]), select')) {
    const box = e.getBoundingClientRect();
    if (e.checkVisibility() && (box.width < 24 || box.height < 24)) faults.push(`too small to hit: ${e.outerHTML.slice(0, 80)}`);
  }
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  if (!document.querySelector('main')) faults.push('no main');
  if (document.documentElement.lang !== 'en') faults.push('no language');
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push('ids twice: ' + ids.filter((id, i) => ids.indexOf(id) !== i));
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`wider than the window: ${document.documentElement.scrollWidth}`);
  return faults;
})()"#;

/// Whether the view that the page belongs to is seen in the head without scrolling sideways.
const HERE_IS_SEEN: &str = r#"(() => {
  const box = document.querySelector('nav [aria-current=page]').getBoundingClientRect();
  const nav = document.querySelector('nav').getBoundingClientRect();
  return box.width > 0 && box.left >= Math.max(0, nav.left) && box.right <= Math.min(innerWidth, nav.right) + .5
    && box.top >= 0 && box.bottom <= innerHeight;
})()"#;

#[tokio::test]
async fn each_view_shows_what_the_database_holds_to_everybody() {
    let (own, database) = TestDatabase::migrated().await;
    let id = scene(&own.owner().await, &database).await;
    let console = Running::start(Settings::default(), database).await;
    let browser = Browser::start().await;
    let page = browser.page().await;
    let one = format!("/decisions/{id}");
    let views = VIEWS.iter().copied().chain([(one.as_str(), "Lower the dial rate of campaign Renewals")]);
    for (path, shown) in views {
        for (width, dark) in [(1_280, false), (1_280, true), (360, false)] {
            page.set_width(width, 800).await;
            page.set_dark(dark).await;
            page.open(&console.url(path)).await;
            let text = page.text("body").await;
            assert!(text.contains(shown), "{path}: {shown} is not in\n{text}");
            assert_eq!(page.eval(FAULTS).await, json!([]), "{path} at {width}, dark: {dark}");
            assert!(page.text("header").await.contains("Stop a loop"), "{path}");
            assert_eq!(page.eval(HERE_IS_SEEN).await, true, "{path} at {width}: where one is must be seen");
        }
    }
    assert_clean(&page, &console);
}

#[tokio::test]
async fn a_new_decision_arrives_by_itself() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database.clone()).await;
    let page = Browser::start().await.page().await;
    page.open(&console.url("/campaigns")).await;
    assert!(page.text("main").await.contains("No campaign has been decided about"));
    decide(&database, &now_dated(decision("newcomer", 1)), 0).await;
    page.until("the campaign to be shown", "document.querySelector('main').innerText.includes('newcomer')")
        .await;
    // What its reader has opened stays open.
    page.open(&console.url("/campaigns?id=newcomer")).await;
    page.eval("document.getElementById('rate-table').open = true").await;
    let newest = now_dated(decision("newcomer", 2));
    decide(&database, &newest, 1).await;
    let second = id_of(&newest);
    page.until(
        "the second to be shown",
        &format!("document.querySelector('main').innerHTML.includes('{second}')"),
    )
    .await;
    assert_eq!(page.eval("document.getElementById('rate-table').open").await, true);
    assert_clean(&page, &console);
}

#[tokio::test]
async fn a_pause_is_made_by_hand_shown_everywhere_and_taken_back() {
    let (_own, database) = TestDatabase::migrated().await;
    let here = Running::start(Settings::default(), database.clone()).await;
    let there = Running::start(Settings::default(), database.clone()).await;
    let browser = Browser::start().await;
    let (page, other) = (browser.page().await, browser.page().await);
    other.open(&there.url("/alerts")).await;
    page.open(&here.url("/lag")).await;
    // By keyboard alone: the reason has the focus of whoever tabs there.
    page.click("button.stop").await;
    page.until("the form", "document.getElementById('stop').matches(':popover-open')").await;
    page.eval("document.getElementById('stop-loop').value = 'dial'").await;
    page.eval("document.getElementById('stop-reason').focus()").await;
    page.type_text("<b>too many</b> abandoned").await;
    page.press("Enter").await;
    let paused = "document.getElementById('state').innerText.includes('dial is paused')";
    page.until("the page to say so", paused).await;
    assert!(page.eval("location.pathname").await == "/lag", "back where it was");
    assert!(page.text("#state").await.contains("<b>too many</b> abandoned"));
    other.until("the other instance's page to say so", paused).await;
    let pauses = database.pauses().await.unwrap();
    let pause = pauses.get(Extent::One(Loop::Dial)).expect("is in force");
    assert_eq!((&*pause.who, &*pause.reason), ("local", "<b>too many</b> abandoned"));
    let first = there.get("/").await.text().await.unwrap();
    assert!(first.contains("</strong>, so what they decide is only recorded: dial<"), "{first}");
    // Undone on the other instance.
    other.click("#state button").await;
    until("the pause to end", || async { database.pauses().await.unwrap().is_empty().then_some(()) }).await;
    page.until("the page to say so", "document.getElementById('state').innerText.trim() === ''").await;
    assert_clean(&page, &here);
    assert_clean(&other, &there);
}

#[tokio::test]
async fn hostile_texts_stay_text() {
    const HOSTILE: &str = "\"'><script>window.hacked=1</script><img src=x onerror=window.hacked=1>";
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    scene(&owner, &database).await;
    let mut bad = now_dated(decision(HOSTILE, 1));
    for field in ["action", "reason"] {
        bad[field] = json!("hold");
    }
    bad["reason"] = HOSTILE.into();
    bad["causeIds"] = json!([HOSTILE]);
    bad["policy"]["name"] = HOSTILE.into();
    bad["inputs"]["revision"] = HOSTILE.into();
    bad["inputs"]["campaignId"] = HOSTILE.into();
    decide(&database, &bad, 10).await;
    run(
        &owner,
        "INSERT INTO audit.alert_log (alert_id, incident_type, loop, key, decision_id, occurred_at, body, topic, partition, \"offset\")
         VALUES (gen_random_uuid(), $1 ->> 'text', $1 ->> 'text', $1 ->> 'text', gen_random_uuid(), now(), $1::text, 't', 0, 2)",
        json!({"text": HOSTILE}),
    )
    .await;
    run(
        &owner,
        "UPDATE trunkline.lag_status SET evaluation = jsonb_set(evaluation, '{consumerGroup}', $1 -> 'text')",
        json!({"text": HOSTILE}),
    )
    .await;
    run(
        &owner,
        "UPDATE trunkline.canaries SET configuration_id = $1 ->> 'text', control_id = $1 ->> 'text',
                candidate_id = $1 ->> 'text', reason = $1 ->> 'text', started_by = $1 ->> 'text', missing = NULL",
        json!({"text": HOSTILE}),
    )
    .await;
    name(&database, &[(Kind::Campaign, HOSTILE, HOSTILE), (Kind::Flow, HOSTILE, HOSTILE)]).await;
    name(&database, &[(Kind::Campaign, "campaign-a", HOSTILE), (Kind::Flow, "flow-a", HOSTILE)]).await;
    database.pause(Extent::All, HOSTILE, HOSTILE).await.unwrap();
    let console = Running::start(Settings::default(), database).await;
    let page = Browser::start().await.page().await;
    let own_page = format!("/decisions/{}", id_of(&bad));
    let query = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect::<String>();
    let sought = [
        format!("/campaigns?id={query}"),
        format!("/flows?id={query}"),
        format!("/canaries?id={query}"),
        format!("/settings?id={query}"),
        format!("/ledger?key={query}"),
        own_page,
    ];
    for path in VIEWS.iter().map(|(path, _)| (*path).to_owned()).chain(sought) {
        page.open(&console.url(&path)).await;
        assert!(page.text("#state").await.contains(HOSTILE), "{path}");
        assert_eq!(page.eval("typeof window.hacked").await, "undefined", "{path}");
        assert_eq!(page.eval("document.querySelectorAll('main img, main script').length").await, 0, "{path}");
    }
    assert!(page.text("main").await.contains("window.hacked=1"), "it is shown, as text");
    assert_clean(&page, &console);
}

#[tokio::test]
async fn a_lost_connection_is_told_and_changes_are_refused() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database.clone()).await;
    database.pause(Extent::All, "storm", "alice").await.unwrap();
    let page = Browser::start().await.page().await;
    page.open(&console.url("/")).await;
    assert_eq!(page.eval("document.getElementById('lost').hidden").await, true);
    let disabled = "[...document.querySelectorAll('fieldset[data-change]')].map((set) => set.disabled)";
    assert_eq!(page.eval(disabled).await, json!([false, false]));
    console.shutdown.cancel();
    page.until("the banner", "!document.getElementById('lost').hidden").await;
    assert_eq!(page.eval(disabled).await, json!([true, true]));
}

#[tokio::test]
async fn people_log_in_with_a_key_and_see_what_its_role_permits() {
    use sha2::{Digest as _, Sha256};
    let key = |name: &str, role: Role| {
        let digest: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        ApiKey::new(name, role, &digest).unwrap()
    };
    let keys = vec![key("looker", Role::Read), key("doer", Role::Operate), key("bringer", Role::Publish)];
    let (own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings { api_keys: keys, ..Settings::default() }, database).await;
    let browser: Arc<Browser> = Browser::start().await;
    let enter = async |page: &Page, name: &str| {
        page.eval("window.before = true; document.getElementById('key').focus()").await;
        page.type_text(name).await;
        page.press("Enter").await;
    };
    let page = browser.page().await;
    page.open(&console.url("/ledger?loop=dial")).await;
    assert!(page.text("main").await.contains("Log in with an API key"));
    page.set_width(360, 800).await;
    assert_eq!(page.eval(FAULTS).await, json!([]), "the login, on a phone");
    page.set_width(1_280, 800).await;
    for refused in ["bringer", "nobody"] {
        enter(&page, refused).await;
        page.until(
            "the refusal",
            "!window.before && document.body.innerText.includes('This is no key that may look')",
        )
        .await;
    }
    enter(&page, "looker").await;
    let asked_for =
        "location.pathname + location.search === '/ledger?loop=dial' && document.readyState === 'complete'";
    page.until("the page asked for", asked_for).await;
    assert!(page.text("header").await.contains("looker"));
    assert_eq!(
        page.eval("document.querySelectorAll('button.stop').length").await,
        0,
        "may not stop anything"
    );
    assert_eq!(page.eval("document.cookie").await, "", "no script reads the session");
    page.click(".who button").await;
    page.until("the login", "location.pathname === '/login'").await;
    page.open(&console.url("/")).await;
    page.until("the session to be over", "document.body.innerText.includes('Log in with an API key')").await;
    let page = browser.page().await;
    page.open(&console.url("/")).await;
    enter(&page, "doer").await;
    page.until("the button", "!!document.querySelector('button.stop')").await;
    let said: Vec<(String, String, String)> =
        sqlx::query_as("SELECT what, key_name, role FROM audit.sessions ORDER BY number")
            .fetch_all(&own.owner().await)
            .await
            .unwrap();
    let said: Vec<_> = said.iter().map(|(what, key, role)| (&**what, &**key, &**role)).collect();
    let expected =
        [("opened", "looker", "read"), ("closed", "looker", "read"), ("opened", "doer", "operate")];
    assert_eq!(said, expected);
}
