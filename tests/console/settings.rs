//! The settings page over plain HTTP: what is wrong by field, the last question, undo, maintenance, who may.

use reqwest::StatusCode;
use serde_json::{Value, json};
use trunkline::console::Settings;
use trunkline::postgres::Database;

use super::Running;
use super::pages::{client, keys, login, token};
use super::support::postgres::TestDatabase;

/// A console, and somebody logged in.
struct Person {
    console: Running,
    cookie: String,
}

impl Person {
    async fn enters(key: &str, database: &Database) -> Self {
        let console =
            Running::start(Settings { api_keys: keys(), ..Settings::default() }, database.clone()).await;
        let cookie = login(&console, key).await;
        Self { console, cookie }
    }

    async fn page(&self) -> String {
        let asked = client().get(self.console.url("/settings")).header("cookie", &self.cookie);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.unwrap()
    }

    /// Sends a form of the page with its token.
    async fn send(&self, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let token = token(&self.page().await);
        let fields = [fields, &[("csrf", token.as_str())]].concat();
        let sent = client().post(self.console.url(path)).header("cookie", &self.cookie).form(&fields);
        let answer = sent.header("accept", "text/html").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

async fn in_force(database: &Database, scope: &str) -> Value {
    database.setting(scope).await.unwrap().map_or(Value::Null, |setting| setting.value)
}

#[tokio::test]
async fn what_is_entered_is_judged_by_field_confirmed_and_can_be_undone() {
    let (_own, database) = TestDatabase::migrated().await;
    let doer = Person::enters("doer", &database).await;
    let wrong = [("campaign", "c-1"), ("goal", "0.05"), ("cap", "0.03"), ("target", "<b>two</b>")];
    let (status, page) = doer.send("/settings/dial", &wrong).await;
    assert_eq!(status, 422);
    assert!(page.contains("id=\"goal-problem\"") && page.contains("is over cap 0.03"), "{page}");
    assert!(page.contains("id=\"target-problem\"") && page.contains("a number, 0.01 to 1"), "{page}");
    assert!(page.contains("value=\"&lt;b&gt;two&lt;/b&gt;\"") && !page.contains("<b>two"), "{page}");
    assert!(!page.contains("id=\"cap-problem\""), "{page}");

    let right = [("campaign", "c-1"), ("goal", "0.02"), ("cap", "0.03"), ("policy", "pacing")];
    let (status, page) = doer.send("/settings/dial", &right).await;
    assert_eq!(status, 200);
    assert!(page.contains("What would change") && page.contains("name=\"before\" value=\"null\""), "{page}");
    assert_eq!(in_force(&database, "dial/c-1").await, Value::Null, "nothing before it is confirmed");
    let confirmed = [&right[..], &[("before", "null"), ("confirmed", "yes")]].concat();
    assert_eq!(doer.send("/settings/dial", &confirmed).await.0, 303);
    let set = json!({"goal": 0.02, "cap": 0.03, "policy": "pacing"});
    assert_eq!(in_force(&database, "dial/c-1").await, set);

    // Who saw another state than there is changes nothing.
    let (status, page) = doer.send("/settings/dial", &confirmed).await;
    assert!(status == 400 && page.contains("somebody else has changed it"), "{status} {page}");

    let change = database.settings_history(Some("dial/c-1"), 1).await.unwrap().remove(0);
    assert_eq!(change.who, "doer");
    let revision = change.revision.to_string();
    let undo = [("scope", "dial/c-1"), ("revision", revision.as_str())];
    assert_eq!(doer.send("/settings/undo", &undo).await.0, 303);
    assert_eq!(in_force(&database, "dial/c-1").await, Value::Null);
    let (status, page) = doer.send("/settings/undo", &undo).await;
    assert!(status == 400 && page.contains("changed meanwhile"), "{status} {page}");
    let page = doer.page().await;
    assert!(page.contains("<code>dial/c-1</code>") && page.contains("withdrawn"), "{page}");
}

#[tokio::test]
async fn windows_are_opened_and_closed_by_those_who_may() {
    let (_own, database) = TestDatabase::migrated().await;
    let doer = Person::enters("doer", &database).await;
    let window = [("flow", "f-1"), ("minutes", "60"), ("reason", "<i>new prompts</i>")];
    assert_eq!(doer.send("/settings/maintenance", &window).await.0, 303);
    let open = database.open_maintenance_windows().await.unwrap();
    assert_eq!((open.len(), &open[0].value["flowId"]), (1, &json!("f-1")));
    let page = doer.page().await;
    assert!(page.contains("&lt;i&gt;new prompts") && !page.contains("<i>new"), "{page}");
    let without = [("minutes", "60"), ("reason", " ")];
    assert_eq!(doer.send("/settings/maintenance", &without).await.0, 400);

    let looker = Person::enters("looker", &database).await;
    let page = looker.page().await;
    assert!(page.contains("f-1") && !page.contains("action=\"/settings/"), "{page}");
    let refused = client().post(looker.console.url("/settings/undo")).header("cookie", &looker.cookie);
    assert_eq!(refused.form(&[("scope", "dial")]).send().await.unwrap().status(), 403);

    let id = open[0].scope.strip_prefix("maintenance/").unwrap();
    assert_eq!(doer.send("/settings/maintenance/close", &[("id", id)]).await.0, 303);
    assert!(database.open_maintenance_windows().await.unwrap().is_empty());
    // A form that no page of this session made.
    let foreign = client().post(doer.console.url("/settings/maintenance")).header("cookie", &doer.cookie);
    assert_eq!(foreign.form(&window).send().await.unwrap().status(), 403);
}
