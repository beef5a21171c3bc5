//! Many campaigns on a short budget of calls, three instances, one of them killed.
//!
//! In the long form a thousand campaigns share 300 calls a minute, and beside the order that is in
//! force stands first come, first served; in the short form there are fewer of them, who still want
//! more calls than there are.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use simulator::{Answering, CampaignScenario, FlowScenario, Scenario, VersionScenario, VersionStatus};
use sqlx::Row;

use crate::deployment::{Deployment, ENDED, Instance};
use crate::rounds;
use crate::support::within;

const FLOWS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(240);
/// The longest that a call for a rollback waits for its permit, in seconds: a bucket of the histogram.
const ROLLBACK_WAITS: &str = "1";
/// How large it is played.
struct Size {
    campaigns: usize,
    /// Calls in a minute of the platform.
    requests: u32,
    speed: f64,
    /// Minutes of the platform before the kill, and after all was taken over.
    before: u64,
    after: u64,
}

impl Size {
    fn played() -> Self {
        if rounds(0, 1) == 1 {
            return Self { campaigns: 1_000, requests: 300, speed: 4.0, before: 12, after: 12 };
        }
        // Fewer calls than all of them want, as in the long form.
        Self { campaigns: 100, requests: 300, speed: 4.0, before: 1, after: 1 }
    }

    /// Within so many seconds every campaign that wants another rate has it: each change takes two
    /// calls, polls may take half of the budget, and after two and a half minutes no new change comes
    /// before one that waits.
    fn served_within(&self) -> f64 {
        60.0 * (4.0 * self.campaigns as f64 / f64::from(self.requests) + 2.5)
    }
}

fn scenario(size: &Size) -> Scenario {
    let campaigns = (0..size.campaigns).map(|number| CampaignScenario {
        id: format!("00000000-0000-4000-8000-{number:012}"),
        name: format!("campaign {number}"),
        agents: 20,
        dial_rate: 1.0,
        min_dial_rate: 1.0,
        max_dial_rate: 10.0,
        answering: Answering::Drifting { start: 0.3, min: 0.1, max: 0.6, per_minute: 0.02 },
        ..CampaignScenario::default()
    });
    let version = |id: &str, status| VersionScenario { id: id.to_owned(), status, error_rate: 0.0 };
    let flows = (0..FLOWS).map(|number| FlowScenario {
        id: flow(number),
        name: format!("flow {number}"),
        interactions_per_minute: 200.0,
        flow_seconds: 5.0,
        transfer_rate: 0.0,
        versions: vec![version("11.0", VersionStatus::Published), version("12.0", VersionStatus::Active)],
        ..FlowScenario::default()
    });
    Scenario { flows: flows.collect(), ..Scenario::of_campaigns(campaigns.collect()) }
}

fn flow(number: usize) -> String {
    format!("00000000-0000-4000-9000-{number:012}")
}

