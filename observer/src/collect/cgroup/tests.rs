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
    let CpuStat { usage, user, system, periods, throttled_periods, throttled, limit } = group.cpu;
    let mut line = format!("{} unit {}\n", names[&group.key], group.unit.as_deref().unwrap_or("–"));
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
    line
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
    let mut paths: Vec<_> = listing.groups.iter().map(|group| group.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn hostile_names_are_escaped() {
    let root = tree(&[b"a\nb\x1b[2J/\xff.service", br"back\slash", b"..."]);
    let listing = listing(root.path());
    assert_eq!(paths(&listing), ["/", "/...", r"/a\x0ab\x1b[2J", r"/a\x0ab\x1b[2J/\xff.service", r"/back\\slash"]);
    assert!(listing.groups.iter().any(|group| group.unit.as_deref() == Some(r"\xff.service")));
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_content_of_any_file_is_survived(contents: [Vec<u8>; 4]) {
        let root = tree(&[b"a"]);
        for (name, content) in ["cpu.stat", "cpu.max", "a/cpu.stat", "a/cpu.max"].iter().zip(&contents) {
            fs::write(root.path().join(name), content).unwrap();
        }
        prop_assert_eq!(listing(root.path()).groups.len(), 2);
    }

    #[test]
    fn any_path_has_at_most_a_unit(path: Vec<u8>) {
        let _ = unit::nearest(&path);
    }
}
