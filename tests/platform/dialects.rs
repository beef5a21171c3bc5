//! The same world through both dialects: the facts are the same but for the answer rate, whose
//! span each platform chooses, and on the same facts the loops decide the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{
    Answering, CampaignScenario, Dialect as Simulated, FlowScenario, Scenario, VersionScenario, VersionStatus,
};
use trunkline::clock;
use trunkline::genesys::{
    Campaign, CampaignStatistics, Client, Dialect, Flow, Measured, Pacing, PlatformSettings, PlatformVersion,
    Settings,
};
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::model::flow::{FlowVersions, MinuteSource};
use trunkline::model::outcome::Outcome;
use trunkline::model::settings::MaintenanceWindow;
use trunkline::runtime::driver::Driver;
use trunkline::stages::dialing::Dialing;
use trunkline::stages::dialing::rules::Rules;
use trunkline::stages::rollback::rule::Rule;
use trunkline::stages::rollback::{Lookup, Rollback, Sources};
use trunkline::stages::windowing::Windowing;
use trunkline::topics;

use crate::support::simulated::{CAMPAIGN, Organization, client, scope, settings};
use crate::support::until;

const TICK: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const LIMITS: Pacing = Pacing { min: 1.0, max: 6.0 };
const FLOW: &str = "c3a8e9b4-5f7d-4a26-8f10-9e2b4d6a7c03";

async fn world() -> Organization {
    let campaign = CampaignScenario {
        id: CAMPAIGN.to_owned(),
        name: "Renewals".to_owned(),
        dial_rate: LIMITS.min,
        min_dial_rate: LIMITS.min,
        max_dial_rate: LIMITS.max,
        answering: Answering::Drifting { start: 0.3, min: 0.1, max: 0.6, per_minute: 0.01 },
        ..CampaignScenario::default()
    };
    let version = |id: &str, status| VersionScenario { id: id.to_owned(), status, error_rate: 0.01 };
    let flow = FlowScenario {
        id: FLOW.to_owned(),
        name: "Main menu".to_owned(),
        interactions_per_minute: 120.0,
        versions: vec![version("11.0", VersionStatus::Published), version("12.0", VersionStatus::Active)],
        ..FlowScenario::default()
    };
    let scenario = Scenario { flows: vec![flow], ..Scenario::of_campaigns(vec![campaign]) };
    Organization::start(simulator::Settings { dialect: Simulated::Both, scenario, ..settings() }).await
}

/// A client of each dialect, the seed's first.
fn clients(organization: &Organization) -> [Client; 2] {
    let own = PlatformSettings { pacing: LIMITS, shared_for: Duration::ZERO, ..PlatformSettings::default() };
    [Dialect::Seed, Dialect::Platform(own)]
        .map(|dialect| client(&Settings { dialect, ..organization.client_settings() }))
}

fn start() -> Timestamp {
    "2026-01-02T03:04:00.000Z".parse().unwrap()
}

fn decisions(driver: &Driver, topic: &'static topics::Topic, key: &str) -> Vec<Value> {
    let records = driver.records_of(topic, key);
    records.iter().map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
}

/// The dial loop in memory.
struct Dial(Driver);

impl Dial {
    fn new() -> Self {
        let mut driver = Driver::new(1, 1);
        driver.set_time(start());
        driver.add(Windowing::new(Arc::new(())));
        driver.add(Dialing::new(Mode::Live, TICK, Rules::default(), Arc::new(())));
        Self(driver)
    }

    /// Action, reason and rate of what is decided on these facts.
    fn decide(&mut self, campaign: &Campaign, seen: &CampaignStatistics) -> (String, String, f64) {
        let stats = json!({
            "campaignId": CAMPAIGN, "observedAt": self.0.now(), "answerRate": seen.answer_rate,
            "attempts": seen.attempts, "answers": seen.answers, "abandoned": seen.abandoned,
            "agentsIdle": seen.agents_idle, "agentsBusy": seen.agents_busy,
            "callsDelivered": seen.calls_delivered, "dialRate": campaign.dial_rate,
            "minDialRate": campaign.min_dial_rate, "maxDialRate": campaign.max_dial_rate,
            "revision": "1",
        });
        self.0.produce(&topics::CAMPAIGN_STATS, CAMPAIGN, stats.to_string().as_bytes());
        self.0.run_until_idle().unwrap();
        self.0.advance(TICK);
        let decision = decisions(&self.0, &topics::DIAL_DECISIONS, CAMPAIGN).pop().expect("one a tick");
        let text = |name: &str| decision[name].as_str().unwrap().to_owned();
        (text("action"), text("reason"), decision["parameters"]["dialRate"].as_f64().unwrap())
    }
}

