//! Who held the CPU while one waited, and whom it delayed: the pairs of [`Contention`], compared over an interval and folded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use observer_common::sched::{Key, kind};

use super::{Cgroup, Contention, Entity, Party, Sample, Snapshot};

/// All pairs of a snapshot with their rates. Making it is one pass over both samples.
#[derive(Debug)]
pub struct Blame<'a> {
    snapshot: &'a Snapshot,
    /// Seconds a second of each row of the newer sample; `None` where they are unknown.
    rates: Vec<Option<f64>>,
    /// The rows by victim, ascending by hierarchy and path, so that a subtree's are found without looking at all.
    runs: Vec<Run<'a>>,
}

/// The rows of one victim.
#[derive(Debug)]
struct Run<'a> {
    kind: u8,
    path: &'a str,
    rows: Range<usize>,
}

/// One side of what a list tells: who was waited for, or who waited.
#[derive(Clone, PartialEq, Debug)]
pub struct Blamed {
    /// What people call who it is: as the label has it, or a container by its names; `~self` for what is inside.
    pub name: Arc<str>,
    /// The kind of culprit it is; for victims `cgroup`, `process`, `self` or `other`.
    pub kind: &'static str,
    /// Seconds a second.
    pub rate: f64,
}

/// Highest rate first, equal ones by name; whoever has no part in it is not listed.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct List {
    /// Sum of the rates.
    pub total: f64,
    /// The parts.
    pub blamed: Vec<Blamed>,
}

/// Both directions of a cgroup with its descendants.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Lists {
    /// Who held the CPU while it waited.
    pub culprits: List,
    /// Who waited while it held the CPU.
    pub victims: List,
}

/// Somebody who waited, and the one it waited for most.
#[derive(Clone, PartialEq, Debug)]
pub struct Victim<'a> {
    /// Who.
    pub party: &'a Party,
    /// What people call it.
    pub name: Arc<str>,
    /// Seconds a second.
    pub rate: f64,
    /// For whom most of it.
    pub behind: Blamed,
}

impl List {
    /// A part's share of the whole.
    pub fn share(&self, blamed: &Blamed) -> f64 {
        if self.total > 0.0 { blamed.rate / self.total } else { 0.0 }
    }

    /// The largest part and its share.
    pub fn main(&self) -> Option<(&Blamed, f64)> {
        self.blamed.first().map(|first| (first, self.share(first)))
    }

    /// Without the parts of one kind.
    pub fn without(mut self, kind: &str) -> List {
        self.blamed.retain(|blamed| blamed.kind != kind);
        self.total = self.blamed.iter().map(|blamed| blamed.rate).sum();
        self
    }
}

