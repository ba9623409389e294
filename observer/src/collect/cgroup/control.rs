//! Settings of a cgroup's controllers, and what they count beside CPU time and memory: `cpu.weight`, `cpuset.*`, `pids.*`, `io.stat` and others.
//!
//! As with memory, each parser sets the fields that its file tells; what is not what the kernel writes stays unknown and is told.

use super::memory::{fields, number, threshold};
use crate::collect::proc::{Malformed, cpulist};
use crate::model::cgroup::Resources;
use crate::model::cgroup::control::{Io, Kind, Operations};

/// `cpu.stat.local`: v2 in microseconds, v1 in nanoseconds.
pub fn local(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    let (mut us, mut ns) = (None, None);
    let result = fields(text, &mut [("throttled_usec", &mut us), ("throttled_time", &mut ns)]);
    to.throttled_tasks = ns.or(us.and_then(nanoseconds));
    result
}

/// `cpu.weight`.
pub fn weight(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    to.settings.weight = Some(number(text)?);
    Ok(())
}

/// v1 `cpu.shares`, where 1024 is what a weight of 100 is to v2; rounded as the kernel rounds.
pub fn shares(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    let shares = number(text)?;
    let scaled = shares.checked_mul(100).ok_or_else(|| Malformed::expected("a number", text))?;
    to.settings.weight = Some((scaled + 512) / 1024);
    Ok(())
}

/// `cpu.max.burst`; v1 `cpu.cfs_burst_us`. In microseconds.
pub fn burst(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    let burst = nanoseconds(number(text)?);
    to.settings.burst = Some(burst.ok_or_else(|| Malformed::expected("a number of microseconds", text))?);
    Ok(())
}

/// `cpuset.cpus.effective`.
pub fn cpus(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    to.settings.cpus = Some(cpulist::parse(text)?.into());
    Ok(())
}

/// `pids.current`.
pub fn pids(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    to.pids = Some(number(text)?);
    Ok(())
}

/// `pids.max`.
pub fn pids_limit(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    to.settings.pids_limit = threshold(text)?;
    Ok(())
}

/// `pids.events`.
pub fn pids_events(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    fields(text, &mut [("max", &mut to.settings.pids_refused)])
}

/// `cgroup.events`.
pub fn events(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    let mut frozen = None;
    let result = fields(text, &mut [("frozen", &mut frozen)]);
    to.settings.is_frozen = frozen.map(|frozen| frozen != 0);
    result
}

/// `cgroup.type`.
pub fn kind(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    let text = text.trim_end();
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    to.settings.kind = Some(kind.ok_or_else(|| Malformed::expected("a type of cgroup", text))?);
    Ok(())
}

/// `io.stat`, `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`: sums over the devices. A device without traffic may stand on a line of
/// its own, without a number.
pub fn io(text: &str, to: &mut Resources) -> Result<(), Malformed> {
    let mut result = Ok(());
    let mut io = Io { bytes: Operations::default(), operations: Operations::default() };
    for word in text.split_ascii_whitespace() {
        let Some((name, value)) = word.split_once('=') else { continue };
        let sum = match name {
            "rbytes" => &mut io.bytes.read,
            "wbytes" => &mut io.bytes.write,
            "dbytes" => &mut io.bytes.discard,
            "rios" => &mut io.operations.read,
            "wios" => &mut io.operations.write,
            "dios" => &mut io.operations.discard,
            _ => continue,
        };
        match number(value) {
            // Both are below half of what 64 bits hold.
            Ok(value) => *sum = Some(sum.unwrap_or(0).saturating_add(value)),
            Err(_) if result.is_err() => {}
            Err(_) => result = Err(Malformed::expected("a number", word)),
        }
    }
    to.io = io;
    result
}

