//! Page allocations and stalls against what is known of them: pages that a worker touches, `/proc/vmstat`, `memory.pressure`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use observer::collect::{Collector, Roots};
use observer::model::cgroup::resources::Memory;
use observer::model::{Allocations, Histogram, Row, Sample, State, Used, cgroup};
use observer_common::memory::{Class, LONG, ORDERS, Stall, place};
use observer_common::sched::Key;

use super::Test;
use super::cgroups::{TestCgroup, v2_root};
use super::launcher::Launcher;
use super::sched::share;

/// All tests of this family.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("memory::touched_pages_are_counted", touched_pages_are_counted),
        ("memory::huge_pages_have_their_order", huge_pages_have_their_order),
        ("memory::reclaim_at_a_limit_stalls", reclaim_at_a_limit_stalls),
        ("memory::long_stalls_have_names", long_stalls_have_names),
        ("memory::files_tell_what_is_used_and_what_is_allowed", files_tell_what_is_used_and_what_is_allowed),
    ]
}

const MOVABLE: usize = 1;

fn collector() -> Result<Collector, String> {
    let mut collector = Collector::new(Roots::default());
    collector.attach();
    let sample = collector.collect();
    let source = sample.sources.iter().find(|source| source.name == "memory").ok_or("no health of memory")?;
    // What an old kernel lacks does not concern these counts.
    if let State::Off(reason) = &source.state { Err(format!("the memory family is off: {reason}")) } else { Ok(collector) }
}

fn counts(sample: &Sample) -> Result<Arc<Allocations>, String> {
    sample.memory.iter().find_map(|row| row.counts.clone()).ok_or("no row of the machine".into())
}

fn used(sample: &Sample, key: Key) -> Result<Used, String> {
    let row = sample.cgroups.iter().find(|row| row.id == key).ok_or("no row of the cgroup")?;
    row.sched.as_ref().and_then(|sched| sched.used).ok_or("nothing known of the cgroup's pages".into())
}

fn fresh() -> Result<(TestCgroup, Key), String> {
    let root = v2_root().ok_or("no v2 hierarchy")?;
    let cgroup = TestCgroup::new(&root, "memory").map_err(|error| error.to_string())?;
    let key = Key::v2(cgroup.id().map_err(|error| error.to_string())?);
    Ok((cgroup, key))
}

/// Lets a worker do its work and come to its end. Returns what its cgroup used more than before.
fn work(collector: &mut Collector, launcher: &mut Launcher, key: Key, role: &str) -> Result<(Used, Allocations), String> {
    let before = collector.collect();
    let worker = launcher.work(role)?;
    launcher.finished(worker)?;
    launcher.reap()?;
    launcher.quiet()?;
    let after = collector.collect();
    let (was, is) = (used(&before, key)?, used(&after, key)?);
    let (all_was, all_is) = (counts(&before)?, counts(&after)?);
    let mut all = Allocations::clone(&all_is);
    all.counts.iter_mut().zip(&all_was.counts).for_each(|(is, was)| *is -= was);
    Ok((
        Used { pages: is.pages - was.pages, stalls: is.stalls - was.stalls, stalled: is.stalled - was.stalled, off_cpu: None },
        all,
    ))
}

