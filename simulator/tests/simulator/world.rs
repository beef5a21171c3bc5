//! The world behind the API: its clock, its log, the rival, start and end.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Scenario, Settings, Simulator, StartError};

use crate::tenant::{CAMPAIGN, Tenant, settings};

async fn world(tenant: &Tenant) -> Value {
    tenant.control(Method::GET, "/campaigns", Value::Null).await
}

#[tokio::test]
async fn at_speed_zero_the_world_moves_by_hand_and_repeats_with_its_seed() {
    let live = async |seed| {
        let tenant = Tenant::start(Settings { seed, ..settings() }).await;
        let before = world(&tenant).await;
        assert_eq!(
            (&before["simulatedSeconds"], &before["campaigns"][0]["attempts"]),
            (&json!(0), &json!(0))
        );
        tenant.control(Method::POST, "/clock/advance?seconds=1000", Value::Null).await;
        let (_, tag) = tenant.campaign(CAMPAIGN).await;
        tenant.write(CAMPAIGN, &tag, 4.0).send().await.unwrap();
        let now = tenant.control(Method::POST, "/clock/advance?seconds=2000", Value::Null).await;
        assert_eq!(now["simulatedSeconds"], 3000);
        world(&tenant).await
    };
    let seen = live(7).await;
    assert_eq!(seen, live(7).await);
    assert_ne!(seen["campaigns"][0]["attempts"], live(8).await["campaigns"][0]["attempts"]);
    let campaign = &seen["campaigns"][0];
    let agents: u64 = ["idle", "talking", "wrappingUp", "onBreak", "away"]
        .iter()
        .map(|activity| campaign["agents"][activity].as_u64().unwrap())
        .sum();
    assert_eq!(agents, 20);
    assert!(campaign["abandonment"].as_f64().unwrap() > 0.0, "four lines per agent at 50 % lose calls");
}

#[tokio::test]
async fn with_a_speed_the_world_moves_by_itself_and_cannot_be_pushed() {
    let begun = Instant::now();
    let tenant =
        Tenant::start(Settings { speed: 2_000.0, scenario: Scenario::default(), ..settings() }).await;
    while world(&tenant).await["simulatedSeconds"].as_u64().unwrap() < 4_000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the world stands still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let reached = tenant.running.overview().simulated_seconds as f64;
    assert!(reached <= begun.elapsed().as_secs_f64() * 2_000.0, "never faster than asked");
    for campaign in tenant.running.overview().campaigns {
        assert!(campaign.snapshot.calls.delivered > 0, "{}", campaign.name);
    }
    let push = tenant.http.post(tenant.url("/simulator/clock/advance?seconds=1")).send().await.unwrap();
    assert_eq!(push.status().as_u16(), 409);
}

#[tokio::test]
async fn the_log_holds_every_request_in_order_with_its_effect() {
    let tenant = Tenant::start(settings()).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    tenant.get("/api/v2/nothing?a=b").await;
    tenant.write(CAMPAIGN, &tag, 2.0).send().await.unwrap();
    let (_, new_tag) = tenant.campaign(CAMPAIGN).await;
    tenant.write(CAMPAIGN, &tag, 3.0).send().await.unwrap();
    tenant.control(Method::POST, &format!("/campaigns/{CAMPAIGN}/change"), json!({"priority": 1})).await;

    let log = tenant.log().await;
    let path = format!("/api/v2/campaigns/{CAMPAIGN}");
    let lines: Vec<_> = log
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            (
                entry["sequence"].as_u64().unwrap(),
                text("origin"),
                text("method"),
                text("path"),
                entry["status"].clone(),
            )
        })
        .collect();
    let line = |sequence, origin: &str, method: &str, path: &str, status: u16| {
        (sequence, origin.to_owned(), method.to_owned(), path.to_owned(), json!(status))
    };
    assert_eq!(
        lines,
        [
            line(2, "api", "GET", &path, 200),
            line(3, "api", "GET", "/api/v2/nothing?a=b", 404),
            line(4, "api", "PUT", &path, 204),
            line(5, "api", "GET", &path, 200),
            line(6, "api", "PUT", &path, 412),
            line(7, "control", "PUT", &path, 200),
        ]
    );
    assert_eq!(
        log[2]["effect"],
        json!({"campaignId": CAMPAIGN, "oldRate": 1.5, "newRate": 2.0, "oldEtag": tag, "newEtag": new_tag, "oldVersion": 1, "newVersion": 2})
    );
    assert_eq!((&log[4]["ifMatch"], &log[4]["effect"]), (&json!(tag), &Value::Null));
    assert_eq!(log[4]["body"], r#"{"dialerSettings":{"predictedDialRate":3.0}}"#);
    assert_eq!(log[5]["effect"]["oldEtag"], json!(new_tag));
    let page = tenant.control(Method::GET, "/requests?since=3&limit=2", Value::Null).await;
    assert_eq!(
        (page["items"].as_array().unwrap().len(), &page["next"], &page["last"]),
        (2, &json!(5), &json!(7))
    );
}

