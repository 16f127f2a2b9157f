//! How fast records become knowledge: decode and model, on one core.

use std::{hint::black_box, time::Duration};

use agent::{
    decode::decode,
    model::{Model, Setup},
};
use agent_ebpf::record::{KIND_TRANSITION, RECORD_SIZE};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Records of a connection's life, both ends, as the stream's `all` mode tells it.
fn records() -> Vec<[u8; RECORD_SIZE]> {
    const PATH: [(u8, u8); 10] = [
        (7, 2),
        (10, 3),
        (2, 1),
        (3, 1),
        (1, 4),
        (1, 8),
        (4, 5),
        (8, 9),
        (5, 7),
        (9, 7),
    ];
    PATH.into_iter()
        .enumerate()
        .map(|(index, (from, to))| {
            let mut record = [0; RECORD_SIZE];
            record[0] = KIND_TRANSITION;
            record[1] = from << 4 | to;
            record[2] = if to == 7 { 0 } else { u8::MAX };
            record[16] = u8::try_from(index + 1).unwrap_or(u8::MAX);
            record
        })
        .collect()
}

fn decode_and_model(criterion: &mut Criterion) {
    let records = records();
    let mut model = Model::new(Setup::default());
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("decode and model", |bencher| {
        bencher.iter(|| {
            for record in black_box(&records) {
                model.record(decode(record, Duration::from_secs(1)));
            }
        });
    });
    group.finish();
    black_box(model.view(Duration::ZERO));
}

criterion_group!(benches, decode_and_model);
criterion_main!(benches);
