//! One frame at 200×60 with 1,000 cgroups, 5,000 pairs of contention and 64 CPUs: the budget is 2 ms. `take` is a new snapshot's arrival, `key` a key press; both with the
//! frame that follows, without the terminal's output.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use crossterm::event::KeyCode;
use observer::model::Snapshot;
use observer::tui::{App, Options, Palette, draw};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

mod invented;

fn frames(criterion: &mut Criterion) {
    let snapshot = |second| {
        let sample = |second| Arc::new(invented::sample(second, 1_000, 64));
        Arc::new(Snapshot { was: Some(sample(second)), is: sample(second + 1) })
    };
    let (one, other) = (snapshot(1), snapshot(2));
    let (mut before, mut buffer) = (Buffer::empty(Rect::new(0, 0, 200, 60)), Buffer::empty(Rect::new(0, 0, 200, 60)));
    for (name, keys) in
        [("overview", "1"), ("tree", "2j"), ("flat", "2tj"), ("flat by P99", "2t>>j"), ("detail", "2tj"), ("CPUs", "4j")]
    {
        let mut app = App::new(Options { palette: Palette::Dark, ascii: false, notes: Vec::new() });
        app.take(one.clone());
        for key in keys.chars() {
            app.key(KeyCode::Char(key).into());
        }
        if name == "detail" {
            app.key(KeyCode::Enter.into());
        }
        let mut frame = |app: &mut App| {
            std::mem::swap(&mut before, &mut buffer);
            buffer.reset();
            draw(app, &mut buffer);
            black_box(before.diff(&buffer).len());
        };
        let mut turn = false;
        criterion.bench_function(&format!("take {name}"), |bencher| {
            bencher.iter(|| {
                turn = !turn;
                app.take(if turn { other.clone() } else { one.clone() });
                frame(&mut app);
            });
        });
        criterion.bench_function(&format!("key {name}"), |bencher| {
            bencher.iter(|| {
                turn = !turn;
                app.key(if turn { KeyCode::Down } else { KeyCode::Up }.into());
                frame(&mut app);
            });
        });
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