/// Pages that the kernel has given since boot, by its own count, in all zones.
fn vmstat() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/vmstat").map_err(|error| error.to_string())?;
    let zones = text.lines().filter(|line| line.starts_with("pgalloc_"));
    Ok(zones.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

fn pages(all: &Allocations) -> u64 {
    let order = |order: usize| (0..8).flat_map(move |kind| (0..4).map(move |class| place(order, kind, class)));
    (0..11).map(|of| order(of).map(|place| all.counts[place]).sum::<u64>() << of).sum()
}

fn touched_pages_are_counted() -> Result<String, String> {
    let mut collector = collector()?;
    let (cgroup, key) = fresh()?;
    let mut launcher = Launcher::start(cgroup.directory(), None)?;
    let mib = 256 / share();
    let expected = mib * 256;
    // What it takes to start a worker at all.
    let (idle, _) = work(&mut collector, &mut launcher, key, "touch 0")?;
    let outer = vmstat()?;
    let before = counts(&collector.collect())?;
    let inner = vmstat()?;
    let (busy, all) = work(&mut collector, &mut launcher, key, &format!("touch {mib}"))?;
    let inner = vmstat()? - inner;
    let host = pages(&*counts(&collector.collect())?) - pages(&before);
    let outer = vmstat()? - outer;

    let grown = busy.pages.saturating_sub(idle.pages);
    let off = grown.abs_diff(expected);
    if off > expected / 100 {
        return Err(format!(
            "{grown} pages in the cgroup for {expected} touched ones; a worker that touches none took {}",
            idle.pages
        ));
    }
    // Of whatever order: some machines give huge pages to everybody.
    let of_users: u64 = (0..ORDERS).map(|order| all.counts[place(order, MOVABLE, Class::User as usize)] << order).sum();
    if of_users < expected {
        return Err(format!("{of_users} pages for user space on the machine, {expected} were touched"));
    }
    let figures =
        format!("{grown} of {expected} pages in the cgroup; on the machine {host}, by vmstat between {inner} and {outer}");
    // Pages that are given and not traced: per-CPU lists refilled in bulk count at other moments, and the two are not read at once.
    let slack = outer / 100 + 512;
    if host + slack < inner || host > outer + slack { Err(figures) } else { Ok(figures) }
}

fn huge_pages_have_their_order() -> Result<String, String> {
    const HUGE: u64 = 9;
    let mut collector = collector()?;
    let (cgroup, key) = fresh()?;
    let mount = Tmpfs::mount()?;
    let mut launcher = Launcher::start(cgroup.directory(), None)?;
    let expected = 64 / share() / 2;
    let file = mount.directory.join("huge");
    // What it takes to start a worker at all.
    let (idle, _) = work(&mut collector, &mut launcher, key, &format!("write {} 0", file.display()))?;
    let (used, all) = work(&mut collector, &mut launcher, key, &format!("write {} {}", file.display(), 2 * expected))?;
    let huge = all.counts[place(HUGE as usize, MOVABLE, Class::User as usize)];
    let pages = used.pages.saturating_sub(idle.pages);
    let figures = format!(
        "{huge} allocations of order {HUGE} on the machine, {pages} pages in the cgroup; {expected} were written, {} pages",
        expected << HUGE
    );
    // Others on this machine may be given huge pages meanwhile; the cgroup's pages are the worker's alone, and page tables.
    let agrees = huge >= expected && pages.abs_diff(expected << HUGE) <= (expected << HUGE) / 100 + 64;
    if agrees { Ok(figures) } else { Err(figures) }
}

/// A file system in memory that uses huge pages.
struct Tmpfs {
    directory: PathBuf,
}

impl Tmpfs {
    fn mount() -> Result<Tmpfs, String> {
        let directory = std::env::temp_dir().join(format!("observer-live-huge-{}", std::process::id()));
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let mounted = Tmpfs { directory };
        let target = &mounted.directory;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "huge=always,size=1g", "observer-live"]).arg(target))?;
        Ok(mounted)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.directory));
        let _ = fs::remove_dir(&self.directory);
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

/// A limit on memory for a worker that is in a v2 cgroup: that cgroup's own where the hierarchy has the controller, else that of a v1 group
/// at the same path.
struct Limited {
    v1: Option<TestCgroup>,
    /// The file that sets it.
    file: &'static str,
}

impl Limited {
    /// On v2 by the given file: `memory.max` or `memory.high`.
    fn new(cgroup: &TestCgroup, v2_file: &'static str, bytes: u64) -> Result<Limited, String> {
        let write = |path: &Path, text: &str| fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
        let v1 = Path::new("/sys/fs/cgroup/memory");
        if v1.join("memory.limit_in_bytes").exists() {
            let limited = cgroup.twin(v1).map_err(|error| error.to_string())?;
            let file = "memory.limit_in_bytes";
            write(&limited.directory().join(file), &bytes.to_string())?;
            return Ok(Limited { v1: Some(limited), file });
        }
        let root = v2_root().ok_or("no v2 hierarchy")?;
        write(&root.join("cgroup.subtree_control"), "+memory")?;
        write(&cgroup.directory().join(v2_file), &bytes.to_string())?;
        Ok(Limited { v1: None, file: v2_file })
    }

    /// Puts a launcher under the limit, and what it starts from now on.
    fn hold(&self, launcher: &Launcher) -> Result<(), String> {
        let Some(v1) = &self.v1 else { return Ok(()) };
        fs::write(v1.directory().join("cgroup.procs"), launcher.pid().to_string()).map_err(|error| error.to_string())
    }
}

/// Files of a cgroup, read beside observer: bytes in use, anonymous bytes, processes killed for want of memory.
struct Beside {
    directory: PathBuf,
    is_v1: bool,
}

impl Beside {
    fn number(&self, file: &str, line: &str) -> Result<u64, String> {
        let path = self.directory.join(file);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let number = match line {
            "" => Some(text.trim()),
            line => text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')),
        };
        number.and_then(|number| number.parse().ok()).ok_or_else(|| format!("{}: no number: {text}", path.display()))
    }

    fn read(&self) -> Result<[u64; 3], String> {
        let [usage, anon, killed] = match self.is_v1 {
            true => [("memory.usage_in_bytes", ""), ("memory.stat", "total_rss"), ("memory.oom_control", "oom_kill")],
            false => [("memory.current", ""), ("memory.stat", "anon"), ("memory.events", "oom_kill")],
        };
        Ok([self.number(usage.0, usage.1)?, self.number(anon.0, anon.1)?, self.number(killed.0, killed.1)?])
    }
}

