//! What the scheduler hook costs, beside an empty program in the same run: nanoseconds of CPU time per `sched_switch`, as the kernel
//! counts them (`BPF_ENABLE_STATS`), while two threads pinned to one CPU play ping-pong over pipes. Needs root; `cargo xtask bench`.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use aya::programs::BtfTracePoint;
use aya::sys::{Stats, enable_stats};
use aya::{Btf, Ebpf, EbpfLoader};
use observer::collect::Roots;
use observer::collect::bpf::loader::{self, Programs};
use rustix::thread::{CpuSet, sched_setaffinity};

const ROUNDS: usize = 7;
const TURNS: usize = 200_000;

fn main() {
    if let Err(error) = run() {
        eprintln!("hook bench: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let _stats = enable_stats(Stats::RunTime)?;
    let cpus = std::thread::available_parallelism()?.get() as u32;
    let mut ratios = Vec::new();
    // One at a time: two programs on one hook warm each other's caches.
    for round in 1..=ROUNDS {
        let empty = empty()?;
        let before = counted_empty(&empty)?;
        ping_pong()?;
        let base = per_run(before, counted_empty(&empty)?);
        drop(empty);

        let began = Instant::now();
        let programs = Programs::load(&Roots::default(), cpus)?;
        let load = began.elapsed().as_secs_f64() * 1e3;
        let before = programs.counted()?;
        ping_pong()?;
        let hook = per_run(before, programs.counted()?);
        let (net, ratio) = (hook - base, hook / base);
        println!(
            "round {round}: empty {base:.1} ns, sched_switch {hook:.1} ns, net {net:.1} ns, ratio {ratio:.3}; load and attach {load:.0} ms"
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("ratio: min {:.3}, median {:.3}, max {:.3}", ratios[0], ratios[ROUNDS / 2], ratios[ROUNDS - 1]);

    let mut programs = Programs::load(&Roots::default(), cpus)?;
    if let Some(verified) = programs.verified() {
        println!("the verifier walked {verified} instructions");
    }
    let mut reads = Vec::new();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(20));
        programs.sched.turn(&mut |_, _| {})?;
        let began = Instant::now();
        programs.sched.drain(&mut |_, _| {});
        reads.push(began.elapsed());
    }
    reads.sort();
    println!(
        "reading all tables of {cpus} CPUs ({} bytes): median {:.1} µs",
        programs.sched.bytes(),
        reads[reads.len() / 2].as_secs_f64() * 1e6
    );
    Ok(())
}

fn empty() -> Result<Ebpf, Box<dyn std::error::Error>> {
    let btf = Btf::from_sys_fs()?;
    let mut ebpf = EbpfLoader::new().load(&loader::object()?)?;
    let program: &mut BtfTracePoint = ebpf.program_mut("empty").ok_or("no program named empty")?.try_into()?;
    program.load("sched_switch", &btf)?;
    program.attach()?;
    Ok(ebpf)
}

fn counted_empty(ebpf: &Ebpf) -> Result<(u64, Duration), Box<dyn std::error::Error>> {
    let info = ebpf.program("empty").ok_or("no program named empty")?.info()?;
    Ok((info.run_count(), info.run_time()))
}

fn per_run(before: (u64, Duration), after: (u64, Duration)) -> f64 {
    (after.1 - before.1).as_nanos() as f64 / (after.0 - before.0) as f64
}

/// Two threads on one CPU hand one byte to and fro.
fn ping_pong() -> Result<(), Box<dyn std::error::Error>> {
    let (mut a_read, mut b_write) = std::io::pipe()?;
    let (mut b_read, mut a_write) = std::io::pipe()?;
    let partner = std::thread::spawn(move || -> std::io::Result<()> {
        pin()?;
        let mut byte = [0];
        for _ in 0..TURNS {
            b_read.read_exact(&mut byte)?;
            b_write.write_all(&byte)?;
        }
        Ok(())
    });
    let here = std::thread::spawn(move || -> std::io::Result<()> {
        pin()?;
        let mut byte = [0];
        for _ in 0..TURNS {
            a_write.write_all(&byte)?;
            a_read.read_exact(&mut byte)?;
        }
        Ok(())
    });
    here.join().map_err(|_| "ping-pong")??;
    partner.join().map_err(|_| "ping-pong")??;
    Ok(())
}

fn pin() -> std::io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0);
    Ok(sched_setaffinity(None, &cpus)?)
}