/// The answer rate of seed statistics looks back on the last 200 attempts, or says what is true
/// where there are none; the other dialect's is of the calls since the poll before. Calls that
/// wait are answered and not delivered yet: the seed does not count them among the delivered.
#[tokio::test]
async fn the_dial_loop_decides_the_same_where_the_facts_are_the_same() {
    let organization = world().await;
    let [seed, platform] = clients(&organization);
    let [mut of_seed, mut of_both, mut of_platform] = [Dial::new(), Dial::new(), Dial::new()];
    let (mut changes, mut different) = (0, 0);
    for tick in 0..240 {
        let mut facts = Vec::new();
        for client in [&seed, &platform] {
            let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
            facts.push((campaign, client.campaign_statistics(CAMPAIGN, &scope()).await.unwrap()));
        }
        let [(campaign, told), (own_campaign, own)] = &facts[..] else { panic!("two dialects") };
        let limits = |it: &Campaign| (it.dial_rate, it.min_dial_rate, it.max_dial_rate);
        assert_eq!(limits(campaign), limits(own_campaign), "tick {tick}");
        let counted =
            |it: &CampaignStatistics| (it.attempts, it.answers, it.abandoned, it.agents_idle, it.agents_busy);
        assert_eq!(counted(told), counted(own), "tick {tick}");
        let waiting = own.calls_delivered - told.calls_delivered;
        assert!(waiting < 20, "tick {tick}: {told:?} {own:?}");

        let alike = CampaignStatistics {
            answer_rate: own.answer_rate,
            calls_delivered: own.calls_delivered,
            ..told.clone()
        };
        let decided = of_platform.decide(own_campaign, own);
        assert_eq!(of_both.decide(campaign, &alike), decided, "tick {tick}");
        different += usize::from(of_seed.decide(campaign, told) != decided);
        if decided.0 == "set_dial_rate" {
            let (sender, before) =
                if changes % 2 == 0 { (&platform, own_campaign) } else { (&seed, campaign) };
            let request = sender.prepare_dial_rate(before, decided.2);
            sender.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap();
            changes += 1;
        }
        organization.control(Method::POST, "/clock/advance?seconds=30", None).await;
    }
    println!("{changes} changes in 240 ticks; {different} decided otherwise for the answer rate");
    assert!(changes >= 20, "{changes} changes");
    assert!(different <= 48, "{different} of 240 ticks");
}

struct Nothing;

impl Lookup for Nothing {
    fn versions(&self, _: &str) -> Option<Arc<FlowVersions<'static>>> {
        None
    }

    fn windows(&self) -> Vec<(String, MaintenanceWindow)> {
        Vec::new()
    }

    fn refusal(&self, _: &str) -> Option<Arc<Outcome>> {
        None
    }

    fn settings_revision(&self) -> u64 {
        0
    }
}

/// The rollback loop in memory.
struct Rollbacks(Driver);

impl Rollbacks {
    fn new() -> Self {
        let mut driver = Driver::new(1, 1);
        driver.set_time(start());
        let sources = Sources { usual: MinuteSource::Events, polled: BTreeSet::new() };
        driver.add(Rollback::new(Mode::Live, Rule::default(), sources, Arc::new(Nothing)));
        Self(driver)
    }

    fn minute(&mut self, version: &str, measured: &Measured) {
        let minute = json!({
            "flowId": FLOW, "flowVersion": version, "minute": self.0.now(),
            "total": measured.total, "errors": measured.errors,
            "errorRate": measured.errors as f64 / measured.total.max(1) as f64,
            "complete": true, "source": "events",
        });
        self.0.produce(&topics::FLOW_MINUTES, FLOW, minute.to_string().as_bytes());
        self.0.advance(MINUTE);
        self.0.run_until_idle().unwrap();
    }

