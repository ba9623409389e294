//! From facts of the scheduler to what they mean; pure.

use super::scheduler::{Frequency, Scheduler, Slice};
use crate::model::Setting;

/// Every setting, what differs most from the usual first.
pub fn settings(facts: &Scheduler) -> Vec<Setting> {
    vec![
        extension(facts),
        preemption(facts),
        slice(facts),
        realtime(facts),
        autogroup(facts),
        isolated(facts),
        nohz_full(facts),
        core_scheduling(facts),
        smt(facts),
        frequency(facts),
        thermal(facts),
        namespace(facts),
    ]
}

fn setting(name: &'static str, value: Option<String>, meaning: Option<&str>) -> Setting {
    Setting { name, value, meaning: meaning.map(str::to_owned) }
}

/// A task in a shared queue of a BPF scheduler is on the run queue of some CPU; when it is given to another one, the kernel takes it off there as
/// for any other move (`move_remote_task_to_local_dsq`).
fn extension(facts: &Scheduler) -> Setting {
    const MEANS: &str = "a BPF scheduler decides who runs: a wait that ends on another CPU than it began is ~migrated up to the move and in no \
                         latency histogram, and weights and quotas hold only as far as it honours them";
    let name = facts.extension_name.as_deref().unwrap_or("a scheduler without a name");
    let active = facts.extension.as_deref().is_some_and(|state| state != "disabled");
    let value = match facts.extension.as_deref() {
        Some("enabled") if facts.extension_has_all == Some(false) => Some(format!("{name}, for tasks that ask for it")),
        Some("enabled") => Some(name.to_owned()),
        Some("disabled") => Some("none".to_owned()),
        Some(state) => Some(format!("{name}, {state}")),
        None => None,
    };
    setting("sched_ext", value, active.then_some(MEANS))
}

/// The model in force is told to root alone. Of what can be changed at run time the build tells only that it can.
fn preemption(facts: &Scheduler) -> Setting {
    const LATE: &str =
        "a task inside the kernel keeps its CPU until it offers it: others wait for that long, and it is the culprit";
    const LAZY: &str = "a task of the fair class keeps its CPU until the next tick, unless a real-time task wants it";
    const THREADS: &str = "most interrupt handlers are threads: their time is run time of the cgroup /, not time of interrupts";
    let in_force = facts.preempt.as_deref().and_then(|text| text.split_once('(')?.1.split_once(')'));
    let version = facts.version.as_deref().map(|version| version.split(' ').collect::<Vec<_>>());
    let has = |word: &str| version.as_ref().is_some_and(|words| words.contains(&word));
    let value = match in_force {
        _ if has("PREEMPT_RT") => Some("real-time (PREEMPT_RT)"),
        Some((model, _)) => Some(model),
        None if has("PREEMPT_DYNAMIC") => Some("dynamic; debugfs tells root which one is in force"),
        None if has("PREEMPT") => Some("full"),
        None => version.as_ref().map(|_| "none or voluntary"),
    };
    let meaning = match value {
        Some("none" | "voluntary" | "none or voluntary") => Some(LATE),
        Some("lazy") => Some(LAZY),
        Some(model) if model.starts_with("real-time") => Some(THREADS),
        _ => None,
    };
    setting("preemption", value.map(str::to_owned), meaning)
}

fn slice(facts: &Scheduler) -> Setting {
    let ms = |ns: u64| ns as f64 / 1e6;
    let value = facts.slice.map(|slice| match slice {
        Slice::Eevdf(ns) => format!("{:.2} ms (EEVDF)", ms(ns)),
        Slice::Cfs(ns) => format!("{:.2} ms at least (CFS)", ms(ns)),
    });
    setting("slice", value, None)
}

fn realtime(facts: &Scheduler) -> Setting {
    const MEANS: &str = "real-time tasks can keep all others waiting for as long as they run, but for what a kernel with a fair server (in \
                         debugfs: sched/fair_server) gives those";
    let Some((runtime, period)) = facts.realtime else { return setting("realtime", None, None) };
    match u64::try_from(runtime) {
        Ok(runtime) if runtime < period => {
            setting("realtime", Some(format!("{runtime} µs of each {period} µs for real-time tasks")), None)
        }
        _ => setting("realtime", Some("no limit for real-time tasks".to_owned()), Some(MEANS)),
    }
}

fn autogroup(facts: &Scheduler) -> Setting {
    const MEANS: &str = "tasks in the root of the cpu controller share the CPU by session first: who has many tasks in one session waits longer, \
                         and nice counts only within a session";
    setting("autogroup", facts.autogroup.map(on), facts.autogroup.filter(|on| *on).map(|_| MEANS))
}

