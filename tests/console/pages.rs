//! The pages over plain HTTP: sizes, headers, sessions, and who may send their forms.

use reqwest::StatusCode;
use reqwest::header::{ACCEPT, COOKIE, LOCATION, SET_COOKIE};
use serde_json::json;
use sha2::{Digest, Sha256};
use trunkline::console::{ApiKey, Role, Settings};

use super::support::postgres::TestDatabase;
use super::support::records::{decision, fill};
use super::{Running, problem};

pub(crate) fn keys() -> Vec<ApiKey> {
    let key = |name: &str, role| {
        let digest: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        ApiKey::new(name, role, &digest).unwrap()
    };
    vec![key("looker", Role::Read), key("doer", Role::Operate)]
}

/// Follows no redirects: they are looked at.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// Logs in and returns the cookie.
pub(crate) async fn login(console: &Running, key: &str) -> String {
    let entered = client().post(console.url("/login")).form(&[("key", key), ("next", "//evil.example")]);
    let entered = entered.send().await.unwrap();
    assert_eq!(entered.status(), StatusCode::SEE_OTHER);
    assert_eq!(entered.headers()[LOCATION], "/", "nobody is led elsewhere");
    let cookie = entered.headers()[SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict; Max-Age="), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

/// The token in the forms of a page.
pub(crate) fn token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_load_is_small_and_loads_nothing_from_elsewhere() {
    let (_own, database) = TestDatabase::migrated().await;
    let decisions: Vec<_> = (0..60).map(|number| decision(&format!("campaign-{number}"), 1)).collect();
    fill(&database, &decisions, &[]).await;
    let console = Running::start(Settings::default(), database).await;
    let page = console.get("/").await;
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
    let page = page.text().await.unwrap();
    let mut bytes = page.len();
    for part in page.split('"').filter(|part| part.starts_with("/assets/")) {
        let loaded = console.get(part).await;
        assert_eq!(loaded.status(), 200, "{part}");
        assert!(loaded.headers()["cache-control"].to_str().unwrap().contains("immutable"));
        bytes += loaded.bytes().await.unwrap().len();
    }
    assert!(bytes < 150 * 1_024, "{bytes} bytes, not even compressed");
    for part in page.split("http").skip(1) {
        assert!(part.starts_with("://www.w3.org/"), "http{}", part.chars().take(40).collect::<String>());
    }
    assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains(" onclick="));
    assert_eq!(console.get("/assets/../Cargo.toml").await.status(), 404);
    assert_eq!(console.get("/assets/other.js").await.status(), 404);
}

#[tokio::test]
async fn people_get_pages_and_programs_get_problems() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings { api_keys: keys(), ..Settings::default() }, database).await;
    problem(console.get("/").await, 401, "unauthorized").await;
    let led =
        client().get(console.url("/ledger?loop=dial")).header(ACCEPT, "text/html").send().await.unwrap();
    assert_eq!(led.status(), StatusCode::SEE_OTHER);
    assert_eq!(led.headers()[LOCATION], "/login?next=%2Fledger%3Floop%3Ddial");
    let cookie = login(&console, "looker").await;
    let ask = async |path: &str, accept: &str| {
        let asked = client().get(console.url(path)).header(COOKIE, &cookie).header(ACCEPT, accept);
        asked.send().await.unwrap()
    };
    let missing = "/decisions/0190b5a0-0000-8000-8000-000000000000";
    problem(ask(missing, "*/*").await, 404, "not-found").await;
    let page = ask(missing, "text/html").await;
    assert_eq!(page.status(), 404);
    let page = page.text().await.unwrap();
    assert!(
        page.contains("there is no decision of this id") && page.contains("aria-label=\"Views\""),
        "{page}"
    );
    assert_eq!(ask("/v1/decisions", "*/*").await.status(), 200, "a session reads as its key does");
}