    /// What was decided, without what names the decision.
    fn decided(&self) -> Vec<(Value, Value, Value)> {
        let decisions = decisions(&self.0, &topics::ROLLBACK_DECISIONS, FLOW);
        let told = |it: Value| (it["action"].clone(), it["reason"].clone(), it["parameters"].clone());
        decisions.into_iter().map(told).collect()
    }
}

#[tokio::test]
async fn a_flow_is_measured_and_rolled_back_the_same() {
    let organization = world().await;
    let clients = clients(&organization);
    let mut loops = [Rollbacks::new(), Rollbacks::new()];
    let second = |at: Timestamp| Timestamp::from_millis(at.as_millis() / 1_000 * 1_000);
    let mut measured_until = second(clock::now());
    for minute in 0..20 {
        if minute == 10 {
            let bad = json!({ "errorRate": 0.4, "version": "13.0" });
            organization.control(Method::POST, &format!("/flows/{FLOW}/publish"), Some(bad)).await;
        }
        organization.control(Method::POST, "/clock/advance?seconds=60", None).await;
        // What was lived through lies in the second that runs: the span goes to its end.
        let until = second(clock::now()).plus(Duration::from_secs(1));
        let mut told = Vec::new();
        for (client, played) in clients.iter().zip(&mut loops) {
            let flow = client.flow(FLOW, &scope()).await.unwrap();
            let in_force: Vec<_> =
                flow.versions.iter().filter(|it| it.is_active()).map(|it| it.id.clone()).collect();
            let of_version = client.flow_measures(FLOW, measured_until, until, &scope()).await.unwrap();
            let sum = |count: fn(&Measured) -> u64| of_version.iter().map(count).sum::<u64>();
            let all = Measured {
                version: in_force[0].clone(),
                total: sum(|it| it.total),
                errors: sum(|it| it.errors),
            };
            played.minute(&in_force[0], &all);
            told.push((in_force, all.total, all.errors));
        }
        assert_eq!(told[0], told[1], "minute {minute}");
        assert!(told[0].1 > 40, "minute {minute}: {told:?}");
        measured_until = until;
        // The next minute must not fall into a second that was measured already.
        while clock::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let [of_seed, of_platform] = loops.map(|played| played.decided());
    assert_eq!(of_seed, of_platform);
    let rollbacks = of_seed.iter().filter(|decision| decision.0 == "rollback").count();
    assert!(rollbacks > 0, "{of_seed:?}");
}

/// Ids of the versions in force, and of those that were before.
fn told_apart(flow: &Flow) -> [Vec<&str>; 2] {
    let of = |wanted: fn(&PlatformVersion) -> bool| {
        let mut ids: Vec<&str> = flow.versions.iter().filter(|it| wanted(it)).map(|it| &*it.id).collect();
        ids.sort_unstable();
        ids
    };
    [of(PlatformVersion::is_active), of(PlatformVersion::is_published)]
}

/// What a rollback and the promotion of a canary do: whichever dialect puts a version in force, both
/// say so, and of the versions beside it they say the same, by which the next target is chosen.
#[tokio::test]
async fn a_version_is_put_in_force_through_either_and_both_say_so() {
    let organization = world().await;
    let clients = clients(&organization);
    let bad = json!({ "errorRate": 0.4, "version": "13.0" });
    organization.control(Method::POST, &format!("/flows/{FLOW}/publish"), Some(bad)).await;
    let versions = ["12.0", "11.0", "13.0", "12.0"];
    for (version, client) in versions.iter().zip(clients.iter().cycle()) {
        let request = client.prepare_activation(FLOW, version, "chosen");
        client.send_activation(&request, FLOW, &scope()).await.unwrap();
        until("both to say so", async || {
            let [seed, platform] = &clients;
            let seed = seed.flow(FLOW, &scope()).await.ok()?;
            let platform = platform.flow(FLOW, &scope()).await.ok()?;
            assert!(platform.locked_by.is_none() && seed.locked_by.is_none());
            let active = |flow: &Flow| told_apart(flow)[0] == [*version];
            if !(active(&seed) && active(&platform)) {
                return None;
            }
            assert_eq!(told_apart(&seed), told_apart(&platform), "{version}");
            Some(())
        })
        .await;
    }
}
