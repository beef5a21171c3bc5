//! What no route takes, told from the route table: so a new route without it fails here.

use reqwest::header::CONTENT_TYPE;
use trunkline::console::{Method, Place, ROUTES, Route, Settings};

use super::support::postgres::TestDatabase;
use super::{Running, problem};

/// The path with something that every route of it takes.
fn usable(path: &str) -> String {
    let path = path.replace("{scope}", "route%2Fc").replace("{configurationId}", "c");
    path.replace("{id}", "0190b5a0-0000-8000-8000-000000000000").replace("{group}", "g")
}

#[tokio::test]
async fn no_path_takes_what_no_database_keeps() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database).await;
    let long = "x".repeat(40_000);
    for route in ROUTES.iter() {
        let Some(begin) = route.path.find('{') else { continue };
        let end = route.path.find('}').expect("closed");
        for given in ["%00", "a%00b", "%ff", &long] {
            let path = format!("{}{given}{}", &route.path[..begin], &route.path[end + 1..]);
            let refused = console.ask(route, &path).send().await.unwrap();
            assert_eq!(refused.status(), 400, "{} {}: {given:.10}", route.method.name(), route.path);
            let told = problem(refused, 400, "bad-parameters").await;
            assert!(told["errors"][0]["allowed"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
        }
    }
}

#[tokio::test]
async fn no_parameter_takes_what_no_database_keeps() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database).await;
    for route in ROUTES.iter() {
        for parameter in route.parameters.iter().filter(|parameter| parameter.place == Place::Query) {
            let path = format!("{}?{}=a%00b", usable(route.path), parameter.name);
            let refused = console.ask(route, &path).send().await.unwrap();
            assert_eq!(refused.status(), 400, "{} {path}", route.method.name());
            problem(refused, 400, "bad-parameters").await;
        }
    }
}

/// Events come in lists as well, and forms are no JSON.
fn takes_an_object(route: &Route) -> bool {
    let is_json = route.body.as_ref().is_some_and(|body| body.media_types.contains(&"application/json"));
    is_json && route.path != "/v1/events"
}

#[tokio::test]
async fn a_list_is_no_object_in_any_body() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database).await;
    for route in ROUTES.iter().filter(|route| takes_an_object(route)) {
        for body in ["[]", r#"["x"]"#, r#"[["x"]]"#, r#"[null,60,null]"#, r#""x""#, "7", "true", "", "{"] {
            let url = console.url(&usable(route.path));
            let asked = match route.method {
                Method::Put => console.client.put(url),
                _ => console.client.post(url),
            };
            let asked = asked.header(CONTENT_TYPE, "application/json").body(body);
            let refused = asked.send().await.unwrap();
            assert_eq!(refused.status(), 400, "{} {}: {body}", route.method.name(), route.path);
            problem(refused, 400, "bad-body").await;
        }
    }
}
