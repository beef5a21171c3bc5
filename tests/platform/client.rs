//! The client against the simulator: what each call says is what happened.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use simulator::{Settings, StaleReply};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline::genesys::{
    self, BucketShape, CallError, CallErrorKind as Kind, Client, InProcessPermits, PermitStore, Priority,
    Reply, Scope,
};
use trunkline::health::Health;

use crate::support::simulated::{CAMPAIGN, OTHER, Organization, client, client_with, scope, settings};

const CAMPAIGNS: &str = "/api/v2/campaigns/";

/// Changes the rate as the actuator does: read, prepare, send.
async fn set_rate(client: &Client, rate: f64) -> Result<Reply, CallError> {
    let campaign = client.campaign(CAMPAIGN, &scope()).await.expect("readable");
    let request = client.prepare_dial_rate(&campaign, rate);
    client.send_dial_rate(&request, CAMPAIGN, &scope()).await
}

#[tokio::test]
async fn a_rate_is_read_changed_and_read_again() {
    let organization = Organization::start(settings()).await;
    let client = organization.client();
    let before = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    assert_eq!((before.dial_rate, before.min_dial_rate, before.max_dial_rate), (1.5, 0.5, 6.0));
    let statistics = client.campaign_statistics(CAMPAIGN, &scope()).await.unwrap();
    assert_eq!(statistics.answer_rate, 0.5);
    assert_eq!(statistics.attempts, Some(0));

    let reply = set_rate(&client, 2.25).await.unwrap();
    assert_eq!(reply.response.status, Some(204));
    let after = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    assert_eq!(after.dial_rate, 2.25);
    assert_ne!(after.revision, before.revision);

    let writes = organization.requests_of("PUT", CAMPAIGNS).await;
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0]["ifMatch"], before.revision);
    assert_eq!(writes[0]["body"], r#"{"dialerSettings":{"predictedDialRate":2.25}}"#, "partial");
    assert_eq!(reply.response.correlation_id.as_deref(), writes[0]["correlationId"].as_str());
}

#[tokio::test]
async fn a_stale_revision_is_a_conflict_however_it_is_spelled() {
    for (stale_reply, status) in [(StaleReply::PreconditionFailed412, 412), (StaleReply::Conflict409, 409)] {
        let organization = Organization::start(Settings { stale_reply, ..settings() }).await;
        let client = organization.client();
        let old = client.campaign(CAMPAIGN, &scope()).await.unwrap();
        set_rate(&client, 2.0).await.unwrap();
        let request = client.prepare_dial_rate(&old, 3.0);
        let error = client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap_err();
        assert_eq!((error.kind, error.response.status), (Kind::Conflict, Some(status)));
        assert!(!error.effect_is_unknown());
        assert_eq!(client.campaign(CAMPAIGN, &scope()).await.unwrap().dial_rate, 2.0);
    }
}

#[tokio::test]
async fn what_is_absent_or_not_allowed_says_so() {
    let mut reader_only = settings();
    reader_only.clients[0].scopes.remove(simulator::SCOPE_WRITE);
    let organization = Organization::start(reader_only).await;
    let client = organization.client();
    let error = client.campaign("no-such-campaign", &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.reason.contains("no-such-campaign"), "{error}");
    assert_eq!(set_rate(&client, 2.0).await.unwrap_err().kind, Kind::Forbidden);
}

#[tokio::test]
async fn an_impossible_change_is_never_sent() {
    let organization = Organization::start(settings()).await;
    let client = organization.client();
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    let other = client.campaign(OTHER, &scope()).await.unwrap();
    let mut requests = vec![client.prepare_dial_rate(&other, 1.0)];
    for rate in [f64::NAN, f64::INFINITY, -1.0] {
        requests.push(client.prepare_dial_rate(&campaign, rate));
    }
    for request in requests {
        let error = client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Rejected, "{request:?}");
    }
    assert!(organization.requests_of("PUT", "/").await.is_empty());
}

