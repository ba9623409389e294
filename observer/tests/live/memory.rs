//! Page allocations and stalls against what is known of them: pages that a worker touches, `/proc/vmstat`, `memory.pressure`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use observer::collect::{Collector, Roots};
use observer::model::{Allocations, Sample, State, Used};
use observer_common::memory::{Class, ORDERS, Stall, place};
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
    let given = vmstat()?;
    let (used, all) = work(&mut collector, &mut launcher, key, &format!("write {} {}", file.display(), 2 * expected))?;
    let given = vmstat()? - given;
    let huge = all.counts[place(HUGE as usize, MOVABLE, Class::User as usize)];
    let figures = format!(
        "{huge} of {expected} allocations of order {HUGE}; {} pages in the cgroup, {given} on the machine by vmstat",
        used.pages
    );
    // The others' may be as large, and then they are among the pages that the machine gave.
    let enough = huge + expected.div_ceil(100) >= expected && used.pages >= expected << HUGE;
    if enough && huge << HUGE <= given + (1 << HUGE) { Ok(figures) } else { Err(figures) }
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

/// A limit on memory for a worker that is in a v2 cgroup: a v1 group's where there is that hierarchy, else the cgroup's own `memory.high`.
struct Limited {
    v1: Option<TestCgroup>,
}

impl Limited {
    fn new(cgroup: &TestCgroup, bytes: u64) -> Result<Limited, String> {
        let write = |path: &Path, text: &str| fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()));
        let v1 = Path::new("/sys/fs/cgroup/memory");
        if v1.join("memory.limit_in_bytes").exists() {
            let limited = TestCgroup::new(v1, "limit").map_err(|error| error.to_string())?;
            write(&limited.directory().join("memory.limit_in_bytes"), &bytes.to_string())?;
            return Ok(Limited { v1: Some(limited) });
        }
        let root = v2_root().ok_or("no v2 hierarchy")?;
        write(&root.join("cgroup.subtree_control"), "+memory")?;
        write(&cgroup.directory().join("memory.high"), &bytes.to_string())?;
        Ok(Limited { v1: None })
    }

    /// The file that sets it.
    fn name(&self) -> &'static str {
        if self.v1.is_some() { "memory.limit_in_bytes" } else { "memory.high" }
    }

    /// Puts a launcher under the limit, and what it starts from now on.
    fn hold(&self, launcher: &Launcher) -> Result<(), String> {
        let Some(v1) = &self.v1 else { return Ok(()) };
        fs::write(v1.directory().join("cgroup.procs"), launcher.pid().to_string()).map_err(|error| error.to_string())
    }
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
    let limited = Limited::new(&cgroup, LIMIT)?;
    // On one CPU: of several, memory.pressure takes an average that is weighted by how busy each was.
    let mut launcher = Launcher::start(cgroup.directory(), Some(0))?;
    limited.hold(&launcher)?;
    let file = File::new(512 / share())?;
    let was = pressure(&cgroup)?;
    let before = counts(&collector.collect())?;
    let (used, _) = work(&mut collector, &mut launcher, key, &format!("read {} 3", file.0.display()))?;
    let is = pressure(&cgroup)?;
    let after = counts(&collector.collect())?;
    let kind = Stall::MemcgReclaim as usize;
    let (count, sum) =
        (after.stalls[kind].count() - before.stalls[kind].count(), after.stalls[kind].sum - before.stalls[kind].sum);
    let kernels = is - was;
    let ratio = used.stalled as f64 / kernels as f64;
    let ms = |ns: u64| ns as f64 / 1e6;
    let figures = format!(
        "{}: {} stalls of {:.1} ms in the cgroup, {count} of {:.1} ms on the machine; memory.pressure {:.1} ms: {ratio:.2}",
        limited.name(),
        used.stalls,
        ms(used.stalled),
        ms(sum),
        ms(kernels)
    );
    let agrees = (0.5..=1.1).contains(&ratio) && used.stalls > 0 && sum >= used.stalled;
    if agrees { Ok(figures) } else { Err(figures) }
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