#[tokio::test]
async fn a_session_ends_with_its_key_its_time_and_its_logout() {
    let (own, database) = TestDatabase::migrated().await;
    let settings = Settings { api_keys: keys(), ..Settings::default() };
    let console = Running::start(settings.clone(), database.clone()).await;
    let cookie = login(&console, "doer").await;
    let status = async |console: &Running, cookie: &str| {
        client()
            .get(console.url("/v1/decisions"))
            .header(COOKIE, cookie)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(status(&console, &cookie).await, 200);
    // Any instance knows it; one whose configuration no longer has the key does not let it in.
    let other = Running::start(settings, database.clone()).await;
    assert_eq!(status(&other, &cookie).await, 200);
    let without = Settings { api_keys: vec![keys().remove(0)], ..Settings::default() };
    let without = Running::start(without, database.clone()).await;
    assert_eq!(status(&without, &cookie).await, 401);
    for guessed in ["trunkline_session=", &format!("trunkline_session={}", "0".repeat(64))] {
        assert_eq!(status(&console, guessed).await, 401);
    }
    // What is kept opens nothing by itself.
    let kept: Vec<u8> = sqlx::query_scalar("SELECT token_digest FROM trunkline.console_sessions")
        .fetch_one(&own.owner().await)
        .await
        .unwrap();
    let digest: String = kept.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(status(&console, &format!("trunkline_session={digest}")).await, 401);
    sqlx::query("UPDATE trunkline.console_sessions SET expires_at = now() - interval '1 second'")
        .execute(&own.owner().await)
        .await
        .unwrap();
    super::support::until("the session to expire", || async {
        (status(&console, &cookie).await == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn forms_and_changes_by_cookie_are_taken_from_our_own_pages_alone() {
    let (_own, database) = TestDatabase::migrated().await;
    let console =
        Running::start(Settings { api_keys: keys(), ..Settings::default() }, database.clone()).await;
    let cookie = login(&console, "doer").await;
    let page = client().get(console.url("/")).header(COOKIE, &cookie).send().await.unwrap();
    let token = token(&page.text().await.unwrap());
    let send = async |token: &str, cookie: &str| {
        let fields = [("csrf", token), ("loop", "dial"), ("reason", "storm"), ("back", "/lag")];
        client().post(console.url("/pause")).header(COOKIE, cookie).form(&fields).send().await.unwrap()
    };
    for wrong in ["", "0", &"0".repeat(64)] {
        problem(send(wrong, &cookie).await, 403, "forbidden").await;
    }
    // The token of one session is none of another's.
    let another = login(&console, "doer").await;
    problem(send(&token, &another).await, 403, "forbidden").await;
    assert!(database.pauses().await.unwrap().is_empty());
    let done = send(&token, &cookie).await;
    assert_eq!((done.status(), &done.headers()[LOCATION]), (StatusCode::SEE_OTHER, &"/lag".parse().unwrap()));
    // A change by cookie over the routes for programs carries the token in a header.
    let put = |token: Option<&str>, site: &str| {
        let asked = client().delete(console.url("/v1/pause/dial")).header(COOKIE, &cookie);
        let asked = asked.header("sec-fetch-site", site);
        match token {
            Some(token) => asked.header("x-csrf-token", token),
            None => asked,
        }
    };
    problem(put(None, "same-origin").send().await.unwrap(), 403, "forbidden").await;
    problem(put(Some(&token), "cross-site").send().await.unwrap(), 403, "forbidden").await;
    assert_eq!(put(Some(&token), "same-origin").send().await.unwrap().status(), 200);
    // Who may only look may not stop anything, token or not.
    let looker = login(&console, "looker").await;
    problem(send(&token, &looker).await, 403, "forbidden").await;
}

#[tokio::test]
async fn without_keys_other_pages_in_the_same_browser_change_nothing() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database.clone()).await;
    let fields = [("loop", "all"), ("reason", "storm")];
    problem(client().post(console.url("/pause")).form(&fields).send().await.unwrap(), 403, "forbidden").await;
    let simple = client().post(console.url("/v1/routes/c/publish")).header("sec-fetch-site", "cross-site");
    problem(simple.send().await.unwrap(), 403, "forbidden").await;
    let page = console.get("/").await.text().await.unwrap();
    let fields = [("csrf", &*token(&page)), ("loop", "all"), ("reason", "storm"), ("back", "/")];
    let done = client().post(console.url("/pause")).form(&fields).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    assert_eq!(database.pauses().await.unwrap().iter().count(), 1);
}

#[tokio::test]
async fn pauses_are_made_listed_and_ended_over_http() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings { api_keys: keys(), ..Settings::default() }, database).await;
    let as_doer = |request: reqwest::RequestBuilder| request.bearer_auth("doer");
    let pause = async |body: serde_json::Value| {
        as_doer(console.client.post(console.url("/v1/pause"))).json(&body).send().await.unwrap()
    };
    for wrong in [
        json!({"loop": "dial"}),
        json!({"loop": "dials", "reason": "x"}),
        json!({"loop": "dial", "reason": ""}),
    ] {
        assert_eq!(pause(wrong).await.status(), 400);
    }
    let paused = pause(json!({"loop": "dial", "reason": "too many abandoned"})).await;
    let paused: serde_json::Value = paused.error_for_status().unwrap().json().await.unwrap();
    assert_eq!(paused["items"][0]["who"], "doer");
    let listed = as_doer(console.client.get(console.url("/v1/pause"))).send().await.unwrap();
    let listed: serde_json::Value = listed.json().await.unwrap();
    assert_eq!(listed["items"], paused["items"]);
    assert_eq!(listed["items"][0]["reason"], "too many abandoned");
    let end = async |of: &str| {
        let asked = console.client.delete(console.url(&format!("/v1/pause/{of}")));
        as_doer(asked).send().await.unwrap()
    };
    problem(end("rollback").await, 404, "not-found").await;
    problem(end("dials").await, 400, "bad-parameters").await;
    assert_eq!(end("all").await.status(), 200, "with all every pause ends");
    problem(end("dial").await, 404, "not-found").await;
}
