//! What a load that does nothing but switch pays: CPU time, user and system, that two processes on one CPU need to hand a byte to and
//! fro. Without any program, with an empty one, and with observer; the kernel's statistics are off.

use crate::HOOK;
use crate::beside::Result;
use crate::load::Load;
use crate::turns::Turns;

/// Many and short, as the machine is not this program's alone.
const ROUNDS: usize = 300;
const TURNS: u64 = 8_000;

pub(crate) fn run() -> Result<()> {
    let mut turns = Turns::load(HOOK)?;
    for _ in 0..ROUNDS {
        turns.round(|| Ok(Load::relay(&[None, None], TURNS)?.cpu_time()?.as_nanos() as f64 / TURNS as f64))?;
    }
    turns.print("CPU time, ns a round trip");
    Ok(())
}
