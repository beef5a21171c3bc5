//! Deny by default, told from the route table.

use sha2::{Digest, Sha256};
use trunkline::console::{Access, ApiKey, Console, ConsoleError, ROUTES, Role, Settings};
use trunkline::health::Health;

use super::support::postgres::TestDatabase;
use super::{Running, metrics, problem};

fn key_of(role: Role) -> String {
    format!("key-of-{}", role.name())
}

fn keys() -> Vec<ApiKey> {
    let digest =
        |role| Sha256::digest(key_of(role)).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Role::ALL.map(|role| ApiKey::new(role.name(), role, &digest(role)).unwrap()).to_vec()
}

#[tokio::test]
async fn every_route_asks_for_its_role_and_nothing_less() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings { api_keys: keys(), ..Settings::default() }, database).await;
    for route in ROUTES.iter() {
        let path = route.path.replace("{id}", "0190b5a0-0000-8000-8000-000000000000");
        let ask = async |authorization: Option<String>| {
            let mut request = console.ask(route, &path);
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            request.send().await.unwrap()
        };
        let without = ask(None).await;
        let Access::Needs(needed) = route.access else {
            let open = ["/healthz", "/readyz", "/login", "/assets/{name}"];
            assert!(open.contains(&route.path), "{} is open to everybody", route.path);
            assert!(without.status() != 401 && without.status() != 403, "{}", route.path);
            continue;
        };
        assert_eq!(without.headers()["www-authenticate"], "Bearer");
        problem(without, 401, "unauthorized").await;
        for wrong in ["Bearer wrong", "Bearer ", "Bearer", "", "Basic a2V5LW9mLXJlYWQ=", "key-of-read"] {
            problem(ask(Some(wrong.to_owned())).await, 401, "unauthorized").await;
        }
        for role in Role::ALL {
            let answer = ask(Some(format!("Bearer {}", key_of(role)))).await;
            if role == needed || role == Role::Operate {
                assert!(answer.status() != 401 && answer.status() != 403, "{} {}", route.path, role.name());
            } else {
                problem(answer, 403, "forbidden").await;
            }
        }
    }
    // What is not in the table is no way in either.
    problem(console.get("/v1/settings").await, 401, "unauthorized").await;
    problem(console.client.post(console.url("/v1/decisions")).send().await.unwrap(), 401, "unauthorized")
        .await;
}

#[tokio::test]
async fn without_keys_only_this_machine_is_served() {
    let (_own, database) = TestDatabase::migrated().await;
    let everywhere = Settings { listen: "0.0.0.0:0".parse().unwrap(), ..Settings::default() };
    let refused = Console::bind(everywhere.clone(), database.clone(), Health::default(), metrics(), None);
    let Err(ConsoleError::OpenToAll(_)) = &refused else { panic!("listens without keys") };
    assert!(refused.err().unwrap().to_string().contains("http.api_keys"));
    let with_keys = Settings { api_keys: keys(), ..everywhere };
    Console::bind(with_keys, database.clone(), Health::default(), metrics(), None)
        .expect("listens with keys");

    let console = Running::start(Settings::default(), database).await;
    assert_eq!(console.get("/v1/decisions").await.status(), 200);
    // A page that had its own name point here.
    let as_other = console.client.get(console.url("/v1/decisions")).header("host", "attacker.example").send();
    problem(as_other.await.unwrap(), 403, "forbidden").await;
}
