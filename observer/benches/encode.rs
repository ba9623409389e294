//! One export of 10,000 points, from the snapshot to payloads, before compression: the budget is 2 ms of CPU time.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use observer::export::otlp::encode::Encoder;
use observer::export::otlp::payload::{MAX_BYTES, Payload};
use observer::model::Snapshot;
use opentelemetry_sdk::Resource;
use rustix::time::{ClockId, clock_gettime};

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
    let snapshot = snapshot(cgroups);
    let mut times: Vec<Duration> = (0..50).map(|_| cpu_time(|| drop(encoder.encode(black_box(&snapshot), None)))).collect();
    times.sort();
    let [min, median] = [times[0], times[times.len() / 2]].map(|time| time.as_secs_f64() * 1e3);
    println!("{points} points of {cgroups} cgroups, {bytes} bytes: CPU time min {min:.2} ms, median {median:.2} ms");
    criterion.bench_function("encode 10000 points", |bencher| {
        bencher.iter(|| encoder.encode(black_box(&snapshot), None));
    });
}

/// Of the whole process, which has one thread here. The budget is CPU time, and criterion looks at the wall clock.
fn cpu_time(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    };
    let began = now();
    work();
    now() - began
}

criterion_group!(benches, exports);
criterion_main!(benches);
