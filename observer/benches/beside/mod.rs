//! What benches share that measure a program of observer's beside an empty one.

use std::time::Duration;

use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};
use observer::collect::Roots;
use observer::collect::bpf::loader::{self, Programs};

/// All that can go wrong ends the run with its sentence.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// An empty program on a tracepoint: what the kernel's own counting costs, and being called.
pub(crate) struct Empty(Ebpf);

impl Empty {
    pub(crate) fn load(tracepoint: &str) -> Result<Empty> {
        let mut empty = Empty(EbpfLoader::new().load(&loader::object()?)?);
        empty.program()?.load(tracepoint, &Btf::from_sys_fs()?)?;
        Ok(empty)
    }

    pub(crate) fn attach(tracepoint: &str) -> Result<Empty> {
        let mut empty = Empty::load(tracepoint)?;
        empty.program()?.attach()?;
        Ok(empty)
    }

    pub(crate) fn program(&mut self) -> Result<&mut BtfTracePoint> {
        Ok(self.0.program_mut("empty").ok_or("no program named empty")?.try_into()?)
    }

    pub(crate) fn counted(&self) -> Result<Counted> {
        let info = self.0.program("empty").ok_or("no program named empty")?.info()?;
        Ok(Counted { runs: info.run_count(), time: info.run_time() })
    }
}

/// How often a program ran, and for how long, as the kernel counts.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) runs: u64,
    pub(crate) time: Duration,
}

impl Counted {
    pub(crate) fn since(self, before: Counted) -> Counted {
        Counted { runs: self.runs - before.runs, time: self.time - before.time }
    }

    /// Nanoseconds a run.
    pub(crate) fn each(self) -> f64 {
        self.time.as_nanos() as f64 / self.runs as f64
    }
}

/// What was counted of a program of observer's.
pub(crate) fn counted(programs: &Programs, program: &str) -> Result<Counted> {
    let (runs, time) = programs.counted(program)?;
    Ok(Counted { runs, time })
}

/// observer's programs, attached.
pub(crate) fn observer() -> Result<Programs> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let highest = online.trim().rsplit(['-', ',']).next().ok_or("no CPU")?.parse::<u32>()?;
    Ok(Programs::load(&Roots::default(), highest + 1)?)
}

/// Who is attached.
pub(crate) enum Attached {
    Empty(Empty),
    Observer(Box<Programs>),
}

/// Measures an empty program on a hook and observer in so many rounds: one at a time, because two programs on one hook warm each other's caches.
/// Who is first alternates.
pub(crate) fn alternate(rounds: usize, hook: &str, mut measure: impl FnMut(Attached) -> Result<()>) -> Result<()> {
    for round in 0..rounds {
        for first in [true, false] {
            measure(match first == round.is_multiple_of(2) {
                true => Attached::Empty(Empty::attach(hook)?),
                false => Attached::Observer(Box::new(observer()?)),
            })?;
        }
    }
    Ok(())
}

/// The value in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least and the most.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(*value), most.max(*value)))
}
