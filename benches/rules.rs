//! The rule and the stages' steps alone: what a decision costs without Kafka.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a measurement may

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trunkline::model::Timestamp;
use trunkline::model::campaign::CampaignWindow;
use trunkline::model::decision::{Mode, Position};
use trunkline::model::dial_rate::Limits;
use trunkline::pipeline::{Outputs, Record, Stage};
use trunkline::stages::dialing::proportional::Proportional;
use trunkline::stages::dialing::{self, Dialing};
use trunkline::topics::partition_of;

#[path = "dial/window.rs"]
mod window;

const CAMPAIGN: &str = "5f0b1c1e-6c1f-4a0e-9d6e-6a3b0c1d2e3f";

fn rule(criterion: &mut Criterion) {
    let rule = Proportional::default();
    let limits = Limits { min: 0.5, max: 3.0 };
    criterion.bench_function("proportional", |bencher| {
        bencher.iter(|| rule.decide(std::hint::black_box(0.41), std::hint::black_box(1.0), limits));
    });
    criterion.bench_function("partition_of", |bencher| {
        bencher.iter(|| partition_of(std::hint::black_box(CAMPAIGN.as_bytes()), 6));
    });
}

fn step(criterion: &mut Criterion) {
    let stage = Dialing::new(
        Mode::Live,
        std::time::Duration::from_secs(30),
        Proportional::default().into(),
        std::sync::Arc::new(()),
    );
    let at = Timestamp::from_millis(1_767_323_045_678);
    let mut group = criterion.benchmark_group("dialing");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode, step, encode", |bencher| {
        let mut outputs = Outputs::default();
        let text = window::text(CAMPAIGN, at);
        bencher.iter(|| {
            let mut state = dialing::State::default();
            let position = Position { topic: "trunkline.campaign-windows.v1", partition: 3, offset: 1_042 };
            let record = Record { at, key: CAMPAIGN, value: &text, position };
            let input: CampaignWindow<'_> = serde_json::from_str(&text).expect("a window");
            outputs.clear();
            stage.step(&record, &mut state, input, &mut outputs)
        });
    });
    group.finish();
}

criterion_group!(benches, rule, step);
criterion_main!(benches);
