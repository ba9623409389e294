use observer_common::latency::bucket;

use super::super::tests::sample;
use super::super::{Thresholds, Watch};
use super::*;
use crate::model::cgroup::CpuStat;
use crate::model::objective::Target;
use crate::model::{Command, Longest, Sched, State};

const MS: u64 = 1_000_000;

fn slo(scope: Scope) -> Slo {
    Slo {
        name: "api".into(),
        scope,
        bound: Duration::from_millis(1),
        target: Target::of_millionths(990_000).unwrap(),
        window: Duration::from_secs(3600),
    }
}

fn of_cgroup(pattern: &str) -> Watch {
    Watch::new(Thresholds::default(), vec![slo(Scope::Cgroup(pattern.into()))])
}

/// Dispatches without a wait, with one of 10 µs, with one of 3 ms.
fn sched(unwaited: u64, short: u64, long: u64) -> Arc<Sched> {
    let mut latency = Histogram::default();
    latency.counts[bucket(10_000)] = short;
    latency.counts[bucket(3 * MS)] = long;
    latency.sum = 10_000 * short + 3 * MS * long;
    Arc::new(Sched { runs: unwaited + short + long, latency, ..Sched::default() })
}

fn cgroup(path: &str, id: u64, sched: Arc<Sched>) -> Cgroup {
    Cgroup {
        id: Key::v2(id),
        path: path.into(),
        identity: None,
        names: None,
        cpu: CpuStat::default(),
        resources: Arc::default(),
        sched: Some(sched),
        stalled: None,
        longest: None,
    }
}

/// A sample in which the hook is on.
fn seen(watch: &mut Watch, second: u64, cgroups: Vec<Cgroup>) -> Sample {
    let mut sample = sample(second, Vec::new(), Vec::new());
    sample.host.sched = Some(Arc::default());
    sample.cgroups = cgroups;
    watch.see(&mut sample);
    sample
}

fn counts(sample: &Sample) -> (u64, u64) {
    let dispatches = sample.objectives[0].dispatches.unwrap();
    (dispatches.met, dispatches.missed)
}

#[test]
fn totals_outlive_the_cgroup() {
    let mut watch = of_cgroup("/a");
    let other = || cgroup("/b", 9, sched(0, 0, 50));
    let mut see = |second, sched: Option<(u64, Arc<Sched>)>| {
        let found = sched.map(|(id, sched)| cgroup("/a", id, sched));
        counts(&seen(&mut watch, second, found.into_iter().chain([other()]).collect()))
    };
    assert_eq!(see(0, Some((7, sched(2, 3, 1)))), (5, 1), "what was counted since observer attached, a moment ago");
    assert_eq!(see(1, Some((7, sched(2, 5, 4)))), (7, 4));
    assert_eq!(see(2, None), (7, 4));
    assert_eq!(see(3, Some((8, sched(1, 0, 0)))), (8, 4), "the same path, another cgroup");
    assert_eq!(see(4, Some((8, sched(1, 0, 2)))), (8, 6));
}

#[test]
fn a_listing_that_failed_forgets_nobody() {
    let mut watch = of_cgroup("/a");
    let root = || Cgroup { id: Key::ROOT, ..cgroup("/", 1, sched(0, 0, 90)) };
    let a = |sched| cgroup("/a", 7, sched);
    assert_eq!(counts(&seen(&mut watch, 0, vec![root(), a(sched(0, 10, 1))])), (10, 1));
    assert_eq!(counts(&seen(&mut watch, 1, vec![root()])), (10, 1));
    assert_eq!(counts(&seen(&mut watch, 2, vec![root(), a(sched(0, 12, 2))])), (12, 2), "what came meanwhile, once");
}

#[test]
fn all_that_fit_a_pattern_count_together() {
    let mut watch = of_cgroup("/pods/*");
    let pods = |a, b| {
        vec![cgroup("/pods", 6, sched(0, 0, a + b)), cgroup("/pods/a", 7, sched(0, 0, a)), cgroup("/pods/b", 8, sched(0, b, 0))]
    };
    let first = seen(&mut watch, 0, pods(1, 2));
    assert_eq!((counts(&first), first.objectives[0].members), ((2, 1), Some(Members { counted: 2, uncounted: 0 })));
    assert_eq!(counts(&seen(&mut watch, 1, pods(4, 9))), (9, 4));
}

#[test]
fn the_budget_is_that_of_the_window() {
    let mut watch = of_cgroup("/a");
    let mut budget = |second, met, missed| {
        let sample = seen(&mut watch, second, vec![cgroup("/a", 7, sched(0, met, missed))]);
        sample.objectives[0].budget.map(|budget| (budget * 1e6).round() / 1e6)
    };
    assert_eq!(budget(0, 0, 0), None, "nothing was dispatched");
    assert_eq!(budget(10, 1_000, 0), Some(1.0));
    assert_eq!(budget(20, 1_995, 5), Some(0.75), "5 of the 20 that 1% of 2,000 are");
    assert_eq!(budget(30, 1_995, 105), Some(-4.0));
    assert_eq!(budget(3_000, 100_000 - 105, 105), Some(0.895));
    // The hour after them has none.
    assert_eq!(budget(3_631, 101_000 - 105, 105), Some(1.0));
    assert_eq!(budget(9_000, 101_000 - 105, 105), None);
}

fn told(sample: &Sample) -> Vec<String> {
    let line =
        |event: &crate::model::Event| format!("{} {} {}: {}", event.id, event.state.name(), event.severity.name(), event.text);
    sample.events.iter().map(line).collect()
}

