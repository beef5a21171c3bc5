//! What a collector and Prometheus see of two instances that share the work.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use rustix::process::Signal;

use crate::deployment::{Deployment, ENDED, Instance};
use crate::support::collector::{Collector, attribute};
use crate::support::receiver::{Manner, OTHER_SECRET, Receiver, SECRET};
use crate::support::within;

/// Every span of the trace by its id.
type Trace = BTreeMap<Vec<u8>, Span>;

/// Names from this span up to the trace's root, which has no parent.
fn ancestors(trace: &Trace, span: &Span) -> Vec<String> {
    let mut names = vec![span.name.clone()];
    let mut parent = &span.parent_span_id;
    while let Some(above) = trace.get(parent) {
        names.push(above.name.clone());
        parent = &above.parent_span_id;
    }
    assert!(parent.is_empty(), "the parent of {names:?} has not arrived: {parent:02x?}");
    names
}

/// The trace of an applied decision, once all of it has come: two rows in the audit among it.
fn complete(collector: &Collector) -> Option<(Span, Trace)> {
    let spans = collector.spans();
    let applied =
        |span: &&Span| span.name == "execute" && attribute(span, "status").as_deref() == Some("applied");
    spans.iter().filter(applied).find_map(|executed| {
        let of = spans.iter().filter(|span| span.trace_id == executed.trace_id);
        let trace: Trace = of.map(|span| (span.span_id.clone(), span.clone())).collect();
        let kept = trace.values().filter(|span| span.name == "keep").count();
        (kept >= 2).then(|| (executed.clone(), trace))
    })
}

/// Hands a page of metrics to Prometheus' own reader, which also judges names and help texts.
fn prometheus_takes(page: &str) {
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: run scripts/setup.sh promtool");
    check.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("it reads");
    let checked = check.wait_with_output().expect("it ends");
    assert!(checked.status.success(), "{}\n{page}", String::from_utf8_lossy(&checked.stderr));
    assert!(page.contains("trunkline_stage_records_total{"), "{page}");
}