fn nanoseconds(us: u64) -> Option<u64> {
    us.checked_mul(1000).filter(|ns| *ns <= u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::cgroup::control::Settings;

    type Parse = fn(&str, &mut Resources) -> Result<(), Malformed>;

    fn parsed(parse: Parse, text: &str) -> (Resources, Option<String>) {
        let mut known = Resources::default();
        let problem = parse(text, &mut known).err().map(|malformed| malformed.to_string());
        (known, problem)
    }

    #[track_caller]
    fn check(parse: Parse, text: &str, expected: Resources) {
        assert_eq!(parsed(parse, text), (expected, None), "{text}");
    }

    #[track_caller]
    fn set(parse: Parse, text: &str, settings: Settings) {
        check(parse, text, Resources { settings, ..Resources::default() });
    }

    /// The rest stays what it was: unknown.
    #[track_caller]
    fn wrong(parse: Parse, text: &str, expected: &str) {
        assert_eq!(parsed(parse, text), (Resources::default(), Some(expected.to_owned())), "{text}");
    }

    #[test]
    fn settings() {
        let none = Settings::default;
        set(weight, "100\n", Settings { weight: Some(100), ..none() });
        for (shares_are, weight) in [(2, 0), (10, 1), (1024, 100), (512, 50), (262_144, 25_600)] {
            set(shares, &format!("{shares_are}\n"), Settings { weight: Some(weight), ..none() });
        }
        set(burst, "20000\n", Settings { burst: Some(20_000_000), ..none() });
        set(cpus, "0-2,5\n", Settings { cpus: Some([0, 1, 2, 5].into()), ..none() });
        set(cpus, "\n", Settings { cpus: Some([].into()), ..none() });
        set(pids_limit, "max\n", none());
        set(pids_limit, "38\n", Settings { pids_limit: Some(38), ..none() });
        set(pids_events, "max 4\n", Settings { pids_refused: Some(4), ..none() });
        set(events, "populated 1\nfrozen 0\n", Settings { is_frozen: Some(false), ..none() });
        set(events, "populated 1\nfrozen 1\n", Settings { is_frozen: Some(true), ..none() });
        set(events, "populated 1\n", none());
        for text in ["domain", "domain threaded", "domain invalid", "threaded"] {
            let known = parsed(kind, &format!("{text}\n"));
            assert_eq!((known.0.settings.kind.unwrap().name(), known.1), (text, None));
        }
    }

    #[test]
    fn what_is_counted() {
        let tasks = |throttled_tasks| Resources { throttled_tasks, ..Resources::default() };
        check(local, "throttled_usec 7\n", tasks(Some(7_000)));
        check(local, "throttled_time 7\n", tasks(Some(7)));
        check(local, "", tasks(None));
        check(pids, "5\n", Resources { pids: Some(5), ..Resources::default() });
        let io_of = |bytes: [Option<u64>; 3], operations: [Option<u64>; 3]| {
            let of = |[read, write, discard]: [Option<u64>; 3]| Operations { read, write, discard };
            Resources { io: Io { bytes: of(bytes), operations: of(operations) }, ..Resources::default() }
        };
        let text = "8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:0 rbytes=5 wbytes=0 rios=1 wios=0 dbytes=7 dios=3 cost.usage=9\n";
        check(io, text, io_of([Some(15), Some(20), Some(7)], [Some(2), Some(2), Some(3)]));
        check(io, "253:0 \n", io_of([None; 3], [None; 3]));
        check(io, "", io_of([None; 3], [None; 3]));
    }

    #[test]
    fn nonsense_costs_its_own_field() {
        wrong(weight, "", r#"expected a number, found """#);
        wrong(weight, "-1", r#"expected a number, found "-1""#);
        wrong(shares, "9223372036854775807", r#"expected a number, found "9223372036854775807""#);
        wrong(burst, "9223372036854775807", r#"expected a number of microseconds, found "9223372036854775807""#);
        wrong(cpus, "0-", r#"expected an ascending list of CPUs, found "0-""#);
        wrong(kind, "domain\x1b[2J", r#"expected a type of cgroup, found "domain\x1b[2J""#);
        wrong(pids_limit, "many", r#"expected a number, found "many""#);
        wrong(pids_events, "max x", r#"expected a number, found "max x""#);
        wrong(events, "frozen x", r#"expected a number, found "frozen x""#);
        let (known, problem) = parsed(io, "8:0 rbytes=5 wbytes=18446744073709551615 rios=2");
        assert_eq!((known.io.bytes.read, known.io.bytes.write, known.io.operations.read), (Some(5), None, Some(2)));
        assert_eq!(problem.unwrap(), r#"expected a number, found "wbytes=18446744073709551615""#);
    }

    proptest! {
        #[test]
        fn never_panics(text: String, line in "(max|frozen|8:0 [rwd](bytes|ios)=|throttled_usec )[0-9+-]{0,21}( [rwd]ios=[0-9]{0,20}){0,3}") {
            for parse in [local, weight, shares, burst, cpus, pids, pids_limit, pids_events, events, kind, io] {
                let _ = (parse(&text, &mut Resources::default()), parse(&line, &mut Resources::default()));
            }
        }
    }
}