fn isolated(facts: &Scheduler) -> Setting {
    const MEANS: &str = "no task is moved there or away by itself: tasks wait on these CPUs although others are idle, and their idle time is \
                         room for nobody else";
    let lists = [(&facts.isolated, ""), (&facts.partitions, " by cpuset")];
    let known = lists.iter().any(|(list, _)| list.is_some());
    let told = lists.iter().filter_map(|(list, how)| Some((list.as_ref().filter(|list| !list.is_empty())?, how)));
    let parts: Vec<String> = told.map(|(list, how)| format!("CPUs {list}{how}")).collect();
    let any = !parts.is_empty();
    let value = if any { parts.join(", ") } else { "none".to_owned() };
    setting("isolated", known.then_some(value), any.then_some(MEANS))
}

fn nohz_full(facts: &Scheduler) -> Setting {
    const MEANS: &str = "no tick there while one task runs: what /proc/stat has of these CPUs comes late; waits and runs need no ticks, but \
                         membarrier(2) does not work here and each table is read twice";
    let any = facts.nohz_full.as_ref().is_some_and(|list| !list.is_empty());
    let value = facts.nohz_full.as_ref().map(|list| if any { format!("CPUs {list}") } else { "none".to_owned() });
    setting("nohz_full", value, any.then_some(MEANS))
}

fn core_scheduling(facts: &Scheduler) -> Setting {
    const MEANS: &str =
        "a CPU is kept idle while its sibling runs a task of another cookie: who waits for that has ~idle as its culprit";
    let value = facts.force_idle.map(|us| match us {
        0 => "never kept a CPU idle".to_owned(),
        us => format!("kept CPUs idle for {:.2} s since boot", us as f64 / 1e6),
    });
    setting("core_scheduling", value, facts.force_idle.filter(|us| *us > 0).map(|_| MEANS))
}

fn smt(facts: &Scheduler) -> Setting {
    const MEANS: &str =
        "a task is slowed down by what runs on the other CPU of its core: that is inside worked, as no clock tells it apart";
    let control = facts.smt_control.as_ref().map(|control| format!(" (control: {control})")).unwrap_or_default();
    let value = facts.smt.map(|active| format!("{}{control}", on(active)));
    setting("smt", value, facts.smt.filter(|active| *active).map(|_| MEANS))
}

/// What a lower frequency does to the numbers, whatever its cause.
const SLOWER: &str = "run time is wall time: at a lower frequency the same work takes more of it, and shows as worked";

fn frequency(facts: &Scheduler) -> Setting {
    let ghz = |khz: u64| khz as f64 / 1e6;
    let share = |policy: &Frequency| policy.allowed as f64 / policy.highest.max(1) as f64;
    let Some(policies) = &facts.frequencies else { return setting("frequency", None, None) };
    let limited = policies.iter().filter(|policy| policy.allowed < policy.highest);
    let count = limited.clone().count();
    let Some(worst) = limited.min_by(|a, b| share(a).total_cmp(&share(b))) else {
        return setting("frequency", Some("up to the highest".to_owned()), None);
    };
    let value = format!(
        "{count} of {} policies limited, one to {:.2} of {:.2} GHz",
        policies.len(),
        ghz(worst.allowed),
        ghz(worst.highest)
    );
    setting("frequency", Some(value), Some(SLOWER))
}

fn thermal(facts: &Scheduler) -> Setting {
    let value = facts.throttled.map(|throttled| match throttled {
        (0, 0) => "never slowed by heat".to_owned(),
        (cores, packages) => format!("slowed by heat since boot: cores {cores} times, packages {packages} times"),
    });
    setting("thermal", value, facts.throttled.filter(|counts| *counts != (0, 0)).map(|_| SLOWER))
}

fn namespace(facts: &Scheduler) -> Setting {
    let own = facts.namespace.as_ref().and_then(|namespace| namespace.as_ref().err());
    let value = facts.namespace.as_ref().map(|namespace| if namespace.is_ok() { "the machine's" } else { "one of its own" });
    setting("pid_namespace", value.map(str::to_owned), own.map(String::as_str))
}