struct Scene {
    deployment: Deployment,
    size: Size,
    /// What the instances are told besides.
    differing: Vec<(&'static str, String)>,
    /// What does not come within patience fails the test; else it is told in the table.
    is_held: bool,
}

/// What came of it. Times are the platform's.
#[derive(Debug, Default)]
struct Found {
    /// Calls in the fullest minute, and how many were refused.
    most_in_a_minute: usize,
    refused: usize,
    /// Of polls, in the fullest tenth of a minute over the mean one.
    unevenness: f64,
    /// Seconds from wanting another rate to having it; the last ones may still want it.
    served: Vec<f64>,
    still_waiting: Vec<f64>,
    superseded: usize,
    /// Calls for rollbacks, and those that waited longer than they may.
    rollback_calls: f64,
    rollback_late: f64,
    /// Seconds that rollbacks' calls waited altogether, the longest decision; `None`: none was
    /// carried out.
    rollback_wait: Option<f64>,
    /// Of decisions, taken on too little.
    starved: f64,
    /// Real seconds until all campaigns were decided on again after a death; `None`: they were not.
    taken_over: Option<f64>,
}

impl Scene {
    async fn of(size: Size, order: Option<&str>) -> Self {
        let deployment = Deployment::short_of_calls(scenario(&size), size.speed, size.requests).await;
        let minute = |count: f64| format!("{}ms", (count * 60_000.0 / size.speed) as u64);
        let flows: Vec<String> = (0..FLOWS).map(flow).collect();
        let mut differing = vec![
            ("TRUNKLINE_EVENTS__WINDOW", minute(1.0)),
            ("TRUNKLINE_ROLLBACK__MODE", "live".to_owned()),
            ("TRUNKLINE_ROLLBACK__SOURCE", "polled".to_owned()),
            ("TRUNKLINE_ROLLBACK__SETTLING", minute(0.1)),
            ("TRUNKLINE_ROLLBACK__FLOWS", flows.join(",")),
            ("TRUNKLINE_ROLLBACK__INTERVAL", minute(1.0)),
        ];
        differing.extend(order.map(|order| ("FAILPOINTS", format!("{order}=return"))));
        Self { deployment, size, differing, is_held: order.is_none() }
    }

    fn instance(&self, name: &str) -> Instance {
        self.deployment.instance_with(name, &[], &self.differing)
    }

    /// Seconds of the platform.
    fn now(&self) -> u64 {
        self.deployment.simulator.overview().simulated_seconds
    }

    /// Until then, in seconds of the platform.
    async fn comes(&self, end: u64) {
        let seconds = end.saturating_sub(self.now()) as f64;
        let patience = Duration::from_secs_f64(3.0 * seconds / self.size.speed + 60.0);
        within(patience, "time to pass", async || (self.now() >= end).then_some(())).await;
    }