/// The decision that the span names is the one in the ledger.
async fn leads_to_the_ledger(deployment: &Deployment, executed: &Span) {
    let decision = attribute(executed, "decision").expect("a decision id");
    let (key, status): (String, String) =
        sqlx::query_as("SELECT key, status FROM audit.explained WHERE decision_id = $1::uuid")
            .bind(&decision)
            .fetch_one(&deployment.scene.owner)
            .await
            .expect("the decision is in the audit");
    assert_eq!((Some(key), status.as_str()), (attribute(executed, "key"), "applied"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_one_trace_from_the_poll_to_the_audit() {
    let collector = Collector::start().await;
    let deployment = Deployment::prepare().await;
    let exported = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
    ];
    let split =
        [("first", "campaign-poller,windowing,actuator,console"), ("second", "dialing,audit,console")];
    let mut instances =
        split.map(|(name, stages)| deployment.instance_with(name, &["--stages", stages], &exported));
    let (executed, trace) =
        within(Duration::from_secs(120), "a complete trace", async || complete(&collector)).await;
    for instance in &mut instances {
        let (status, page) = instance.get("/metrics").await.expect("the page of metrics");
        assert_eq!(status, 200);
        prometheus_takes(&page);
        instance.process.signal(Signal::TERM);
        assert!(instance.process.wait(ENDED).success());
    }

    let named = |name: &str| {
        let found: Vec<_> = trace.values().filter(|span| span.name.starts_with(name)).collect();
        assert!(!found.is_empty(), "no span {name} in {:?}", trace.values().map(|it| &it.name));
        found
    };
    let topic = |name: &str| format!("process {}{name}", deployment.scene.topic_prefix);
    let way = [
        "execute".to_owned(),
        topic("trunkline.campaign-windows.v1"),
        topic("genesys.campaign-stats.v1"),
        "observe".to_owned(),
    ];
    assert_eq!(ancestors(&trace, &executed), way);
    for name in ["claim", "settle", "call PUT"] {
        let [child] = named(name)[..] else { panic!("{name} is in the trace once") };
        assert_eq!(child.parent_span_id, executed.span_id, "{name}");
    }
    assert_eq!(attribute(named("call PUT")[0], "http.response.status_code").as_deref(), Some("204"));
    // The decision's row hangs below the stage that decided, the outcome's below the execution.
    let kept: BTreeMap<String, Vec<String>> = named("keep")
        .into_iter()
        .map(|span| (attribute(span, "topic").expect("a topic"), ancestors(&trace, span)))
        .collect();
    let below = |way: &[String]| [&["keep".to_owned()], way].concat();
    assert_eq!(kept["trunkline.dial-decisions.v1"], below(&way[1..]));
    assert_eq!(kept["trunkline.outcomes.v1"], below(&way));

    leads_to_the_ledger(&deployment, &executed).await;
    let told = format!("{:?}", collector.spans());
    assert!(!told.contains(simulator::DEMO_CLIENT_SECRET), "a span holds the client's secret");

    // Transactions are spans of their own that link to the traces they merged.
    let linked = collector.spans().into_iter().any(|span| {
        span.name.starts_with("transaction ")
            && span.links.iter().any(|link| link.trace_id == executed.trace_id)
    });
    assert!(linked, "no transaction links to the decision's trace");
}

/// Asks routing in this trace about a conversation that nobody is available for, which people are told:
/// the only group is drained.
async fn ask(instance: &Instance, traceparent: &str) {
    let rule = serde_json::json!({
        "id": "r", "destination": {"type": "QUEUE_ID", "id": "q"}, "weight": 1, "drain": true,
    });
    let definition = serde_json::json!({
        "id": "c", "name": "C", "rules": [rule], "defaultDestination": {"type": "QUEUE_ID", "id": "night"},
    });
    let (http, route) = (reqwest::Client::new(), format!("{}/v1/routes/c", instance.url()));
    let sent = http.put(&route).json(&definition).send().await.expect("an answer");
    assert!(sent.status().is_success(), "{}", sent.text().await.unwrap_or_default());
    let sent = http.post(format!("{route}/publish")).send().await.expect("an answer");
    assert!(sent.status().is_success(), "{}", sent.text().await.unwrap_or_default());
    let asked = http.post(format!("{route}/decisions")).header("traceparent", traceparent);
    let asked = asked.json(&serde_json::json!({"conversationId": "v1"})).send().await.expect("an answer");
    assert!(asked.status().is_success(), "{}", asked.text().await.unwrap_or_default());
}

/// Whoever asks routing hands a trace over: it leads through the answer and the ledger to the people
/// who are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routing_decision_is_one_trace_from_its_question_to_those_who_are_told() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const ASKED_BY: &str = "00f067aa0ba902b7";
    let (collector, receiver) = (Collector::start().await, Receiver::start(Manner::Takes).await);
    let deployment = Deployment::prepare().await;
    let url = &receiver.url;
    let webhooks =
        format!(r#"[{{ name = "ops", url = "{url}", secrets = ["{SECRET}", "{OTHER_SECRET}"] }}]"#);
    let mut instance = deployment.instance_with(
        "one",
        &["--stages", "routing,console,outbox,audit,alerts"],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone()),
            ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
            ("TRUNKLINE_ALERTS__WEBHOOKS", webhooks),
            ("TRUNKLINE_ALERTS__PRIVATE_RECEIVERS", "allow".to_owned()),
        ],
    );
    let patience = Duration::from_secs(120);
    within(patience, "the instance to be ready", async || {
        let (status, _) = instance.get("/readyz").await?;
        (status == 200).then_some(())
    })
    .await;
    ask(&instance, &format!("00-{TRACE}-{ASKED_BY}-01")).await;

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let names = ["decide", "keep", "notify"];
    let spans = within(patience, "the whole trace", async || {
        let all = collector.spans();
        let of =
            |name: &str| all.iter().find(|span| span.name == name && hex(&span.trace_id) == TRACE).cloned();
        names.map(of).into_iter().collect::<Option<Vec<Span>>>()
    })
    .await;
    let [decided, kept, notified] = &spans[..] else { panic!("three spans") };
    assert_eq!(hex(&decided.parent_span_id), ASKED_BY, "it goes on with the asker's");
    assert_eq!(attribute(decided, "key").as_deref(), Some("c"));
    assert_eq!(attribute(kept, "topic").as_deref(), Some("trunkline.routing-decisions.v1"));
    for after in [kept, notified] {
        assert_eq!(hex(&after.parent_span_id), hex(&decided.span_id), "{} follows the answer", after.name);
    }
    let told = within(patience, "the message", async || receiver.messages().into_iter().next()).await;
    let expected = format!("00-{TRACE}-{}-01", hex(&notified.span_id));
    assert_eq!(told.traceparent, Some(expected), "the receiver can go on with it");
    instance.process.signal(Signal::TERM);
    assert!(instance.process.wait(ENDED).success());
}