#[tokio::test]
async fn a_reply_that_is_not_the_apis_is_named_and_a_write_is_then_in_doubt() {
    let elsewhere = format!("{CAMPAIGNS}{OTHER}");
    for (fault, of_read, of_write, changed) in [
        (json!({"type":"html_with_200"}), Kind::Malformed, Kind::NoReply, false),
        (json!({"type":"html_with_200","afterEffect":true}), Kind::Malformed, Kind::NoReply, true),
        (json!({"type":"garbage_body"}), Kind::Malformed, Kind::NoReply, true),
        (json!({"type":"huge_body","bytes":1_u64 << 30}), Kind::Malformed, Kind::NoReply, true),
        (json!({"type":"truncate_body"}), Kind::NoReply, Kind::NoReply, true),
        (json!({"type":"drop_before_effect"}), Kind::NoReply, Kind::NoReply, false),
        (json!({"type":"drop_after_effect"}), Kind::NoReply, Kind::NoReply, true),
        (json!({"type":"delay","ms":20_000,"afterEffect":true}), Kind::NoReply, Kind::NoReply, true),
        (json!({"type":"redirect","location":elsewhere}), Kind::Rejected, Kind::Rejected, false),
        (json!({"type":"status","code":400}), Kind::Rejected, Kind::Rejected, false),
        (
            json!({"type":"status","code":502,"afterEffect":true}),
            Kind::Server { status: 502 },
            Kind::Server { status: 502 },
            true,
        ),
    ] {
        // WriteReply::Ok200 would hide truncation as little as 204 does: both are empty.
        let organization = Organization::start(settings()).await;
        let client = organization.client();
        let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();

        organization.fault("GET", &format!("{CAMPAIGNS}{CAMPAIGN}"), fault.clone()).await;
        let error = client.campaign(CAMPAIGN, &scope()).await.unwrap_err();
        assert_eq!(error.kind, of_read, "reading, {fault}: {error}");
        assert!(error.response.error.is_some(), "{fault}");

        organization.fault("PUT", CAMPAIGNS, fault.clone()).await;
        let request = client.prepare_dial_rate(&campaign, 2.0);
        let sent = client.send_dial_rate(&request, CAMPAIGN, &scope()).await;
        organization.faults(json!([])).await;
        let is_changed = client.campaign(CAMPAIGN, &scope()).await.unwrap().dial_rate == 2.0;
        assert_eq!(is_changed, changed, "{fault}");
        match sent {
            // An empty reply has nothing to truncate, enlarge or garble.
            Ok(_) => assert!(changed && of_write == Kind::NoReply, "{fault}"),
            Err(error) => {
                assert_eq!(error.kind, of_write, "writing, {fault}: {error}");
                assert_eq!(error.effect_is_unknown(), of_write != Kind::Rejected, "{fault}");
            }
        }
        assert!(organization.requests_of("GET", &elsewhere).await.is_empty(), "a redirect was followed");
        assert_eq!(organization.requests_of("PUT", CAMPAIGNS).await.len(), 1, "{fault}: one attempt");
    }
}

