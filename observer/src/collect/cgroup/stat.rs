//! The small files of a cgroup: `cpu.stat` of both versions, `cpu.max`, `cpu.cfs_*_us`, `cpuacct.usage`.

use crate::model::cgroup::CpuStat;
use crate::model::text;

/// What is wrong with a file: one line, hostile bytes escaped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected {expected}, found \"{found}\"")]
pub struct Malformed {
    expected: &'static str,
    found: String,
}

/// v2 `cpu.stat` in microseconds and v1 `cpu.stat` in nanoseconds: the names differ where the units do, so that one table serves both.
/// `limit` stays unknown. The lines of the periods are missing where the v2 cgroup has no `cpu` controller. A line that is not what the
/// kernel writes leaves its field unknown; the first such is told.
pub fn cpu_stat(text: &[u8]) -> (CpuStat, Option<Malformed>) {
    let mut stat = CpuStat::default();
    let mut wrong = None;
    for line in text.split(|byte| *byte == b'\n') {
        let Some(space) = line.iter().position(|byte| *byte == b' ') else { continue };
        let (name, value) = (&line[..space], &line[space + 1..]);
        let (field, scale) = match name {
            b"usage_usec" => (&mut stat.usage, 1_000),
            b"user_usec" => (&mut stat.user, 1_000),
            b"system_usec" => (&mut stat.system, 1_000),
            b"nice_usec" => (&mut stat.nice, 1_000),
            b"core_sched.force_idle_usec" => (&mut stat.force_idle, 1_000),
            b"nr_bursts" => (&mut stat.bursts, 1),
            b"burst_usec" => (&mut stat.burst, 1_000),
            b"burst_time" => (&mut stat.burst, 1),
            b"nr_periods" => (&mut stat.periods, 1),
            b"nr_throttled" => (&mut stat.throttled_periods, 1),
            b"throttled_usec" => (&mut stat.throttled, 1_000),
            b"throttled_time" => (&mut stat.throttled, 1),
            _ => continue,
        };
        // Half of what 64 bits hold, so that sums of fields cannot overflow.
        let scaled = number(value).and_then(|value| value.checked_mul(scale)).filter(|value| *value <= u64::MAX / 2);
        *field = scaled;
        if scaled.is_none() {
            wrong.get_or_insert_with(|| malformed("a counter", line));
        }
    }
    (stat, wrong)
}

/// v2 `cpu.max`, `$MAX $PERIOD`: the limit in CPUs, `None` without one.
pub fn cpu_max(text: &[u8]) -> Result<Option<f64>, Malformed> {
    let wrong = || malformed("a quota and a period", text);
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let quota = words.next().ok_or_else(wrong)?;
    if quota == b"max" {
        return Ok(None);
    }
    let period = words.next().and_then(number).ok_or_else(wrong)?;
    cpus(number(quota).ok_or_else(wrong)?, period).ok_or_else(wrong).map(Some)
}

/// v1 `cpu.cfs_quota_us`: microseconds each period, `None` (−1 in the file) without a limit.
pub fn quota(text: &[u8]) -> Result<Option<u64>, Malformed> {
    match text.trim_ascii() {
        b"-1" => Ok(None),
        word => number(word).map(Some).ok_or_else(|| malformed("a quota", text)),
    }
}

/// A file with one number: `cpu.cfs_period_us`, `cpuacct.usage`.
pub fn count(text: &[u8]) -> Result<u64, Malformed> {
    number(text).filter(|value| *value <= u64::MAX / 2).ok_or_else(|| malformed("a number", text))
}

/// v2 `cgroup.stat`: how many cgroups there are below.
pub fn descendants(text: &[u8]) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"nr_descendants ")).and_then(number)
}

/// A limit in CPUs; `None` when the period is none.
pub fn cpus(quota: u64, period: u64) -> Option<f64> {
    (period > 0).then(|| quota as f64 / period as f64)
}

/// The tighter of two limits.
pub fn tighter<T: PartialOrd>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other < one { other } else { one }),
        (one, other) => one.or(other),
    }
}