#[tokio::test]
async fn the_rival_changes_campaigns_and_signs_for_it() {
    let tenant = Tenant::start(settings()).await;
    tenant.control(Method::PUT, "/rival", json!({"everySeconds": 30})).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    tenant.control(Method::POST, "/clock/advance?seconds=600", Value::Null).await;
    let rivals: Vec<_> = tenant.log().await.into_iter().filter(|entry| entry["origin"] == "rival").collect();
    assert_eq!(rivals.len(), 20);
    assert!(rivals.iter().any(|entry| entry["body"].as_str().unwrap().contains("maxDialRate")));
    assert!(rivals.iter().any(|entry| entry["body"].as_str().unwrap().contains("callerName")));
    let mut chain = tag;
    for effect in
        rivals.iter().map(|entry| &entry["effect"]).filter(|effect| effect["campaignId"] == CAMPAIGN)
    {
        assert_eq!(effect["oldEtag"], chain);
        chain = effect["newEtag"].as_str().unwrap().into();
    }
    assert_eq!(tenant.campaign(CAMPAIGN).await.1, chain);
    tenant.control(Method::PUT, "/rival", json!({"everySeconds": null})).await;
    tenant.control(Method::POST, "/clock/advance?seconds=600", Value::Null).await;
    assert_eq!(tenant.campaign(CAMPAIGN).await.1, chain);
}

#[tokio::test]
async fn the_end_comes_at_once_even_in_the_middle_of_a_delay() {
    let tenant = Tenant::start(settings()).await;
    tenant.set_faults(json!([{ "fault": { "type": "delay", "ms": 600_000 } }])).await;
    let pending = tokio::spawn(tenant.request(Method::GET, "/api/v2/nothing").send());
    let begun = Instant::now();
    while tenant.control(Method::GET, "/faults", Value::Null).await["items"][0]["applied"] != 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the request never came");
    }
    let address = tenant.running.api_addr;
    tokio::time::timeout(Duration::from_secs(10), tenant.running.shutdown()).await.expect("bounded");
    assert!(pending.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let taken = Simulator::start(settings()).await.unwrap();
    let error = Simulator::start(Settings { listen: taken.api_addr, ..settings() }).await.err().unwrap();
    assert!(matches!(&error, StartError::Bind { address, .. } if *address == taken.api_addr), "{error}");
    let wrong = Settings { speed: -1.0, clients: vec![], ..settings() };
    let error = Simulator::start(wrong).await.err().unwrap().to_string();
    assert!(error.contains("speed -1") && error.contains("clients"), "{error}");
    let nothing = Settings { scenario: Scenario::of_campaigns(vec![]), ..settings() };
    assert!(matches!(Simulator::start(nothing).await, Err(StartError::Scenario(_))));
}