#[tokio::test]
async fn a_dripping_reply_is_given_up_in_time() {
    let organization = Organization::start(settings()).await;
    let client = organization.client();
    client.campaign(CAMPAIGN, &scope()).await.unwrap();
    // A byte each 200 ms: every single read is in time, the whole is not.
    organization.fault("GET", CAMPAIGNS, json!({"type":"slow_body","bytesPerSecond":5})).await;
    let started = Instant::now();
    let error = client.campaign(CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::NoReply, "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// 64 MiB of zeros, packed into 64 KiB: the limit counts what comes out.
#[tokio::test]
async fn a_gzip_bomb_is_cut_off() {
    let packed = std::process::Command::new("sh")
        .args(["-c", "head -c 67108864 /dev/zero | gzip -9"])
        .output()
        .expect("gzip is part of every Debian")
        .stdout;
    assert!((1_000..100_000).contains(&packed.len()), "{} bytes", packed.len());
    let reply = move || {
        let headers = [("content-type", "application/json"), ("content-encoding", "gzip"), ("etag", "\"1\"")];
        std::future::ready((headers, packed))
    };
    let token = async || axum::Json(json!({"access_token":"t","token_type":"bearer","expires_in":3600}));
    let app = axum::Router::new()
        .route("/oauth/token", axum::routing::post(token))
        .route("/api/v2/campaigns/{id}", axum::routing::get(reply));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let client = client(&genesys::Settings { base_url, ..genesys::Settings::default() });
    let error = client.campaign(CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Malformed);
    assert!(error.reason.contains("8388608 bytes"), "{error}");
    serving.abort();
}

#[tokio::test]
async fn a_platform_that_is_not_there_was_surely_not_reached() {
    let organization = Organization::start(settings()).await;
    let client = organization.client();
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    organization.running.shutdown().await;
    let request = client.prepare_dial_rate(&campaign, 2.0);
    let error = client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap_err();
    // A kept-alive connection may die under the first request; a fresh one is refused.
    assert!(matches!(error.kind, Kind::NotSent | Kind::NoReply), "{error}");
    let error = client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotSent, "{error}");
    assert!(!error.effect_is_unknown());
}

/// A client whose breakers pause this long, and its health.
fn breaking(organization: &Organization, pause: Duration) -> (Client, Health) {
    let health = Health::default();
    let settings = genesys::Settings { breaker_pause: pause, ..organization.client_settings() };
    let permits =
        InProcessPermits::new(BucketShape::new(settings.requests_per_minute, settings.budget_window));
    (client_with(&settings, Arc::new(permits), &health), health)
}

#[tokio::test]
async fn a_campaign_that_fails_pauses_itself_and_one_probe_ends_the_pause() {
    let organization = Organization::start(settings()).await;
    let pause = Duration::from_millis(400);
    let (client, health) = breaking(&organization, pause);
    client.campaign(CAMPAIGN, &scope()).await.unwrap();
    assert!(health.reasons().is_empty(), "{:?}", health.reasons());

    let path = format!("{CAMPAIGNS}{CAMPAIGN}");
    organization.fault("GET", &path, json!({"type":"status","code":503})).await;
    let before = organization.requests_of("GET", &path).await.len();
    for _ in 0..3 {
        let error = client.campaign(CAMPAIGN, &scope()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Server { status: 503 });
        client.campaign(OTHER, &scope()).await.expect("its neighbour is well");
    }
    let paused_at = Instant::now();
    let error = client.campaign(CAMPAIGN, &scope()).await.unwrap_err();
    let Kind::Paused { until: Some(until) } = error.kind else { panic!("{error}") };
    assert!(until <= paused_at + pause);
    assert!(error.reason.contains(&format!("campaigns of {CAMPAIGN}")), "{error}");
    assert_eq!(organization.requests_of("GET", &path).await.len(), before + 3, "nothing sent");
    client.campaign(OTHER, &scope()).await.expect("nor does it pay for the other's pause");
    assert!(health.reasons().is_empty(), "the others go on: {:?}", health.reasons());
    let impaired = health.impairments();
    assert!(impaired[0].0 == "genesys.campaigns" && impaired[0].1.contains(CAMPAIGN), "{impaired:?}");

    organization.faults(json!([])).await;
    tokio::time::sleep_until(until).await;
    client.campaign(CAMPAIGN, &scope()).await.expect("the probe");
    client.campaign(CAMPAIGN, &scope()).await.expect("closed again");
    assert!(health.impairments().is_empty());
}

#[tokio::test]
async fn all_campaigns_pause_when_several_of_them_fail() {
    let organization = Organization::start(settings()).await;
    let pause = Duration::from_millis(400);
    let (client, health) = breaking(&organization, pause);
    organization.fault("GET", CAMPAIGNS, json!({"type":"status","code":503})).await;
    for campaign in [CAMPAIGN, OTHER, "a third"] {
        let error = client.campaign(campaign, &scope()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Server { status: 503 }, "{campaign}");
    }
    let sent = organization.requests_of("GET", CAMPAIGNS).await.len();
    let error = client.campaign("a fourth", &scope()).await.unwrap_err();
    let Kind::Paused { until: Some(until) } = error.kind else { panic!("{error}") };
    assert_eq!(organization.requests_of("GET", CAMPAIGNS).await.len(), sent, "nothing sent");
    let reasons = health.reasons();
    assert_eq!(reasons.iter().map(|(part, _)| part.as_str()).collect::<Vec<_>>(), ["genesys.campaigns"]);
    let error = client.campaign_statistics(CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Server { status: 503 }, "other endpoints have pauses of their own");

    organization.faults(json!([])).await;
    tokio::time::sleep_until(until).await;
    client.campaign(CAMPAIGN, &scope()).await.expect("the probe");
    client.campaign(OTHER, &scope()).await.expect("closed again");
    assert!(health.reasons().is_empty());
}

#[tokio::test]
async fn reading_a_campaign_does_not_reopen_the_way_for_writes_that_fail() {
    let organization = Organization::start(settings()).await;
    let (client, _) = breaking(&organization, Duration::from_secs(600));
    organization.fault("PUT", CAMPAIGNS, json!({"type":"status","code":503})).await;
    for _ in 0..3 {
        let error = set_rate(&client, 2.0).await.unwrap_err();
        assert_eq!(error.kind, Kind::Server { status: 503 });
        client.campaign(CAMPAIGN, &scope()).await.expect("reading back works");
    }
    let error = set_rate(&client, 2.0).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Paused { .. }), "{error}");
    assert_eq!(organization.requests_of("PUT", CAMPAIGNS).await.len(), 3);
}