#[test]
fn a_budget_that_burns_is_told_and_its_end_soon() {
    let mut watch = of_cgroup("/a");
    let (mut met, mut missed) = (0, 0);
    let mut events = Vec::new();
    for second in 0..400 {
        met += 93;
        missed += match second {
            // Seven times what may miss, then thirty times.
            100..200 => 7,
            200..220 => 40,
            _ => 0,
        };
        let longest = Longest { time: 30 * MS, tid: 4_242, comm: r"tr\x1bain".into(), culprit: "/b".into() };
        let a = Cgroup { longest: (missed > 0).then_some(longest), ..cgroup("/a", 7, sched(0, met, missed)) };
        let sample = seen(&mut watch, second, vec![a]);
        events.extend(told(&sample).into_iter().map(|event| format!("{second} {event}")));
    }
    // It opens when a minute of it has burnt; the budget of what was seen of the hour is spent six minutes after the start.
    let said: Vec<_> = events.iter().map(|event| event.split(": ").next().unwrap()).collect();
    assert_eq!(
        said,
        [
            "150 latency_objective-1 open warn",
            "215 latency_objective-1 change critical",
            "225 latency_objective-1 close critical",
            "360 latency_objective-2 open warn"
        ],
        "{events:#?}"
    );
    assert_eq!(
        events[1].split_once(": ").unwrap().1,
        "objective api: 14.52% of the dispatches of /a within 1m waited longer than 1ms, 1% may: the budget of 1h is spent; the longest wait, \
         30ms, was that of tr\\x1bain (thread 4242) behind /b"
    );
}

#[test]
fn a_few_misses_tell_nothing() {
    let mut watch = of_cgroup("/a");
    for second in 0..1_000 {
        let sample = seen(&mut watch, second, vec![cgroup("/a", 7, sched(0, second / 10, (second / 10).min(9)))]);
        assert_eq!(told(&sample), Vec::<String>::new(), "{second}");
    }
}

#[test]
fn history_keeps_no_more_than_the_alert_needs() {
    let window = Duration::from_secs(3600);
    let mut history = History { window, marks: VecDeque::new() };
    for tenth in 0..200_000u64 {
        let now = Duration::from_millis(tenth * 100);
        history.push(now, Dispatches { met: tenth, ..Dispatches::default() });
        assert!(history.marks.len() <= SHORT as usize + 2);
    }
    let now = Duration::from_millis(19_999_900);
    let age = |within| 199_999 - history.before(now, Duration::from_secs(within)).met;
    // In tenths of a second; a mark is five seconds from the next.
    assert_eq!([age(5), age(60), age(3600)].map(|age| age / 50), [1, 12, 720]);
    assert_eq!(history.seen(now).as_secs(), 3_604);
}

#[test]
fn health_says_what_is_not_measured() {
    let health =
        |sample: &Sample| sample.sources.iter().find(|source| source.name == "objectives").map(|source| source.state.clone());
    let mut watch = of_cgroup("/a");
    let mut off = sample(0, Vec::new(), Vec::new());
    watch.see(&mut off);
    assert_eq!(off.objectives[0].dispatches, None);
    assert!(matches!(health(&off), Some(State::Off(why)) if why.contains("sched")));
    let none = seen(&mut watch, 1, Vec::new());
    assert_eq!((counts(&none), health(&none)), ((0, 0), Some(State::Degraded("api: there is no cgroup /a now".into()))));
    assert_eq!(health(&seen(&mut watch, 2, vec![cgroup("/a", 7, sched(0, 0, 0))])), Some(State::On));
    let mut nothing = Watch::new(Thresholds::default(), Vec::new());
    assert_eq!(health(&seen(&mut nothing, 0, Vec::new())), None, "nobody asked");
}

#[test]
fn commands_count_what_the_collector_added_up() {
    let mut watch = Watch::new(Thresholds::default(), vec![slo(Scope::Command("nginx".into()))]);
    let mut see = |second, commands: Vec<Command>| {
        let mut sample = sample(second, Vec::new(), Vec::new());
        sample.host.sched = Some(Arc::default());
        sample.commands = commands;
        watch.see(&mut sample);
        (sample.objectives[0].clone(), sample.sources[1].state.clone())
    };
    let command = |runs, counted, uncounted| {
        let latency = sched(0, 0, runs / 2).latency.clone();
        vec![Command { name: "nginx".into(), runs, latency, processes: Members { counted, uncounted }, crowded: false }]
    };
    let (row, state) = see(0, Vec::new());
    assert_eq!((row.dispatches, row.members), (None, None));
    assert!(matches!(state, State::Degraded(why) if why.contains("task iterator")));
    let (row, state) = see(1, command(10, 0, 3));
    assert_eq!(row.dispatches, Some(Dispatches { met: 5, missed: 5, interpolated: 0 }));
    assert_eq!(state, State::Degraded("api: 3 of 3 processes are not counted apart from their cgroup".into()));
    assert_eq!(see(2, command(20, 3, 0)).1, State::On);
    let mut crowded = command(20, 3, 0);
    crowded[0].crowded = true;
    assert!(matches!(see(2, crowded).1, State::Degraded(why) if why.contains("told apart; use a shorter interval")));
    let (row, state) = see(3, command(20, 0, 0));
    assert_eq!(row.dispatches, Some(Dispatches { met: 10, missed: 10, interpolated: 0 }));
    assert_eq!(state, State::Degraded("api: there is no process nginx now".into()));
}
