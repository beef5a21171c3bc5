//! A canary is begun, taken away and published from its pages.

use serde_json::{Value, json};
use trunkline::console::Settings;
use trunkline::model::delivery::CanaryState;
use trunkline::postgres::Database;

use super::devtools::{Browser, Page};
use crate::Running;
use crate::support::postgres::TestDatabase;

/// A routing configuration that sends to the menu alone, in force.
async fn dispatcher(database: &Database) {
    let rule = json!({"id": "r", "destination": {"type": "FLOW_ID", "id": "menu"}, "weight": 1});
    let definition = json!({"id": "dispatcher", "name": "Dispatcher", "rules": [rule]});
    let definition: trunkline::model::routing::RouteConfiguration =
        serde_json::from_value(definition).expect("a configuration");
    database.save_route_draft(&definition, "test").await.expect("is kept");
    database.publish_route("dispatcher", "test").await.expect("is published");
}

async fn fill(page: &Page, fields: &[(&str, &str)]) {
    for (id, value) in fields {
        let set = format!("document.getElementById({id:?}).value = {}", Value::from(*value));
        page.eval(&set).await;
    }
}

async fn at(page: &Page, what: &str, text: &str) {
    page.until(what, &format!("document.querySelector('main')?.innerText.includes({text:?})")).await;
}

#[tokio::test]
async fn a_canary_is_begun_and_taken_away_by_hand() {
    let (_own, database) = TestDatabase::migrated().await;
    dispatcher(&database).await;
    let console = Running::start(Settings::default(), database.clone()).await;
    let page = Browser::start().await.page().await;
    page.open(&console.url("/canaries")).await;
    assert!(page.text("main").await.contains("No flow was ever tried out"));
    let fields =
        [("flow", "menu"), ("candidate", "menu-next"), ("route", "elsewhere"), ("reason", "<b>new</b> menu")];
    fill(&page, &fields).await;
    page.click("form[action='/canaries/start'] button").await;
    at(&page, "the last question", "Try flow menu-next out?").await;
    assert!(database.canaries().await.unwrap().is_empty(), "nothing begins before it is confirmed");
    page.click("button[name=confirmed]").await;
    at(&page, "the page to say what is wrong", "no configuration elsewhere is in force").await;
    assert_eq!(
        page.eval("document.getElementById('candidate').value").await,
        "menu-next",
        "what was typed stays"
    );
    fill(&page, &[("route", "dispatcher"), ("steps", "5,50,100")]).await;
    page.click("form[action='/canaries/start'] button").await;
    at(&page, "the last question", "Try flow menu-next out?").await;
    page.click("button[name=confirmed]").await;
    at(&page, "the canary's page", "it is seen how flow menu does alone").await;
    let begun = database.canary("dispatcher").await.unwrap().expect("begun");
    assert_eq!((begun.state, begun.steps), (CanaryState::Planned, vec![0.05, 0.5, 1.0]));
    assert!(
        page.text(".states [aria-current=step]").await.starts_with("planned"),
        "the way, and where it is"
    );

    // It cannot be published yet, and is taken away by keyboard alone, with a reason.
    assert_eq!(page.eval("document.getElementById('ask-promote')").await, Value::Null);
    page.eval("document.querySelector('[popovertarget=ask-abort]').focus()").await;
    page.press("Enter").await;
    page.until("the question", "document.getElementById('ask-abort').matches(':popover-open')").await;
    page.eval("document.getElementById('abort-reason').focus()").await;
    page.type_text("<i>no longer</i> wanted").await;
    page.press("Enter").await;
    at(&page, "the page to say so", "Flow menu-next was taken away").await;
    let aborted = database.canary("dispatcher").await.unwrap().expect("there");
    assert_eq!(aborted.state, CanaryState::Aborted);
    assert!(aborted.reason.contains("<i>no longer</i> wanted"), "{}", aborted.reason);
    assert!(page.text("main").await.contains("<i>no longer</i> wanted"));
    // What is over can be asked for nothing.
    assert_eq!(page.eval("document.querySelectorAll('main form').length").await, 0);
    assert_eq!(page.errors().len(), 1, "the refusal alone: {:?}", page.errors());
}

#[tokio::test]
async fn what_has_proven_itself_is_published_from_its_page() {
    let (own, database) = TestDatabase::migrated().await;
    dispatcher(&database).await;
    let new = trunkline::postgres::canaries::NewCanary {
        flow: "menu".into(),
        candidate: "menu-next".into(),
        route: "dispatcher".into(),
        steps: trunkline::model::delivery::Steps::default(),
        hold_minutes: 15,
        reason: None,
    };
    let canary = database.start_canary(&new, "alice").await.unwrap();
    sqlx::query("UPDATE trunkline.canaries SET state = 'done', reason = 'proven', step = 5, share = 1")
        .execute(&own.owner().await)
        .await
        .unwrap();
    let console = Running::start(Settings::default(), database.clone()).await;
    let page = Browser::start().await.page().await;
    page.open(&console.url("/")).await;
    assert!(page.text("main").await.contains("menu-next has 100 %"), "the first page tells of it");
    page.open(&console.url(&format!("/canaries?id={}", canary.id))).await;
    page.click("[popovertarget=ask-promote]").await;
    page.until("the question", "document.getElementById('ask-promote').matches(':popover-open')").await;
    fill(&page, &[("promote-version", "12.0")]).await;
    page.click("#ask-promote button[type=submit]").await;
    at(&page, "the page to say so", "is being published as flow menu").await;
    let promoting = database.canary(&canary.id).await.unwrap().expect("there");
    assert_eq!((promoting.state, &*promoting.reason), (CanaryState::Promoting, "promoted by local"));
    let order = database.setting("canary/dispatcher").await.unwrap().expect("ordered");
    assert_eq!((&order.value["request"], &order.value["version"]), (&json!("promote"), &json!("12.0")));
    assert_eq!(page.errors(), Vec::<String>::new());
}