impl<'a> Blame<'a> {
    /// Compares the two samples of a snapshot.
    ///
    /// A pair that the former sample does not have began at 0, if the scheduler hook was on then.
    pub fn of(snapshot: &'a Snapshot) -> Blame<'a> {
        Blame { snapshot, rates: rates(snapshot), runs: runs(&snapshot.is) }
    }

    /// What was compared.
    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// The lists of a cgroup with its descendants. What is inside it on both sides is `~self`; the processes of the cgroup itself,
    /// which it has in focus, are told apart.
    pub fn lists(&self, key: Key) -> Lists {
        let inside = Subtree::of(&self.snapshot.is, key);
        let (mut culprits, mut victims) = (Sums::default(), Sums::default());
        for (pair, rate) in self.pairs(0..self.rates.len()) {
            let (waited, held) = (inside.waits(&pair.victim), inside.contains(&pair.culprit));
            if waited {
                culprits.add(&self.snapshot.is, pair, &pair.culprit, held.then_some(key), rate);
            }
            if held {
                victims.add(&self.snapshot.is, pair, &pair.victim, waited.then_some(key), rate);
            }
        }
        Lists { culprits: culprits.list(), victims: victims.list() }
    }

    /// Who held the CPU while a cgroup with its descendants waited: as [`Blame::lists`] has it, without a look at everybody else.
    pub fn culprits(&self, key: Key) -> List {
        let inside = Subtree::of(&self.snapshot.is, key);
        if key == Key::ROOT {
            return self.culprits_of(&inside, &self.runs);
        }
        let kind = key.kind();
        let from = |path: &str| self.runs.partition_point(|run| (run.kind, run.path) < (kind, path));
        let beneath = inside.path.map_or(0..0, |path| from(&format!("{path}/"))..from(&format!("{path}0")));
        // Next to it are those whose names begin like its own.
        let own = self.own(key, inside.path);
        self.culprits_of(&inside, own.iter().chain(&self.runs[beneath]))
    }

    /// Who held the CPU while a cgroup's own tasks waited, those of its descendants left out.
    pub fn culprits_of_own(&self, key: Key) -> List {
        let inside = Subtree::of(&self.snapshot.is, key);
        let own = self.own(key, inside.path);
        self.culprits_of(&Subtree { alone: true, ..inside }, own)
    }

    /// The rows of a cgroup itself and of its processes.
    fn own(&self, key: Key, path: Option<&str>) -> &[Run<'a>] {
        let own = (key.kind(), path.unwrap_or_default());
        let from = self.runs.partition_point(|run| (run.kind, run.path) < own);
        let many = self.runs[from..].partition_point(|run| (run.kind, run.path) == own);
        &self.runs[from..from + many]
    }

    fn culprits_of<'r>(&self, inside: &Subtree<'_>, runs: impl IntoIterator<Item = &'r Run<'a>>) -> List
    where
        'a: 'r,
    {
        let mut culprits = Sums::default();
        for (pair, rate) in runs.into_iter().flat_map(|run| self.pairs(run.rows.clone())) {
            let held = inside.contains(&pair.culprit).then_some(inside.key);
            culprits.add(&self.snapshot.is, pair, &pair.culprit, held, rate);
        }
        culprits.list()
    }

    /// Those inside a cgroup that are not the cgroup itself: its descendants, and its processes where it is in focus.
    pub fn inside(&self, key: Key) -> Vec<Victim<'a>> {
        let inside = Subtree::of(&self.snapshot.is, key);
        self.victims(|party| party.key != key && inside.waits(party))
    }

    /// The processes in focus.
    pub fn processes(&self) -> Vec<Victim<'a>> {
        self.victims(|party| party.key.kind() == kind::PROCESS)
    }

    fn victims(&self, wanted: impl Fn(&Party) -> bool) -> Vec<Victim<'a>> {
        let mut victims = Vec::new();
        let mut from = 0;
        for pairs in self.snapshot.is.contentions.chunk_by(|a, b| a.victim.key == b.victim.key) {
            let rates = &self.rates[from..from + pairs.len()];
            from += pairs.len();
            let Some(first) = pairs.first().filter(|first| wanted(&first.victim)) else { continue };
            let rate: f64 = rates.iter().flatten().sum();
            let known = pairs.iter().zip(rates).filter_map(|(pair, rate)| Some((pair, (*rate)?)));
            let most = known.max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.culprit.name.cmp(&a.0.culprit.name)));
            if let Some((pair, most)) = most.filter(|_| rate > 0.0) {
                let sample = &self.snapshot.is;
                let kind = pair.culprit_kind();
                let name = if kind == "self" { pair.culprit_name().into() } else { title(sample, &pair.culprit) };
                let behind = Blamed { name, kind, rate: most };
                victims.push(Victim { party: &first.victim, name: title(sample, &first.victim), rate, behind });
            }
        }
        victims.sort_by(|a, b| b.rate.total_cmp(&a.rate).then_with(|| a.party.name.cmp(&b.party.name)));
        victims
    }

    fn pairs(&self, rows: Range<usize>) -> impl Iterator<Item = (&'a Contention, f64)> {
        let known = |(pair, rate): (&'a Contention, &Option<f64>)| Some((pair, rate.filter(|rate| *rate > 0.0)?));
        self.snapshot.is.contentions[rows.clone()].iter().zip(&self.rates[rows]).filter_map(known)
    }
}