/// The memory of a cgroup as observer tells it, in a sample between two readings of the files.
fn told(collector: &mut Collector, key: Key, beside: &Beside) -> Result<Memory, String> {
    let before = beside.read()?;
    let sample = collector.collect();
    let after = beside.read()?;
    let row = sample.cgroups.iter().find(|row| row.id == key).ok_or("no row of the cgroup")?;
    let memory = &row.resources.memory;
    // Charges are taken from a stock of each CPU, and counts are summed up by and by.
    const SLACK: u64 = 1 << 20;
    let told = [("usage", memory.usage), ("anon", memory.stat.anon), ("oom_kill", memory.events.oom_kill)];
    for (((name, told), before), after) in told.into_iter().zip(before).zip(after) {
        let told = told.ok_or_else(|| format!("{name} is unknown"))?;
        let slack = if name == "oom_kill" { 0 } else { SLACK };
        if told + slack < before.min(after) || told > before.max(after) + slack {
            return Err(format!("{name} {told}, in the files {before} before and {after} after"));
        }
    }
    let snapshot = Row { is: row, was: None, interval: None };
    let kinds = snapshot.number(&cgroup::resources::MEMORY_BREAKDOWN, &[]);
    let usage = snapshot.number(&cgroup::resources::MEMORY_USAGE, &[]);
    if kinds != usage { Err(format!("the kinds sum up to {kinds:?}, the usage is {usage:?}")) } else { Ok(memory.clone()) }
}

fn files_tell_what_is_used_and_what_is_allowed() -> Result<String, String> {
    let limit = 64 << 20;
    let (cgroup, key) = fresh()?;
    let limited = Limited::new(&cgroup, "memory.max", limit)?;
    let group = limited.v1.as_ref().unwrap_or(&cgroup);
    let beside = Beside { directory: group.directory().to_owned(), is_v1: limited.v1.is_some() };
    // Files are all that is needed: no programs.
    let mut collector = Collector::new(Roots::default());
    collector.collect();
    let mut launcher = Launcher::start(cgroup.directory(), None)?;
    limited.hold(&launcher)?;
    let worker = launcher.work("hold 32")?;
    launcher.asleep(worker)?;
    let held = told(&mut collector, key, &beside)?;
    if held.limit != Some(limit) || held.stat.anon < Some(32 << 20) || held.usage < held.stat.anon {
        return Err(format!("32 MiB are held below a limit of 64: {held:?}"));
    }
    let pid = rustix::process::Pid::from_raw(worker.cast_signed()).ok_or("a worker without a pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(|error| error.to_string())?;
    launcher.finished(worker)?;
    let worker = launcher.work("touch 256")?;
    launcher.finished(worker)?;
    launcher.reap()?;
    launcher.quiet()?;
    let killed = told(&mut collector, key, &beside)?;
    let events = killed.events;
    let figures = format!("held {:?} of {:?}; then {:?} left, events {events:?}", held.usage, held.limit, killed.usage);
    // Where there is swap, nobody need be killed.
    let swaps = fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1);
    let happened = events.max > held.events.max && (swaps || events.oom_kill == Some(1));
    if happened && killed.stat.anon < held.stat.anon { Ok(figures) } else { Err(figures) }
}

/// Time that some task of a cgroup was stalled for memory, in nanoseconds, by the kernel's own count.
fn pressure(cgroup: &TestCgroup) -> Result<u64, String> {
    let path = cgroup.directory().join("memory.pressure");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let some = text.lines().find_map(|line| line.strip_prefix("some ")?.rsplit_once("total=")).ok_or("no line of some")?;
    some.1.trim().parse::<u64>().map(|us| us * 1000).map_err(|error| error.to_string())
}

