//! One export of 10,000 points, from the snapshot to payloads, before compression: the budget is 2 ms.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use observer::export::otlp::encode::Encoder;
use observer::export::otlp::payload::{MAX_BYTES, Payload};
use observer::model::Snapshot;
use opentelemetry_sdk::Resource;

mod invented;

const POINTS: u64 = 10_000;

fn exports(criterion: &mut Criterion) {
    let mut encoder = Encoder::new(&Resource::builder_empty().with_service_name("observer").build(), MAX_BYTES);
    let snapshot = |cgroups| {
        let sample = |second| Arc::new(invented::sample(second, cgroups, 8));
        Snapshot { was: Some(sample(1)), is: sample(2) }
    };
    let mut cgroups = 0;
    let (points, bytes) = loop {
        cgroups += 10;
        let payloads = encoder.encode(&snapshot(cgroups), None);
        let points: u64 = payloads.iter().map(|payload: &Payload| payload.points).sum();
        if points >= POINTS {
            break (points, payloads.iter().map(|payload| payload.body.len()).sum::<usize>());
        }
    };
    println!("{points} points of {cgroups} cgroups, {bytes} bytes");
    let snapshot = snapshot(cgroups);
    // What is made is dropped by the delivery, not by the encoder.
    criterion.bench_function("encode 10000 points", |bencher| {
        bencher.iter_batched(|| (), |()| encoder.encode(black_box(&snapshot), None), BatchSize::PerIteration);
    });
}

criterion_group!(benches, exports);
criterion_main!(benches);