/// Seconds a second of each row.
fn rates(snapshot: &Snapshot) -> Vec<Option<f64>> {
    let interval = snapshot.interval().filter(|interval| *interval > 0.0);
    let counted = |sample: &&Arc<Sample>| Contention::unborn(sample).is_some();
    let (Some(interval), Some(was)) = (interval, snapshot.was.as_ref().filter(counted)) else {
        return vec![None; snapshot.is.contentions.len()];
    };
    let mut before = was.contentions.iter().peekable();
    let key = |pair: &Contention| (pair.victim.key, pair.culprit.key);
    let rate = |is: &Contention| {
        while before.next_if(|was| key(was) < key(is)).is_some() {}
        let began = before.next_if(|was| key(was) == key(is)).map_or(0, Contention::own);
        Some(is.own().checked_sub(began)? as f64 / 1e9 / interval)
    };
    snapshot.is.contentions.iter().map(rate).collect()
}

fn runs(sample: &Sample) -> Vec<Run<'_>> {
    let mut from = 0;
    let run = |pairs| {
        let pairs: &[Contention] = pairs;
        let rows = from..from + pairs.len();
        from = rows.end;
        let victim = &pairs.first()?.victim;
        Some(Run { kind: victim.cgroup.kind(), path: path(sample, victim), rows })
    };
    let mut runs: Vec<_> = sample.contentions.chunk_by(|a, b| a.victim.key == b.victim.key).filter_map(run).collect();
    runs.sort_by(|a, b| (a.kind, a.path).cmp(&(b.kind, b.path)));
    runs
}

fn cgroup(sample: &Sample, key: Key) -> Option<&Cgroup> {
    sample.cgroups.binary_search_by_key(&key, |cgroup| cgroup.id).ok().map(|at| &sample.cgroups[at])
}

/// The path of the cgroup that a party is or is in.
fn path<'a>(sample: &'a Sample, party: &'a Party) -> &'a str {
    // A cgroup's name is its path, and stays so when it has died.
    if party.key == party.cgroup { &party.name } else { cgroup(sample, party.cgroup).map_or("", |cgroup| &cgroup.path) }
}

/// What people call whom a label of `contention` names: [`Cgroup::full_title`] in place of the path, also before a process.
pub fn titled<'a>(sample: &Sample, label: &'a str) -> Cow<'a, str> {
    let (path, process) = label.find(" #").map_or((label, ""), |at| label.split_at(at));
    let cgroup = sample.cgroups.iter().find(|cgroup| *cgroup.path == *path);
    match cgroup.map(Cgroup::full_title) {
        Some(Cow::Owned(title)) => Cow::Owned(format!("{title}{process}")),
        _ => Cow::Borrowed(label),
    }
}

/// As [`titled`], found by its key.
fn title(sample: &Sample, party: &Party) -> Arc<str> {
    let titled = cgroup(sample, party.cgroup).and_then(|cgroup| match cgroup.full_title() {
        Cow::Owned(title) => Some(format!("{title}{}", party.name.strip_prefix(&*cgroup.path)?).into()),
        Cow::Borrowed(_) => None,
    });
    titled.unwrap_or_else(|| party.name.clone())
}

/// Rates by key.
#[derive(Default)]
struct Sums(HashMap<Key, Blamed>);

impl Sums {
    /// Adds a party's rate, `inside` a cgroup where it belongs to both sides.
    fn add(&mut self, sample: &Sample, pair: &Contention, party: &Party, inside: Option<Key>, rate: f64) {
        let own_process = |key: Key| party.key.kind() == kind::PROCESS && party.cgroup == key;
        let key = inside.filter(|key| !own_process(*key)).unwrap_or(party.key);
        let blamed = self.0.entry(key).or_insert_with(|| {
            let (name, kind) = match party.key.kind() {
                _ if inside == Some(key) => ("~self".into(), "self"),
                kind::PROCESS => (title(sample, party), "process"),
                kind::OTHER => (party.name.clone(), "other"),
                _ if party.key == pair.victim.key => (title(sample, party), "cgroup"),
                _ => (title(sample, party), pair.culprit_kind()),
            };
            Blamed { name, kind, rate: 0.0 }
        });
        blamed.rate += rate;
    }