fn reclaim_at_a_limit_stalls() -> Result<String, String> {
    const LIMIT: u64 = 16 << 20;
    if !is_on_disk(Path::new(File::DIRECTORY)) {
        return Ok(format!(
            "not exercised: {} is not on a disk, and what is only in memory cannot be reclaimed",
            File::DIRECTORY
        ));
    }
    let mut collector = collector()?;
    let (cgroup, key) = fresh()?;
    // Made before the launcher, and removed after it has ended.
    let limited = Limited::new(&cgroup, "memory.high", LIMIT)?;
    // On one CPU: of several, memory.pressure takes an average that is weighted by how busy each was.
    let mut launcher = Launcher::start(cgroup.directory(), Some(0))?;
    limited.hold(&launcher)?;
    let file = File::new(512 / share())?;
    let was = pressure(&cgroup)?;
    let before = counts(&collector.collect())?;
    let (used, _) = work(&mut collector, &mut launcher, key, &format!("read {} 3", file.0.display()))?;
    let is = pressure(&cgroup)?;
    let last = collector.collect();
    let after = counts(&last)?;
    distribution_agrees(&last, key)?;
    let kind = Stall::MemcgReclaim as usize;
    let (count, sum) =
        (after.stalls[kind].count() - before.stalls[kind].count(), after.stalls[kind].sum - before.stalls[kind].sum);
    let kernels = is - was;
    let ratio = used.stalled as f64 / kernels as f64;
    let ms = |ns: u64| ns as f64 / 1e6;
    let figures = format!(
        "{}: {} stalls of {:.1} ms in the cgroup, {count} of {:.1} ms on the machine; memory.pressure {:.1} ms: {ratio:.2}",
        limited.file,
        used.stalls,
        ms(used.stalled),
        ms(sum),
        ms(kernels)
    );
    let agrees = (0.5..=1.1).contains(&ratio) && used.stalls > 0 && sum >= used.stalled;
    if agrees { Ok(figures) } else { Err(figures) }
}

/// A cgroup's stalls by kind are in sum what the scheduler hook booked to it, where the kernel tells programs of the current task.
fn distribution_agrees(sample: &Sample, key: Key) -> Result<(), String> {
    let used = used(sample, key)?;
    if used.off_cpu.is_none() {
        return Ok(());
    }
    let row = sample.cgroups.iter().find(|row| row.id == key).ok_or("no row of the cgroup")?;
    let stalls = row.stalled.as_ref().ok_or("no distribution of the cgroup's stalls")?;
    let found: (u64, u64) = (stalls.iter().map(Histogram::count).sum(), stalls.iter().map(|kind| kind.sum).sum());
    if found == (used.stalls, used.stalled) {
        Ok(())
    } else {
        Err(format!("{found:?} in the distributions, {:?} booked", (used.stalls, used.stalled)))
    }
}

/// A task that reclaims while many others want its CPU is stalled for as long as it waits for that: long enough to be told by name.
fn long_stalls_have_names() -> Result<String, String> {
    const LIMIT: u64 = 16 << 20;
    let mut collector = collector()?;
    let (cgroup, key) = fresh()?;
    let limited = Limited::new(&cgroup, "memory.high", LIMIT)?;
    let mut launcher = Launcher::start(cgroup.directory(), Some(0))?;
    let file = File::new(128 / share())?;
    // Not under the limit: they need nothing.
    let spinners = (0..16).map(|_| launcher.work("spin 600000")).collect::<Result<Vec<_>, _>>()?;
    limited.hold(&launcher)?;
    let before = collector.collect();
    let worker = launcher.work(&format!("read {} 3", file.0.display()))?;
    // Somebody reads now and then, as the daemon does: the ring has room for an interval.
    let mut told = Vec::new();
    while !launcher.is_zombie(worker)? && told.is_empty() {
        std::thread::sleep(Duration::from_millis(200));
        told.extend(collector.collect().long_stalls.into_iter().filter(|stall| stall.tid == worker));
    }
    for pid in spinners.into_iter().chain([worker]) {
        super::program::kill(pid)?;
    }
    launcher.reap()?;
    let after = collector.collect();
    let Some(stall) = told.first() else { return Err("no stall was long enough".into()) };
    let row = after.cgroups.iter().find(|row| row.id == key).ok_or("no row of the cgroup")?;
    let path = used(&after, key)?.off_cpu.map(|_| &*row.path);
    let kind = Stall::MemcgReclaim as usize;
    let longest = counts(&after)?.stalls[kind].since(&counts(&before)?.stalls[kind]).ok_or("counts went backwards")?;
    let is_known = longest.quantile(1.0) >= Some(stall.time as f64 / 1e9);
    if stall.cgroup.as_deref() == path && stall.kind == Stall::MemcgReclaim && stall.time >= LONG && is_known {
        Ok(format!("{} ms of {} in {:?}", stall.time / 1_000_000, stall.comm, stall.cgroup))
    } else {
        Err(format!("{stall:?}; its cgroup is {path:?}, the longest {:?}", longest.quantile(1.0)))
    }
}

/// A file on a disk, whose pages can be reclaimed.
struct File(PathBuf);

/// Whether files there are on something else than memory.
fn is_on_disk(directory: &Path) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    rustix::fs::statfs(directory).is_ok_and(|found| ![TMPFS, RAMFS].contains(&found.f_type))
}

impl File {
    const DIRECTORY: &str = "/var/tmp";

    fn new(mib: u64) -> Result<File, String> {
        let path = Path::new(File::DIRECTORY).join(format!("observer-live-memory-{}", std::process::id()));
        let file = File(path);
        super::roles::write_file(&file.0, mib).map_err(|error| format!("{}: {error}", file.0.display()))?;
        Ok(file)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
