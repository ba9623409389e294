//! The tree of every fixture host, with all that is expected of it, and trees that somebody made to annoy.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};

use observer_common::sched::kind;
use proptest::prelude::*;

use super::*;
use crate::model::host::Stalled;

fn listing(root: &Path) -> Listing {
    Cgroups::open(root).unwrap().read().unwrap()
}

/// A line for each cgroup, in the order of paths: inodes differ from one checkout to the next.
fn table(listing: &Listing) -> String {
    let names: BTreeMap<Key, String> = listing.groups.iter().map(|group| (group.key, name(group.key, &group.path))).collect();
    assert!(listing.groups.is_sorted_by(|one, next| one.key < next.key), "ascending, no key twice");
    let mut lines: Vec<String> = listing.groups.iter().map(|group| line(group, &names)).collect();
    lines.sort();
    lines.concat()
}

fn name(key: Key, path: &str) -> String {
    let hierarchy = match key.kind() {
        kind::ROOT => "root",
        kind::V2 => "v2",
        kind::CPU => "cpu",
        _ => "?",
    };
    format!("{hierarchy} {path}")
}

fn line(group: &Found, names: &BTreeMap<Key, String>) -> String {
    let CpuStat { usage, user, system, periods, throttled_periods, throttled, limit, nice, force_idle, bursts, burst } =
        group.cpu;
    let mut line = format!("{} unit {}\n", names[&group.key], unit(group).unwrap_or("–"));
    let parent = group.parent.map_or("–", |parent| &names[&parent]);
    writeln!(line, "    below {parent}").unwrap();
    let [usage, user, system, periods, throttled_periods, throttled] =
        [usage, user, system, periods, throttled_periods, throttled]
            .map(|value| value.map_or("–".into(), |value| value.to_string()));
    let limit = limit.map_or("–".into(), |limit| limit.to_string());
    writeln!(
        line,
        "    usage {usage} user {user} system {system} periods {throttled_periods}/{periods} throttled {throttled} limit {limit}"
    )
    .unwrap();
    let more = [("nice", nice), ("force idle", force_idle), ("bursts", bursts), ("burst", burst)];
    let more: String = more.iter().filter_map(|(name, value)| Some(format!(" {name} {}", (*value)?))).collect();
    if !more.is_empty() {
        writeln!(line, "    more:{more}").unwrap();
    }
    line + &resources(&group.resources)
}

fn unit(group: &Found) -> Option<&str> {
    group.identity.as_ref()?.unit.as_deref()
}

/// Lines of what is known; none where nothing is.
fn resources(resources: &Resources) -> String {
    let all = |values: &[(&str, Option<u64>)]| {
        let known = values.iter().filter_map(|(name, value)| Some(format!(" {name} {}", (*value)?)));
        known.collect::<String>()
    };
    let m = &resources.memory;
    let stalled = |time: Option<Stalled>| (time.map(|time| time.some), time.and_then(|time| time.full));
    let [cpu, memory, io] = [resources.cpu_pressure, resources.memory_pressure, resources.io_pressure].map(stalled);
    let s = &resources.settings;
    let texts = |values: &[(&str, Option<String>)]| -> String {
        values.iter().filter_map(|(name, value)| Some(format!(" {name} {}", value.as_ref()?))).collect()
    };
    let by = &resources.limiting;
    let nodes: String = m.nodes.iter().map(|(node, bytes)| format!(" {node} {bytes}")).collect();
    let lines = [
        ("memory", all(&[("usage", m.usage), ("limit", m.limit), ("high", m.high)])),
        ("kinds", all(&[("anon", m.stat.anon), ("file", m.stat.file), ("kernel", m.stat.kernel)])),
        (
            "events",
            all(&[
                ("low", m.events.low),
                ("high", m.events.high),
                ("max", m.events.max),
                ("oom", m.events.oom),
                ("oom_kill", m.events.oom_kill),
                ("oom_group_kill", m.events.oom_group_kill),
            ]),
        ),
        (
            "pages",
            all(&[
                ("faults", m.stat.faults),
                ("major", m.stat.major_faults),
                ("refaults anon", m.stat.refaults_anon),
                ("file", m.stat.refaults_file),
                ("scanned", m.stat.scanned),
                ("reclaimed", m.stat.reclaimed),
            ]),
        ),
        ("nodes", nodes),
        (
            "limited by",
            texts(&[("cpu", by.cpu.as_deref().map(str::to_owned)), ("memory", by.memory.as_deref().map(str::to_owned))]),
        ),
        (
            "settings",
            all(&[("weight", s.weight), ("burst", s.burst), ("pids", s.pids_limit), ("refused", s.pids_refused)])
                + &texts(&[
                    ("cpus", s.cpus.as_ref().map(|cpus| format!("{cpus:?}"))),
                    ("frozen", s.is_frozen.map(|frozen| frozen.to_string())),
                    ("kind", s.kind.map(|kind| kind.name().to_owned())),
                ]),
        ),
        ("tasks", all(&[("throttled", resources.throttled_tasks), ("pids", resources.pids)])),
        (
            "io",
            all(&[
                ("read", resources.io.bytes.read),
                ("in", resources.io.operations.read),
                ("write", resources.io.bytes.write),
                ("in", resources.io.operations.write),
                ("discard", resources.io.bytes.discard),
                ("in", resources.io.operations.discard),
            ]),
        ),
        (
            "stalled",
            all(&[("cpu", cpu.0), ("full", cpu.1), ("memory", memory.0), ("full", memory.1), ("io", io.0), ("full", io.1)]),
        ),
    ];
    lines.iter().filter(|(_, values)| !values.is_empty()).map(|(name, values)| format!("    {name}:{values}\n")).collect()
}