    fn list(self) -> List {
        let mut blamed: Vec<_> = self.0.into_values().collect();
        blamed.sort_by(|a, b| b.rate.total_cmp(&a.rate).then_with(|| a.name.cmp(&b.name)));
        List { total: blamed.iter().map(|blamed| blamed.rate).sum(), blamed }
    }
}

/// A cgroup with its descendants.
struct Subtree<'a> {
    sample: &'a Sample,
    key: Key,
    /// `None` when it is not in the sample.
    path: Option<&'a str>,
    /// Its descendants are left out.
    alone: bool,
}

impl<'a> Subtree<'a> {
    fn of(sample: &'a Sample, key: Key) -> Subtree<'a> {
        let found = sample.cgroups.binary_search_by_key(&key, |cgroup| cgroup.id).ok();
        let alone = !matches!(key.kind(), kind::ROOT | kind::V2 | kind::CPU);
        Subtree { sample, key, path: found.map(|at| &*sample.cgroups[at].path), alone }
    }

    fn contains(&self, party: &Party) -> bool {
        let beneath = || match self.key.kind() {
            // Everything is beneath the root, whatever its hierarchy.
            kind::ROOT => matches!(party.cgroup.kind(), kind::V2 | kind::CPU | kind::GONE),
            kind if party.cgroup.kind() != kind => false,
            _ => self
                .path
                .is_some_and(|above| path(self.sample, party).strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))),
        };
        party.cgroup == self.key || !self.alone && beneath()
    }

    /// As [`Subtree::contains`]; whoever waits, even who found no slot, is on the machine.
    fn waits(&self, party: &Party) -> bool {
        self.contains(party) || self.key == Key::ROOT && !self.alone
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::cgroup::identity::Container;
    use super::super::cgroup::{CpuStat, Identity};
    use super::super::{Host, Sched, contention};
    use super::*;

    /// Cgroups by their number.
    const CGROUPS: [&str; 5] = ["/", "/a", "/a/x", "/a/y", "/b"];

    fn party(name: &str) -> Party {
        let cgroup = |path: &str| match CGROUPS.iter().position(|known| *known == path) {
            Some(0) => Key::ROOT,
            Some(at) => Key::v2(at as u64 + 1),
            None => Key::v2(90 + path.len() as u64),
        };
        let key = match name {
            "~idle" => Key::IDLE,
            "~other" => Key::OTHER,
            "~gone" => Key::GONE,
            _ => match name.split_once(" #") {
                Some((_, pid)) => Key::new(kind::PROCESS, pid.parse().unwrap()),
                None => cgroup(name),
            },
        };
        let of = name.split_once(" #").map_or(key, |(path, _)| cgroup(path));
        Party { key, cgroup: of, name: name.into() }
    }

    /// A second in which each pair grew by so many milliseconds.
    fn snapshot(pairs: &[(&str, &str, u64)]) -> Snapshot {
        let sample = |second: u64| {
            let pair = |(victim, culprit, ms): &(&str, &str, u64)| Contention {
                victim: party(victim),
                culprit: party(culprit),
                time: 7_000_000 + ms * 1_000_000 * second,
                inherited: 0,
            };
            let mut contentions: Vec<_> = pairs.iter().map(pair).collect();
            contentions.sort_by_key(|pair| (pair.victim.key, pair.culprit.key));
            let cgroup = |path: &&str| Cgroup {
                id: party(path).key,
                path: (*path).into(),
                identity: None,
                names: None,
                cpu: CpuStat::default(),
                resources: Arc::default(),
                sched: Some(Arc::new(Sched::default())),
                stalled: None,
                longest: None,
            };
            Sample {
                time: SystemTime::UNIX_EPOCH,
                uptime: Duration::from_secs(second),
                start: SystemTime::UNIX_EPOCH,
                host: Host::default(),
                cpus: Vec::new(),
                cgroups: CGROUPS.iter().chain(&["~other"]).map(cgroup).collect(),
                objectives: Vec::new(),
                commands: Vec::new(),
                starved: Vec::new(),
                contentions,
                tcp_flows: Vec::new(),
                processes: Vec::new(),
                memory: Vec::new(),
                netns: Vec::new(),
                long_stalls: Vec::new(),
                events: Vec::new(),
                threads: Vec::new(),
                sources: Vec::new(),
            }
        };
        Snapshot { was: Some(Arc::new(sample(0))), is: Arc::new(sample(1)) }
    }

    fn words(list: &List) -> String {
        let words: Vec<_> = list.blamed.iter().map(|blamed| format!("{} {:.0}", blamed.name, blamed.rate * 1e3)).collect();
        words.join(", ")
    }

    #[track_caller]
    fn check(snapshot: &Snapshot, path: &str, culprits: &str, victims: &str) {
        let blame = Blame::of(snapshot);
        let lists = blame.lists(party(path).key);
        assert_eq!((words(&lists.culprits).as_str(), words(&lists.victims).as_str()), (culprits, victims));
        assert_eq!(blame.culprits(party(path).key), lists.culprits);
    }

    #[test]
    fn containers_are_called_by_their_names() {
        let container = Container { id: "4f".into(), runtime: None, name: Some("web".into()), is_monitor: false };
        let identity = Arc::new(Identity { container: Some(container), ..Identity::default() });
        let mut snapshot = snapshot(&[("/a/x", "/b", 100), ("/a/x #7", "/a/x #8", 50), ("/b", "/a/x", 30)]);
        let mut sample = (*snapshot.is).clone();
        sample.cgroups.iter_mut().filter(|cgroup| &*cgroup.path == "/a/x").for_each(|x| x.identity = Some(identity.clone()));
        snapshot.is = Arc::new(sample);
        let key = |name| party(name).key;
        let blame = Blame::of(&snapshot);
        let named = |list: List| list.blamed.iter().map(|blamed| blamed.name.to_string()).collect::<Vec<_>>();
        let lists = blame.lists(key("/a/x"));
        assert_eq!(named(lists.culprits), ["/b", "web #8"]);
        assert_eq!(named(lists.victims), ["web #7", "/b"]);
        assert_eq!(named(blame.culprits(key("/b"))), ["web"]);
        let processes: Vec<_> =
            blame.processes().iter().map(|victim| format!("{} {}", victim.name, victim.behind.name)).collect();
        assert_eq!(processes, ["web #7 web #8"]);
        let titled = |label| titled(&snapshot.is, label).into_owned();
        assert_eq!(
            ["/a/x", "/a/x #7 sh", "/a", "~idle", "/gone #7 x"].map(titled),
            ["web", "web #7 sh", "/a", "~idle", "/gone #7 x"]
        );
    }

    #[test]
    fn leaves_name_each_other() {
        let snapshot =
            snapshot(&[("/a/x", "/b", 70), ("/a/x", "/a/x", 20), ("/a/x", "~idle", 10), ("/b", "/a/x", 5), ("/b", "/", 0)]);
        check(&snapshot, "/a/x", "/b 70, ~self 20, ~idle 10", "~self 20, /b 5");
        check(&snapshot, "/b", "/a/x 5", "/a/x 70");
        let list = Blame::of(&snapshot).culprits(party("/a/x").key);
        let (main, share) = list.main().unwrap();
        assert_eq!((&*main.name, main.kind, (share * 100.0).round()), ("/b", "cgroup", 70.0));
        assert_eq!(words(&list.without("cgroup")), "~self 20, ~idle 10");
    }

    #[test]
    fn a_parent_folds_what_is_inside() {
        // /a/z has died; a cgroup that only begins like it has not.
        let pairs = [
            ("/a/x", "/a/y", 40),
            ("/a/y", "/a/x", 30),
            ("/a", "/a/z", 8),
            ("/a", "/ab", 4),
            ("/a/x", "/b", 2),
            ("/b", "/a/y", 1),
        ];
        check(&snapshot(&pairs[..3]), "/a", "~self 78", "~self 78");
        check(&snapshot(&[pairs[3], pairs[4], pairs[5]]), "/a", "/ab 4, /b 2", "/b 1");
        check(&snapshot(&pairs[4..]), "/", "~self 3", "~self 3");
        let snapshot = snapshot(&pairs);
        let blame = Blame::of(&snapshot);
        assert_eq!(words(&blame.culprits_of_own(party("/a").key)), "/a/z 8, /ab 4");
        let inside = blame.inside(party("/a").key);
        let inside: Vec<_> = inside.iter().map(|victim| (&*victim.party.name, &*victim.behind.name)).collect();
        assert_eq!(inside, [("/a/x", "/a/y"), ("/a/y", "/a/x")]);
    }

    #[test]
    fn a_cgroup_in_focus_splits_by_process() {
        let pairs =
            [("/b #1", "/b #2", 60), ("/b #1", "/b #1", 5), ("/b #2", "/b #1", 30), ("/b #2", "/a/x", 10), ("/a/x", "/b #2", 3)];
        let snapshot = snapshot(&pairs);
        check(&snapshot, "/b", "/b #2 60, /b #1 35, /a/x 10", "/b #1 65, /b #2 30, /a/x 3");
        check(&snapshot, "/a/x", "/b #2 3", "/b #2 10");
        check(&snapshot, "/", "~self 108", "~self 108");
        let blame = Blame::of(&snapshot);
        let of = |victim: &Victim<'_>| (victim.party.name.to_string(), victim.behind.name.to_string());
        let processes: Vec<_> = blame.processes().iter().map(of).collect();
        assert_eq!(processes, [("/b #1".into(), "/b #2".into()), ("/b #2".into(), "/b #1".into())]);
        assert_eq!(blame.inside(party("/b").key).len(), 2);
    }

    #[test]
    fn the_root_has_all_victims() {
        let snapshot = snapshot(&[("~other", "/b", 3), ("~gone", "~idle", 2), ("/b", "~other", 1)]);
        check(&snapshot, "/", "~self 3, ~idle 2, ~other 1", "~self 3");
        check(&snapshot, "~other", "/b 3", "/b 1");
    }

    #[test]
    fn ties_go_by_name_and_what_went_backwards_is_unknown() {
        let mut made = snapshot(&[("/b", "/a/y", 5), ("/b", "/a/x", 5)]);
        check(&made, "/b", "/a/x 5, /a/y 5", "");
        Arc::make_mut(&mut made.is).contentions[0].time = 0;
        check(&made, "/b", "/a/y 5", "");
        let unknown = Snapshot { was: None, is: made.is.clone() };
        check(&unknown, "/b", "", "");
        assert!(Blame::of(&unknown).processes().is_empty());
    }

    #[test]
    fn what_the_dead_left_is_no_wait_of_now() {
        let mut made = snapshot(&[("/b", "/a/x", 5), ("/b", "/a/y", 1)]);
        let heir = &mut Arc::make_mut(&mut made.is).contentions[0];
        (heir.time, heir.inherited) = (heir.time + 900_000_000, 900_000_000);
        check(&made, "/b", "/a/x 5, /a/y 1", "");
        Arc::make_mut(made.was.as_mut().unwrap()).contentions.remove(0);
        check(&made, "/b", "/a/x 12, /a/y 1", "");
    }

    #[test]
    fn a_new_pair_began_at_nothing_if_the_hook_was_on() {
        let mut made = snapshot(&[("/b", "/a/x", 5), ("/b", "/a/y", 1)]);
        Arc::make_mut(made.was.as_mut().unwrap()).contentions.remove(0);
        check(&made, "/b", "/a/x 12, /a/y 1", "");
        let rates = |snapshot: &Snapshot| -> Vec<_> {
            snapshot.rows::<Contention>().map(|row| row.number(&contention::TIME, &[])).collect()
        };
        assert_eq!(rates(&made), [Some(0.012), Some(0.001)], "rows say the same");
        for cgroup in &mut Arc::make_mut(made.was.as_mut().unwrap()).cgroups {
            cgroup.sched = None;
        }
        check(&made, "/b", "", "");
        assert_eq!(rates(&made), [None, Some(0.001)]);
    }
}
