//! What the scheduler hook costs, always beside something else in the same run, as the machine's own speed varies. Three parts, all
//! without a name (`cargo xtask bench hook -- pipe`); needs root:
//!
//! - `cost`: nanoseconds a `sched_switch`, beside an empty program; at most 1.9 times that.
//! - `pipe`: what a load that only switches pays in CPU time; at most 6 %.
//! - `runqlat`: nanoseconds a dispatch, beside the `runqlat` of others where that is installed; at most a twelfth.

use std::process::ExitCode;
use std::time::Duration;

use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};
use observer::collect::Roots;
use observer::collect::bpf::loader::{self, Programs};

mod cost;
mod load;
mod pipe;
mod runqlat;

/// All that can go wrong ends the run with its sentence.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures and prints.
type Part = fn() -> Result<()>;

const PARTS: [(&str, Part); 3] = [("cost", cost::run), ("pipe", pipe::run), ("runqlat", runqlat::run)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hook bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    if let Some(("play", role)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return load::play(role);
    }
    if let Some(unknown) = arguments.iter().find(|argument| PARTS.iter().all(|(name, _)| name != argument)) {
        return Err(format!("no part named {unknown}: cost, pipe, runqlat").into());
    }
    for (name, part) in PARTS {
        if arguments.is_empty() || arguments.iter().any(|argument| argument == name) {
            part()?;
        }
    }
    Ok(())
}

/// Loads and attaches observer's programs.
fn observer() -> Result<Programs> {
    let cpus = std::thread::available_parallelism()?.get() as u32;
    Ok(Programs::load(&Roots::default(), cpus)?)
}

/// An empty program on `sched_switch`: what the kernel's own counting costs, and being called.
struct Empty(Ebpf);

impl Empty {
    fn attach() -> Result<Empty> {
        let btf = Btf::from_sys_fs()?;
        let mut ebpf = EbpfLoader::new().load(&loader::object()?)?;
        let program: &mut BtfTracePoint = ebpf.program_mut("empty").ok_or("no program named empty")?.try_into()?;
        program.load("sched_switch", &btf)?;
        program.attach()?;
        Ok(Empty(ebpf))
    }

    fn counted(&self) -> Result<Counted> {
        let info = self.0.program("empty").ok_or("no program named empty")?.info()?;
        Ok(Counted { runs: info.run_count(), time: info.run_time() })
    }
}

/// How often a program ran, and for how long, as the kernel counts.
#[derive(Clone, Copy, Default)]
struct Counted {
    runs: u64,
    time: Duration,
}

impl Counted {
    fn since(self, before: Counted) -> Counted {
        Counted { runs: self.runs - before.runs, time: self.time - before.time }
    }

    /// Nanoseconds a run.
    fn each(self) -> f64 {
        self.time.as_nanos() as f64 / self.runs as f64
    }
}

/// The value in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least and the most.
fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(*value), most.max(*value)))
}
