//! What a load that does nothing but switch pays: CPU time, user and system, that two processes on one CPU need to hand a byte to and
//! fro. Without any program, with an empty one, and with observer; the kernel's statistics are off.

use crate::beside::{Empty, Result, median, range};
use crate::load::Load;
use crate::{HOOK, observer};

/// Many and short, as the machine is not this program's alone.
const ROUNDS: usize = 75;
const TURNS: u64 = 40_000;

/// Attaches something; it is there until this is dropped.
type Attach = fn() -> Result<Box<dyn std::any::Any>>;

const WAYS: [(&str, Attach); 3] =
    [("off", || Ok(Box::new(()))), ("empty", || Ok(Box::new(Empty::attach(HOOK)?))), ("observer", || Ok(Box::new(observer()?)))];

pub(crate) fn run() -> Result<()> {
    let mut times = WAYS.map(|_| Vec::new());
    for round in 0..ROUNDS {
        // Who is first rotates.
        for step in 0..WAYS.len() {
            let way = (round + step) % WAYS.len();
            let attached = WAYS[way].1()?;
            let time = Load::relay(&[None, None], TURNS)?.cpu_time()?;
            drop(attached);
            times[way].push(time.as_nanos() as f64 / TURNS as f64);
        }
    }
    let off = times[0].clone();
    println!("{:<36} {:>9} {:>9} {:>17} {:>9}", "CPU time, ns a round trip", "median", "paired", "least–most", "of least");
    for ((name, _), times) in WAYS.iter().zip(times) {
        let more: Vec<f64> = times.iter().zip(&off).map(|(time, off)| (time / off - 1.0) * 100.0).collect();
        let (least, most) = range(&more);
        let of_least = (range(&times).0 / range(&off).0 - 1.0) * 100.0;
        println!(
            "{name:<36} {:9.0} {:>+7.1} % {:>17} {of_least:>+7.1} %",
            median(&times),
            median(&more),
            format!("{least:+.1} to {most:+.1} %")
        );
    }
    println!("paired: median of {ROUNDS} rounds, each beside its own run without; of least: the quickest runs alone\n");
    Ok(())
}