fn fixture(host: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(host).join("cgroup");
    let listing = listing(&root);
    assert_eq!((listing.namespaced, listing.vanished, &listing.unreadable), (false, 0, &None));
    table(&listing)
}

#[test]
fn v2_server() {
    insta::assert_snapshot!(fixture("v2-server"));
}

#[test]
fn v1_host() {
    insta::assert_snapshot!(fixture("v1-host"));
}

#[test]
fn hybrid_host() {
    insta::assert_snapshot!(fixture("hybrid-host"));
}

#[test]
fn container() {
    insta::assert_snapshot!(fixture("container"));
}

/// A v2 root with these directories in it.
fn tree(directories: &[&[u8]]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("cgroup.controllers"), "").unwrap();
    for directory in directories {
        fs::create_dir_all(root.path().join(OsStr::from_bytes(directory))).unwrap();
    }
    root
}

fn paths(listing: &Listing) -> Vec<&str> {
    let mut paths: Vec<_> = listing.groups.iter().map(|group| &*group.path).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn hostile_names_are_escaped() {
    let root = tree(&[b"a\nb\x1b[2J/\xff.service", br"back\slash", b"..."]);
    let listing = listing(root.path());
    assert_eq!(paths(&listing), ["/", "/...", r"/a\x0ab\x1b[2J", r"/a\x0ab\x1b[2J/\xff.service", r"/back\\slash"]);
    assert!(listing.groups.iter().any(|group| unit(group) == Some(r"\xff.service")));
    assert!(listing.groups.iter().all(|group| group.cpu == CpuStat::default()), "no files: nothing is known, and nothing is 0");
}

#[test]
fn keys_are_inodes() {
    let root = tree(&[b"a"]);
    let listing = listing(root.path());
    let inode = fs::metadata(root.path().join("a")).unwrap().ino();
    assert_eq!(listing.groups.iter().map(|group| group.key).collect::<Vec<_>>(), [Key::ROOT, Key::v2(inode)]);
}

#[test]
fn links_are_not_followed() {
    let root = tree(&[b"a"]);
    symlink("..", root.path().join("a/loop")).unwrap();
    symlink("a", root.path().join("b")).unwrap();
    assert_eq!(paths(&listing(root.path())), ["/", "/a"]);
}

#[test]
fn depth_is_bounded() {
    let root = tree(&["d/".repeat(70).as_bytes()]);
    let listing = listing(root.path());
    assert_eq!(listing.groups.len(), 65);
    let unreadable = listing.unreadable.unwrap();
    assert_eq!(unreadable.count, 1);
    assert!(unreadable.first.ends_with("/d: deeper than 64 levels"), "{unreadable}");
}

#[test]
fn what_cannot_be_read_is_counted_and_the_first_is_named() {
    let root = tree(&[b"a", b"b"]);
    fs::write(root.path().join("a/cpu.stat"), "usage_usec x\n").unwrap();
    fs::create_dir(root.path().join("b/cpu.stat")).unwrap();
    fs::write(root.path().join("cpu.stat"), "usage_usec 1\nnr_periods 0\n").unwrap();
    fs::write(root.path().join("cpu.max"), "").unwrap();
    let listing = listing(root.path());
    assert_eq!(listing.groups[0].cpu, CpuStat { usage: Some(1_000), periods: Some(0), ..CpuStat::default() });
    let expected = format!(r#"{}/cpu.max: expected a quota and a period, found "" (and 2 more)"#, root.path().display());
    assert_eq!(listing.unreadable.unwrap().to_string(), expected);
}

/// What a file holds, which field of the CPU's it costs, and what health says of it.
#[test]
fn what_is_wrong_in_a_file_costs_its_own_field() {
    let whole = CpuStat { usage: Some(9_000), user: Some(5_000), periods: Some(3), ..CpuStat::default() };
    let without = |usage, user, periods| CpuStat { usage, user, periods, ..CpuStat::default() };
    let cases: [(&[u8], CpuStat, Option<&str>); 8] = [
        (b"usage_usec 9\nuser_usec 5\nnr_periods 3\n", whole, None),
        (b"usage_usec 9\nuser_usec 5\nnr_periods 3\nnew_field 7\nnewer\n", whole, None),
        (b"usage_usec 9\nuser_usec 5\nnr_peri", without(Some(9_000), Some(5_000), None), None),
        (b"usage_usec 9\nuser_usec \nnr_periods 3\n", without(Some(9_000), None, Some(3)), Some(r#""user_usec""#)),
        (b"usage_usec -9\nuser_usec 5\nnr_periods 3\n", without(None, Some(5_000), Some(3)), Some(r#""usage_usec -9""#)),
        (
            b"usage_usec 9\nuser_usec 5\nnr_periods 99999999999999999999999\n",
            without(Some(9_000), Some(5_000), None),
            Some(r#""nr_periods 99999999999999999999999""#),
        ),
        (b"\xff\xfe\x00 1\nusage_usec 9\nuser_usec 5\nnr_periods 3\n", whole, None),
        (b"", CpuStat::default(), None),
    ];
    let root = tree(&[b"a"]);
    let mut cgroups = Cgroups::open(root.path()).unwrap();
    for (content, cpu, problem) in cases {
        fs::write(root.path().join("a/cpu.stat"), content).unwrap();
        let listing = cgroups.read().unwrap();
        let row = listing.groups.iter().find(|group| &*group.path == "/a").unwrap();
        assert_eq!(row.cpu, cpu, "{content:?}");
        let said = listing.unreadable.map(|unreadable| unreadable.to_string());
        assert_eq!(said.is_some(), problem.is_some(), "{content:?}: {said:?}");
        assert!(said.unwrap_or_default().contains(problem.unwrap_or_default()), "{content:?}");
    }
}

#[test]
fn a_root_that_goes_away_is_an_error() {
    let root = tree(&[]);
    let mut cgroups = Cgroups::open(root.path()).unwrap();
    let path = root.path().display().to_string();
    root.close().unwrap();
    assert_eq!(cgroups.read().unwrap_err().to_string(), format!("{path}: No such file or directory (os error 2)"));
}

#[test]
fn readings_are_independent() {
    let root = tree(&[b"a"]);
    let mut cgroups = Cgroups::open(root.path()).unwrap();
    let first = cgroups.read().unwrap();
    assert_eq!(cgroups.read().unwrap(), first);
    fs::remove_dir(root.path().join("a")).unwrap();
    assert_eq!(paths(&cgroups.read().unwrap()), ["/"]);
}

/// A v2 tree whose files tell how long each cgroup has run, and its reader.
struct Kept {
    root: tempfile::TempDir,
    cgroups: Cgroups,
}

impl Kept {
    fn new(directories: &[&str]) -> Kept {
        let root = tree(&directories.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        let cgroups = Cgroups::open(root.path()).unwrap();
        Kept { root, cgroups }
    }

    fn ran(&self, path: &str, usec: u64) {
        fs::write(self.root.path().join(path).join("cpu.stat"), format!("usage_usec {usec}\n")).unwrap();
    }

    fn key(&self, path: &str) -> Key {
        Key::v2(fs::metadata(self.root.path().join(path)).unwrap().ino())
    }

    /// Microseconds by path.
    fn usages(&mut self, ran: Option<&[Ran]>) -> BTreeMap<String, u64> {
        let listing = self.cgroups.read_knowing(ran).unwrap();
        assert_eq!(listing.unreadable, None);
        let usage = |group: &Found| Some((group.path.to_string(), group.cpu.usage? / 1_000));
        listing.groups.iter().filter_map(usage).collect()
    }
}

/// Many, so that the turn of the few that a test looks at is far away.
fn far(more: &[&'static str]) -> Kept {
    let many: Vec<String> = (0..700).map(|number| format!("many/{number}")).collect();
    let all: Vec<&str> = many.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let kept = Kept::new(&all);
    kept.ran("", 1);
    kept.ran("many", 1);
    kept
}

#[test]
fn who_has_not_moved_has_nobody_below_it_that_has() {
    let mut kept = far(&["a/b/c", "d"]);
    for path in ["a", "a/b", "a/b/c", "d"] {
        kept.ran(path, 1_000);
    }
    // The first two learn everything, and what brought news is read again.
    (0..3).for_each(|_| drop(kept.usages(None)));
    kept.ran("a/b/c", 7_000);
    let usages = kept.usages(None);
    assert_eq!((usages["/a"], usages["/a/b/c"]), (1_000, 1_000), "neither the root nor /a has moved: nobody looks");
    for path in ["", "a", "a/b"] {
        kept.ran(path, 7_000);
    }
    let usages = kept.usages(None);
    assert_eq!((usages["/"], usages["/a/b"], usages["/a/b/c"], usages["/d"]), (7_000, 7_000, 7_000, 1_000));
}

#[test]
fn who_is_said_to_have_run_is_read_with_its_ancestors_and_nobody_else() {
    let mut kept = far(&["a/b", "a/c"]);
    for path in ["a", "a/b", "a/c"] {
        kept.ran(path, 1_000);
    }
    (0..3).for_each(|_| drop(kept.usages(None)));
    for path in ["a", "a/b", "a/c"] {
        kept.ran(path, 5_000);
    }
    let ran = |key| Ran { key, parent: None };
    let usages = kept.usages(Some(&[ran(kept.key("a/b"))]));
    assert_eq!((usages["/a"], usages["/a/b"], usages["/a/c"]), (5_000, 5_000, 1_000));
    kept.ran("a", 6_000);
    kept.ran("a/c", 6_000);
    // One that nobody knows, whose parent does not help either: then parents tell.
    kept.ran("", 6_000);
    let usages = kept.usages(Some(&[Ran { key: Key::v2(1 << 40), parent: Some(Key::v2(1 << 41)) }]));
    assert_eq!((usages["/a"], usages["/a/c"]), (6_000, 6_000));
}

#[test]
fn what_the_busy_account_for_is_nobody_elses() {
    let mut kept = far(&["p/busy", "p/idle"]);
    let run = |kept: &Kept, busy: u64, idle: u64, all: u64| {
        for (path, used) in [("p/busy", busy), ("p/idle", idle), ("p", all), ("", all)] {
            kept.ran(path, used * 1_000);
        }
    };
    run(&kept, 1, 1, 2);
    (0..3).for_each(|_| drop(kept.usages(None)));
    let mut told = |busy, idle, all| {
        run(&kept, busy, idle, all);
        let usages = kept.usages(None);
        (usages["/p/busy"] / 1_000, usages["/p/idle"] / 1_000)
    };
    assert_eq!(told(5, 1, 6), (5, 1), "the busy one is found");
    assert_eq!(told(9, 3, 10), (9, 1), "it accounts for what /p has used: nobody looks at the other");
    assert_eq!(told(9, 3, 12), (9, 3), "it does not");
}

#[test]
fn of_more_than_can_be_learned_at_once_the_rest_follows() {
    let mut kept = far(&[]);
    for number in 0..700 {
        fs::write(kept.root.path().join(format!("many/{number}/memory.current")), "9\n").unwrap();
    }
    let mut known = || {
        let listing = kept.cgroups.read_knowing(Some(&[])).unwrap();
        listing.groups.iter().filter(|group| group.resources.memory.usage.is_some()).count()
    };
    let first = known();
    assert!((500..=512).contains(&first), "{first}");
    assert_eq!(known(), 700);
}

#[test]
fn births_deaths_and_renames_between_readings() {
    let mut kept = Kept::new(&["a/b"]);
    let at = |name: &str| kept.root.path().join(name);
    let old = kept.cgroups.read().unwrap();
    fs::create_dir_all(at("a/c/d")).unwrap();
    fs::rename(at("a/b"), at("a/e")).unwrap();
    let listing = kept.cgroups.read().unwrap();
    assert_eq!(paths(&listing), ["/", "/a", "/a/c", "/a/c/d", "/a/e"]);
    let key = |listing: &Listing, path: &str| listing.groups.iter().find(|group| &*group.path == path).unwrap().key;
    assert_eq!(key(&listing, "/a/e"), key(&old, "/a/b"));
    let parent = |path: &str| listing.groups.iter().find(|group| &*group.path == path).unwrap().parent;
    assert_eq!((parent("/a/c/d"), parent("/")), (Some(key(&listing, "/a/c")), None));
    fs::remove_dir_all(at("a/c")).unwrap();
    // The same name, another cgroup.
    fs::create_dir(at("f")).unwrap();
    fs::remove_dir(at("a/e")).unwrap();
    fs::create_dir(at("a/e")).unwrap();
    let listing = kept.cgroups.read().unwrap();
    assert_eq!(paths(&listing), ["/", "/a", "/a/e", "/f"]);
    assert_eq!(key(&listing, "/a/e"), kept.key("a/e"));
    assert_eq!(listing.vanished, 0);
}

/// A v2 tree with one cgroup, whose CPU time and memory can be set, and its reader.
struct Lone {
    root: tempfile::TempDir,
    cgroups: Cgroups,
}

impl Lone {
    fn new() -> Lone {
        let root = tree(&[b"a"]);
        let cgroups = Cgroups::open(root.path()).unwrap();
        Lone { root, cgroups }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root.path().join("a").join(name), text).unwrap();
    }

    /// Reads, and tells the memory in use; `run` lets it run before.
    fn usage(&mut self, run: u32) -> Option<u64> {
        self.write("cpu.stat", &format!("usage_usec {run}\n"));
        let listing = self.cgroups.read().unwrap();
        listing.groups.iter().find(|group| &*group.path == "/a").unwrap().resources.memory.usage
    }
}

#[test]
fn who_does_nothing_is_seldom_read_again() {
    let mut lone = Lone::new();
    lone.write("memory.current", "1\n");
    assert_eq!(lone.usage(1), Some(1));
    lone.write("memory.current", "2\n");
    let readings = (1..=11).find(|_| lone.usage(1) == Some(2)).unwrap();
    assert!(readings <= 10, "{readings}");
    lone.write("memory.current", "3\n");
    assert_eq!(lone.usage(1), Some(3), "what moved may go on moving");
}

#[test]
fn who_ran_is_read_again() {
    let mut lone = Lone::new();
    for run in 1..30 {
        lone.write("memory.current", &format!("{run}\n"));
        assert_eq!(lone.usage(run), Some(run.into()));
    }
    lone.write("memory.current", "x\n");
    assert_eq!(lone.usage(30), None);
}

#[test]
fn who_is_in_haste_learns_nothing_of_memory() {
    let mut lone = Lone::new();
    lone.write("memory.current", "1\n");
    let hasty = lone.cgroups.read_hastily().unwrap();
    assert!(hasty.groups.iter().all(|group| *group.resources == Resources::default()));
    assert_eq!(lone.usage(1), Some(1));
}

#[test]
fn dear_files_are_left_alone_while_cheap_ones_tell_the_same() {
    let mut lone = Lone::new();
    let anon = |lone: &mut Lone, run| {
        lone.usage(run);
        let listing = lone.cgroups.read().unwrap();
        listing.groups.iter().find(|group| &*group.path == "/a").unwrap().resources.memory.stat.anon
    };
    lone.write("memory.current", "1\n");
    lone.write("memory.stat", "anon 1\n");
    assert_eq!(anon(&mut lone, 1), Some(1));
    lone.write("memory.stat", "anon 2\n");
    assert!((0..30).all(|_| anon(&mut lone, 1) == Some(1)));
    lone.write("memory.current", "2\n");
    assert!((0..10).any(|_| anon(&mut lone, 1) == Some(2)));
}

#[test]
fn what_is_wrong_is_said_as_long_as_it_stands() {
    let mut lone = Lone::new();
    lone.write("memory.current", "7\n");
    lone.write("memory.events", "max 3\noom_kill \x1b[2J\n");
    lone.write("memory.stat", "anon 18446744073709551615\nfile 5");
    lone.write("memory.max", "");
    fs::create_dir(lone.root.path().join("a/io.pressure")).unwrap();
    for _ in 0..12 {
        let listing = lone.cgroups.read().unwrap();
        let unreadable = listing.unreadable.unwrap();
        assert_eq!(unreadable.count, 4);
        let expected = format!("{}/a/io.pressure: Is a directory (os error 21)", lone.root.path().display());
        assert_eq!(unreadable.first, expected);
        let memory = &listing.groups[1].resources.memory;
        assert_eq!((memory.usage, memory.events.max, memory.stat.file), (Some(7), Some(3), Some(5)), "the rest is known");
        assert_eq!((memory.limit, memory.events.oom_kill, memory.stat.anon), (None, None, None));
    }
}

#[test]
fn a_limit_is_that_of_the_tightest_ancestor_now() {
    let root = tree(&[b"a/b"]);
    let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
    let mut cgroups = Cgroups::open(root.path()).unwrap();
    write("a/memory.max", "500\n");
    write("a/memory.high", "400\n");
    write("a/b/memory.max", "900\n");
    let mut limits = || {
        let listing = cgroups.read().unwrap();
        let found = listing.groups.iter().find(|group| &*group.path == "/a/b").unwrap().resources.memory.clone();
        let by = listing.groups.iter().find(|group| &*group.path == "/a/b").unwrap().resources.limiting.clone();
        assert_eq!(by.memory.as_deref(), Some(if found.limit == Some(900) { "/a/b" } else { "/a" }), "who is named");
        (found.limit, found.high)
    };
    assert_eq!(limits(), (Some(500), Some(400)));
    write("a/memory.max", "max\n");
    write("a/cpu.stat", "usage_usec 1\n");
    assert_eq!(limits(), (Some(900), Some(400)), "although nothing ran in it");
    write("a/memory.max", "5\n");
    write("a/cpu.stat", "usage_usec 2\n");
    assert_eq!(limits(), (Some(5), Some(400)));
}

#[test]
fn the_quota_that_stops_a_cgroup_is_named() {
    let (mut kept, mut ran) = (Kept::new(&["a/b/c"]), 0);
    let mut check = |quotas: [&str; 3], limit: Option<f64>, by: Option<&str>| {
        ran += 1;
        for (path, quota) in ["a", "a/b", "a/b/c"].into_iter().zip(quotas) {
            fs::write(kept.root.path().join(path).join("cpu.max"), quota).unwrap();
            fs::write(kept.root.path().join(path).join("cpu.stat"), format!("usage_usec {ran}\nnr_periods 0\n")).unwrap();
        }
        let listing = kept.cgroups.read().unwrap();
        let row = listing.groups.iter().find(|group| &*group.path == "/a/b/c").unwrap();
        assert_eq!((row.cpu.limit, row.resources.limiting.cpu.as_deref()), (limit, by), "{quotas:?}");
    };
    check(["max 100000", "max 100000", "max 100000"], None, None);
    check(["max 100000", "max 100000", "150000 100000"], Some(1.5), Some("/a/b/c"));
    check(["50000 100000", "max 100000", "150000 100000"], Some(0.5), Some("/a"));
    check(["50000 100000", "20000 100000", "150000 100000"], Some(0.2), Some("/a/b"));
    check(["50000 100000", "max 100000", "50000 100000"], Some(0.5), Some("/a"));
    check(["max 100000", "max 100000", "max 100000"], None, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_content_of_any_file_is_survived(contents: [Vec<u8>; 12]) {
        let root = tree(&[b"a"]);
        let names = [
            "cpu.stat", "cpu.max", "a/cpu.stat", "a/cpu.max", "a/memory.current", "a/memory.max", "a/memory.stat",
            "a/memory.numa_stat", "a/io.pressure", "a/io.stat", "a/cpuset.cpus.effective", "a/cgroup.events",
        ];
        for (name, content) in names.iter().zip(&contents) {
            fs::write(root.path().join(name), content).unwrap();
        }
        prop_assert_eq!(listing(root.path()).groups.len(), 2);
    }

    #[test]
    fn any_path_has_at_most_a_unit(path: Vec<u8>) {
        let _ = unit::nearest(&path);
    }
}