fn number(word: &[u8]) -> Option<u64> {
    let word = word.trim_ascii();
    // `parse` would take a plus sign, which the kernel never writes.
    if word.first() == Some(&b'+') { None } else { std::str::from_utf8(word).ok()?.parse().ok() }
}

fn malformed(expected: &'static str, found: &[u8]) -> Malformed {
    let found = found.trim_ascii();
    Malformed { expected, found: text::escape(&found[..found.len().min(40)]).into_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_stats() {
        let check = |text: &str, expected: CpuStat| assert_eq!(cpu_stat(text.as_bytes()), (expected, None));
        let usage = CpuStat { usage: Some(30_000), user: Some(20_000), system: Some(10_000), ..CpuStat::default() };
        check("usage_usec 30\nuser_usec 20\nsystem_usec 10\n", usage);
        let usage = CpuStat { nice: Some(2_000), force_idle: Some(4_000), ..usage };
        check("usage_usec 30\nuser_usec 20\nsystem_usec 10\nnice_usec 2\ncore_sched.force_idle_usec 4\n", usage);
        let usage = CpuStat { nice: None, force_idle: None, ..usage };
        let periods = CpuStat { bursts: Some(1), burst: Some(7_000), periods: Some(8), throttled_periods: Some(3), ..usage };
        check(
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 8\nnr_throttled 3\nthrottled_usec 500\nnr_bursts 1\nburst_usec 7\n",
            CpuStat { throttled: Some(500_000), ..periods },
        );
        check(
            "nr_periods 8\nnr_throttled 3\nthrottled_time 500\nnr_bursts 1\nburst_time 7000\n",
            CpuStat { throttled: Some(500), usage: None, user: None, system: None, ..periods },
        );
        check("", CpuStat::default());
        check("no_value\n\nnew_field x\n", CpuStat::default());
    }

    #[test]
    fn limits() {
        let max = |text: &str| cpu_max(text.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(max("max 100000\n"), Ok(None));
        assert_eq!(max("50000 100000\n"), Ok(Some(0.5)));
        assert_eq!(max("200000 100000"), Ok(Some(2.0)));
        for wrong in ["", "50000", "50000 0", "x 100000", "-1 100000", "+1 1"] {
            assert_eq!(max(wrong), Err(format!("expected a quota and a period, found \"{wrong}\"")));
        }
        assert_eq!(quota(b"-1\n"), Ok(None));
        assert_eq!(quota(b"50000\n"), Ok(Some(50_000)));
        assert!(quota(b"-2\n").is_err() && quota(b"").is_err());
        assert_eq!(count(b"930729498912\n"), Ok(930_729_498_912));
        assert!(count(b"18446744073709551615\n").is_err());
        assert_eq!(descendants(b"nr_descendants 7\nnr_subsys_cpu 8\nnr_dying_descendants 1\n"), Some(7));
        assert_eq!(descendants(b"nr_dying_descendants 1\n"), None);
        assert_eq!(tighter(Some(2.0), Some(0.5)), Some(0.5));
        assert_eq!(tighter(None, Some(0.5)), Some(0.5));
        assert_eq!(tighter::<f64>(None, None), None);
    }

    #[test]
    fn nonsense_is_named() {
        let message = |text: &[u8]| cpu_stat(text).1.unwrap().to_string();
        assert_eq!(message(b"usage_usec 30\nuser_usec \x1bx\n"), r#"expected a counter, found "user_usec \x1bx""#);
        assert_eq!(message(b"usage_usec 18446744073709551615"), r#"expected a counter, found "usage_usec 18446744073709551615""#);
        assert_eq!(message(b"nr_periods -1"), r#"expected a counter, found "nr_periods -1""#);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, line in "(usage_usec|nr_periods|throttled_time) [0-9+-]{0,21}") {
            let _ = cpu_stat(&bytes);
            let _ = cpu_stat(line.as_bytes());
            let _ = (cpu_max(&bytes), quota(&bytes), count(&bytes), descendants(&bytes));
        }
    }
}