#[tokio::test]
async fn a_platform_that_is_slower_than_we_have_time_for_is_not_taken_for_a_failing_one() {
    let organization = Organization::start(settings()).await;
    let (client, health) = breaking(&organization, Duration::from_secs(600));
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    let slow = json!([{ "match": { "path": CAMPAIGNS }, "fault": { "type": "delay", "ms": 700 } }]);
    organization.faults(slow).await;
    let hasty = || Scope { deadline: Instant::now() + Duration::from_millis(150), ..scope() };
    let request = client.prepare_dial_rate(&campaign, 2.0);
    for _ in 0..4 {
        let error = client.send_dial_rate(&request, CAMPAIGN, &hasty()).await.unwrap_err();
        assert_eq!(error.kind, Kind::NoReply, "{error}");
        let error = client.campaign(CAMPAIGN, &hasty()).await.unwrap_err();
        assert_eq!(error.kind, Kind::DeadlinePassed, "{error}");
    }
    assert!(health.reasons().is_empty() && health.impairments().is_empty());
    let campaign = client.campaign(CAMPAIGN, &scope()).await.expect("slow, not away");
    let request = client.prepare_dial_rate(&campaign, 3.0);
    let sent = client.send_dial_rate(&request, CAMPAIGN, &scope()).await;
    sent.expect("no pause for any campaign");
}

#[tokio::test]
async fn every_wait_ends_when_the_process_stops() {
    let organization = Organization::start(settings()).await;
    let permits = InProcessPermits::new(BucketShape::new(10, Duration::from_secs(60)));
    let permits = Arc::new(permits);
    let settings = genesys::Settings {
        total_timeout: Duration::from_secs(60),
        read_timeout: Duration::from_secs(60),
        ..organization.client_settings()
    };
    let client = client_with(&settings, permits.clone(), &Health::default());
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();

    // On its way: waited for a little, then in doubt.
    organization.fault("PUT", CAMPAIGNS, json!({"type":"delay","ms":30_000})).await;
    let cancelled = CancellationToken::new();
    let stopping = Scope { priority: Priority::Rollback, cancelled: cancelled.clone(), ..scope() };
    let request = client.prepare_dial_rate(&campaign, 2.0);
    let sending = tokio::spawn({
        let (client, stopping) = (client.clone(), stopping.clone());
        async move { client.send_dial_rate(&request, CAMPAIGN, &stopping).await }
    });
    crate::support::until("the request", async || {
        // The log is written when a request ends: the fault's own count tells that it began.
        organization.fault_applied().await.then_some(())
    })
    .await;
    let stopped = Instant::now();
    cancelled.cancel();
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(error.kind, Kind::NoReply, "{error}");
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());

    // Waiting for the budget: nothing was sent.
    permits.refused(Some(Duration::from_secs(600))).await.unwrap();
    let cancelled = CancellationToken::new();
    let waiting = tokio::spawn({
        let (client, stopping) = (client.clone(), Scope { cancelled: cancelled.clone(), ..scope() });
        async move { client.campaign(CAMPAIGN, &stopping).await }
    });
    tokio::task::yield_now().await;
    cancelled.cancel();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind, Kind::Cancelled);
    let in_time = Scope { deadline: Instant::now() + Duration::from_millis(50), ..scope() };
    let error = client.campaign(CAMPAIGN, &in_time).await.unwrap_err();
    assert_eq!(error.kind, Kind::DeadlinePassed);
    assert!(error.reason.contains("budget"), "{error}");
}

#[tokio::test]
async fn settings_that_make_no_client_say_why() {
    let settings = genesys::Settings { base_url: "nowhere".into(), ..Default::default() };
    let shape = BucketShape::new(1, Duration::from_secs(1));
    let permits = Arc::new(InProcessPermits::new(shape));
    let Err(error) = Client::new(&settings, permits, &Health::default()) else { panic!("a client") };
    assert!(error.to_string().contains("genesys.base_url"), "{error}");
}