fn on(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a setting, and the beginning of what it means.
    #[track_caller]
    fn check(facts: &Scheduler, name: &str, value: &str, meaning: &str) {
        let setting = settings(facts).into_iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(setting.value.as_deref().unwrap_or("–"), value);
        let means = setting.meaning.unwrap_or_default();
        assert!(means.starts_with(meaning) && means.is_empty() == meaning.is_empty(), "{means}");
    }

    fn none() -> Scheduler {
        Scheduler::default()
    }

    #[test]
    fn nothing_is_known() {
        for setting in settings(&none()) {
            assert_eq!((setting.value, setting.meaning), (None, None), "{}", setting.name);
        }
    }

    #[test]
    fn a_bpf_scheduler() {
        let with = |state: &str, all| Scheduler {
            extension: Some(state.into()),
            extension_name: Some("lavd_1.0".into()),
            extension_has_all: all,
            ..none()
        };
        check(&with("enabled", Some(true)), "sched_ext", "lavd_1.0", "a BPF scheduler decides");
        check(&with("enabled", Some(false)), "sched_ext", "lavd_1.0, for tasks that ask for it", "a BPF scheduler");
        check(&with("disabling", None), "sched_ext", "lavd_1.0, disabling", "a BPF scheduler");
        check(&with("disabled", Some(false)), "sched_ext", "none", "");
        check(&Scheduler { extension: Some("enabled".into()), ..none() }, "sched_ext", "a scheduler without a name", "a BPF");
    }

    #[test]
    fn preemption_models() {
        let with = |version: &str, preempt: Option<&str>| Scheduler {
            version: Some(version.into()),
            preempt: preempt.map(str::to_owned),
            ..none()
        };
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.1";
        check(&with(dynamic, Some("none voluntary (full)")), "preemption", "full", "");
        check(&with(dynamic, Some("none (voluntary) full")), "preemption", "voluntary", "a task inside the kernel");
        check(&with(dynamic, Some("full (lazy)")), "preemption", "lazy", "a task of the fair class");
        check(&with(dynamic, None), "preemption", "dynamic; debugfs tells root which one is in force", "");
        check(&with("#1 SMP PREEMPT Fri", None), "preemption", "full", "");
        check(&with("#1 SMP Debian 5.10", None), "preemption", "none or voluntary", "a task inside the kernel");
        check(
            &with("#1 SMP PREEMPT_RT Fri", Some("(full) lazy")),
            "preemption",
            "real-time (PREEMPT_RT)",
            "most interrupt handlers",
        );
    }

    #[test]
    fn cpus_that_are_left_alone() {
        let with = |isolated: Option<&str>, partitions: Option<&str>| Scheduler {
            isolated: isolated.map(str::to_owned),
            partitions: partitions.map(str::to_owned),
            ..none()
        };
        check(&with(Some(""), None), "isolated", "none", "");
        check(&with(Some(""), Some("")), "isolated", "none", "");
        check(&with(Some("2-3"), Some("")), "isolated", "CPUs 2-3", "no task is moved");
        check(&with(Some("2-3"), Some("5")), "isolated", "CPUs 2-3, CPUs 5 by cpuset", "no task");
        check(&Scheduler { nohz_full: Some("1-3".into()), ..none() }, "nohz_full", "CPUs 1-3", "no tick there");
        check(&Scheduler { nohz_full: Some(String::new()), ..none() }, "nohz_full", "none", "");
    }

    #[test]
    fn cores_and_frequencies() {
        check(&Scheduler { force_idle: Some(0), ..none() }, "core_scheduling", "never kept a CPU idle", "");
        check(
            &Scheduler { force_idle: Some(1_500_000), ..none() },
            "core_scheduling",
            "kept CPUs idle for 1.50 s since boot",
            "a CPU is kept idle",
        );
        let smt = |active, control: &str| Scheduler { smt: Some(active), smt_control: Some(control.into()), ..none() };
        check(&smt(true, "on"), "smt", "on (control: on)", "a task is slowed down");
        check(&smt(false, "notsupported"), "smt", "off (control: notsupported)", "");
        let at = |highest, allowed| Frequency { highest, allowed };
        let with = |policies: &[Frequency]| Scheduler { frequencies: Some(policies.to_vec()), ..none() };
        check(&with(&[at(3_600_000, 3_600_000)]), "frequency", "up to the highest", "");
        check(
            &with(&[at(3_600_000, 3_600_000), at(3_600_000, 1_200_000), at(2_000_000, 1_800_000)]),
            "frequency",
            "2 of 3 policies limited, one to 1.20 of 3.60 GHz",
            "run time is wall time",
        );
        check(&Scheduler { throttled: Some((0, 0)), ..none() }, "thermal", "never slowed by heat", "");
        check(
            &Scheduler { throttled: Some((3, 0)), ..none() },
            "thermal",
            "slowed by heat since boot: cores 3 times, packages 0 times",
            "run time is wall time",
        );
    }

    #[test]
    fn limits_and_groups() {
        let limit = |runtime| Scheduler { realtime: Some((runtime, 1_000_000)), ..none() };
        check(&limit(950_000), "realtime", "950000 µs of each 1000000 µs for real-time tasks", "");
        check(&limit(-1), "realtime", "no limit for real-time tasks", "real-time tasks can keep");
        // What Linux 7.2 begins with.
        check(&limit(1_000_000), "realtime", "no limit for real-time tasks", "real-time tasks can keep");
        check(&Scheduler { autogroup: Some(true), ..none() }, "autogroup", "on", "tasks in the root");
        check(&Scheduler { autogroup: Some(false), ..none() }, "autogroup", "off", "");
        check(&Scheduler { slice: Some(Slice::Eevdf(2_800_000)), ..none() }, "slice", "2.80 ms (EEVDF)", "");
        check(&Scheduler { slice: Some(Slice::Cfs(3_000_000)), ..none() }, "slice", "3.00 ms at least (CFS)", "");
        check(&Scheduler { namespace: Some(Ok(())), ..none() }, "pid_namespace", "the machine's", "");
        check(&Scheduler { namespace: Some(Err("why".into())), ..none() }, "pid_namespace", "one of its own", "why");
    }
}