    /// Waits for it. Answers whether it came.
    async fn awaits(&self, what: &str, mut has_come: impl AsyncFnMut() -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        while !has_come().await {
            if Instant::now() >= end {
                assert!(!self.is_held, "waited in vain for {what}");
                return false;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        true
    }

    async fn break_flows(&self) {
        for number in 0..FLOWS {
            let url = format!("{}/simulator/flows/{}/publish", self.deployment.scene.simulator, flow(number));
            let bad = json!({ "errorRate": 0.5, "version": "13.0" });
            let reply =
                reqwest::Client::new().post(url).json(&bad).send().await.expect("the simulator answers");
            reply.error_for_status().expect("published");
        }
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.deployment.scene.owner).await.expect(sql)
    }

    /// Three instances work, flows break, one instance dies, and the others go on.
    async fn play(&self) -> Found {
        let mut instances = ["a", "b", "c"].map(|name| self.instance(name));
        within(PATIENCE, "all instances to observe campaigns", async || {
            for instance in &instances {
                if instance.polls().await == 0.0 {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let begun = self.now();
        self.comes(begun + self.size.before * 60).await;
        self.awaits("as many changes as there are campaigns", async || {
            let sql = "SELECT count(*) FROM audit.outcomes WHERE loop = 'dial' AND status = 'applied'";
            self.count(sql).await >= self.size.campaigns as i64
        })
        .await;
        let mut found = Found::default();
        found.hear_rollbacks(&instances[2]).await;
        self.break_flows().await;
        instances[2].process.kill();
        let killed = Instant::now();
        let again = self.awaits("every campaign to be decided on again", async || {
            let sql = "SELECT count(DISTINCT key) FROM audit.decisions
                       WHERE loop = 'dial' AND decided_at > now() - $1 * interval '1 second'";
            let since = killed.elapsed().as_secs_f64();
            let decided: i64 = sqlx::query_scalar(sql)
                .bind(since)
                .fetch_one(&self.deployment.scene.owner)
                .await
                .expect("the audit can be asked");
            decided == self.size.campaigns as i64
        });
        found.taken_over = again.await.then(|| killed.elapsed().as_secs_f64());
        self.awaits("every flow to be taken back", async || {
            let sql = "SELECT count(DISTINCT key) FROM audit.outcomes WHERE loop = 'rollback' AND status = 'applied'";
            self.count(sql).await == FLOWS as i64
        })
        .await;
        // Longer than any campaign may wait, so that one that waits longer is seen.
        let seen = begun + self.size.served_within() as u64 + 60;
        self.comes(seen.max(self.now() + self.size.after * 60)).await;
        for instance in &instances[..2] {
            found.hear_rollbacks(instance).await;
            instance.process.signal(Signal::TERM);
        }
        for instance in &mut instances[..2] {
            assert!(instance.process.wait(ENDED).success());
        }
        self.read_journal(&mut found).await;
        self.read_ledger(&mut found).await;
        found
    }

    /// What the simulator has counted.
    async fn read_journal(&self, found: &mut Found) {
        let url = format!("{}/simulator/requests?limit=100000", self.deployment.scene.simulator);
        let page: Value = reqwest::get(url).await.expect("a reply").json().await.expect("JSON");
        assert_eq!(page["dropped"], 0, "all of the log");
        let calls: Vec<(i64, &Value)> = page["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|entry| entry["path"].as_str().is_some_and(|path| path.starts_with("/api/")))
            .map(|entry| {
                let at: trunkline::model::Timestamp =
                    entry["at"].as_str().expect("a time").parse().expect("a time");
                (at.as_millis(), entry)
            })
            .collect();
        let minute_ms = (60_000.0 / self.size.speed) as i64;
        let most = |times: &[i64], span: i64| {
            let in_span = |first: usize| times[first..].partition_point(|at| *at < times[first] + span);
            (0..times.len()).map(in_span).max().unwrap_or(0)
        };
        let all: Vec<i64> = calls.iter().map(|call| call.0).collect();
        found.most_in_a_minute = most(&all, minute_ms);
        found.refused = calls.iter().filter(|call| call.1["status"] == 429).count();
        let polls: Vec<i64> =
            calls.iter().filter(|call| call.1["method"] != "PATCH").map(|call| call.0).collect();
        let length = polls.last().zip(polls.first()).map_or(1, |(last, first)| (last - first).max(1));
        let tenth = minute_ms / 10;
        let mean = polls.len() as f64 * tenth as f64 / length as f64;
        found.unevenness = most(&polls, tenth) as f64 / mean;
    }

    /// How long campaigns wanted another rate until they had it.
    async fn read_ledger(&self, found: &mut Found) {
        let rows = sqlx::query(
            "SELECT key, action, reason, status,
                    (extract(epoch FROM decided_at) * 1000)::bigint AS decided,
                    (extract(epoch FROM finished_at) * 1000)::bigint AS finished
             FROM audit.explained WHERE loop = 'dial' ORDER BY key, sequence",
        )
        .fetch_all(&self.deployment.scene.owner)
        .await
        .expect("the audit can be asked");
        let last: i64 = rows.iter().map(|row| row.get::<i64, _>("decided")).max().expect("decisions");
        let seconds = |ms: i64| ms as f64 / 1_000.0 * self.size.speed;
        let mut wanting: Option<(String, i64)> = None;
        let mut lacking = 0;
        for row in &rows {
            let key: String = row.get("key");
            if let Some((of, since)) = wanting.take_if(|held| held.0 != key) {
                tracing::debug!(of, "still waits");
                found.still_waiting.push(seconds(last - since));
            }
            let reason: String = row.get("reason");
            let too_little = ["no_data", "statistics_stale", "statistics_still_stale", "statistics_late"];
            lacking += usize::from(too_little.contains(&reason.as_str()));
            if row.get::<String, _>("action") != "set_dial_rate" {
                wanting = None;
                continue;
            }
            let since = wanting.take().map_or(row.get("decided"), |held| held.1);
            let status: Option<String> = row.get("status");
            match status.as_deref() {
                Some("superseded" | "expired") | None => {
                    found.superseded += usize::from(status.is_some());
                    wanting = Some((key, since));
                }
                Some(_) => found.served.push(seconds(row.get::<i64, _>("finished") - since)),
            }
        }
        found.still_waiting.extend(wanting.map(|(_, since)| seconds(last - since)));
        found.starved = lacking as f64 / rows.len() as f64;
        found.served.sort_by(f64::total_cmp);
        let waited = self
            .count(
                "SELECT coalesce(max((waited ->> 'budgetMs')::bigint), -1) FROM audit.outcomes
                 WHERE loop = 'rollback' AND status = 'applied'",
            )
            .await;
        found.rollback_wait = (waited >= 0).then(|| waited as f64 / 1_000.0);
    }
}

impl Found {
    /// Adds what an instance's own metrics say of its calls for rollbacks.
    async fn hear_rollbacks(&mut self, instance: &Instance) {
        let name = "trunkline_genesys_budget_wait_seconds";
        let Some((_, page)) = instance.get("/metrics").await else { return };
        let value = |part: &str, wanted: &str| -> f64 {
            page.lines()
                .filter(|line| line.starts_with(&format!("{name}_{part}")))
                .filter(|line| line.contains("rollback") && line.contains(wanted))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        let calls = value("count", "");
        self.rollback_calls += calls;
        self.rollback_late += calls - value("bucket", &format!("le=\"{ROLLBACK_WAITS}\""));
    }

    fn at(&self, share: f64) -> f64 {
        self.served.get(((self.served.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(0.0)
    }

    /// The longest, of those that still wait too.
    fn longest(&self) -> f64 {
        self.served.iter().chain(&self.still_waiting).copied().fold(0.0, f64::max)
    }

    fn row(&self, order: &str) -> String {
        let seconds = |seconds: Option<f64>| seconds.map_or("never".to_owned(), |it| format!("{it:.1} s"));
        format!(
            "| {order} | {} ({} refused) | {} | {:.0} / {:.0} / {:.0} s | {} | {:.0} %, {:.1} | {}, {} of {} over {ROLLBACK_WAITS} s | {} |",
            self.most_in_a_minute,
            self.refused,
            self.served.len(),
            self.at(0.5),
            self.at(0.95),
            self.longest(),
            self.superseded,
            100.0 * self.starved,
            self.unevenness,
            seconds(self.rollback_wait),
            self.rollback_late,
            self.rollback_calls,
            seconds(self.taken_over),
        )
    }
}

const HEADING: &str = "| order | calls in the fullest minute | changes carried out | from wanting to having, median / 95 % / longest | superseded | decisions on too little, fullest tenth of a minute over mean | longest wait of a rollback in all, its calls | taken over after |
|---|---|---|---|---|---|---|---|";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_budget_is_kept_shared_and_given_to_all() {
    let scene = Scene::of(Size::played(), None).await;
    let (requests, served_within) = (scene.size.requests as usize, scene.size.served_within());
    let found = scene.play().await;
    println!("{HEADING}\n{}", found.row("by urgency"));
    assert!(found.most_in_a_minute <= requests, "{} calls in a minute", found.most_in_a_minute);
    assert_eq!(found.refused, 0);
    assert!(found.rollback_calls > 0.0);
    assert!(found.rollback_wait.is_some(), "how long rollbacks waited is on record");
    assert_eq!(found.rollback_late, 0.0, "of {} calls for rollbacks", found.rollback_calls);
    assert!(found.longest() <= served_within, "{:.0} s of {served_within:.0}", found.longest());
}

/// For the table alone: it promises nothing but the budget.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_come_first_served_keeps_the_budget_alone() {
    if rounds(0, 1) == 0 {
        return;
    }
    let scene = Scene::of(Size::played(), Some("first-come-first-served")).await;
    let found = scene.play().await;
    println!("{HEADING}\n{}", found.row("first come, first served"));
    assert!(found.most_in_a_minute <= scene.size.requests as usize);
}
