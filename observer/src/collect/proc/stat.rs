//! `/proc/stat`: a small parser of its own, because CPU numbers have gaps where a CPU is offline, which procfs' list of CPUs loses, and
//! because most of the file is one line of interrupt counts that nobody asked for (tens of kilobytes on large machines).

use super::Malformed;
use crate::model::cpu::Time;
use crate::model::host::Tasks;

/// What `/proc/stat` says.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Stat {
    /// Online CPUs by number, ascending; times in nanoseconds since boot. The kernel's idle and iowait times can step back a little.
    pub cpus: Vec<(u32, Time)>,
    /// `ctxt`: context switches since boot.
    pub context_switches: Option<u64>,
    /// `procs_running` and `procs_blocked`.
    pub tasks: Option<Tasks>,
}

/// Parses the whole file; the CPUs' times are in ticks there.
pub fn parse(text: &str, ticks_per_second: u64) -> Result<Stat, Malformed> {
    let mut stat = Stat::default();
    let (mut running, mut blocked) = (None, None);
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(' ') else { continue };
        match name {
            "ctxt" => stat.context_switches = Some(number(rest.trim())?),
            "procs_running" => running = Some(number(rest.trim())?),
            "procs_blocked" => blocked = Some(number(rest.trim())?),
            _ => {
                if let Some(digits) = name.strip_prefix("cpu").filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit())) {
                    let cpu = digits.parse().map_err(|_| Malformed::expected("a CPU's number", digits))?;
                    stat.cpus.push((cpu, time(rest, ticks_per_second)?));
                }
            }
        }
    }
    if stat.cpus.is_empty() {
        return Err(Malformed::new("no line of a CPU"));
    }
    // The kernel lists them in this order; what depends on it should not depend on the file.
    stat.cpus.sort_by_key(|(cpu, _)| *cpu);
    stat.cpus.dedup_by_key(|(cpu, _)| *cpu);
    stat.tasks = running.zip(blocked).map(|(running, blocked)| Tasks { running, blocked });
    Ok(stat)
}

/// `user nice system idle iowait irq softirq steal guest guest_nice`. Kernels before 2.6.11 end before steal. Guest time is inside user
/// and nice already.
fn time(fields: &str, ticks_per_second: u64) -> Result<Time, Malformed> {
    let mut words = fields.split_ascii_whitespace();
    let mut next = || words.next().map(|word| nanoseconds(word, ticks_per_second)).transpose();
    let [user, nice, system, idle, iowait] = [next()?, next()?, next()?, next()?, next()?];
    let interrupt = next()?.zip(next()?).map(|(hard, soft)| hard.saturating_add(soft));
    Ok(Time { user, nice, system, idle, iowait, interrupt, steal: next()? })
}

fn nanoseconds(word: &str, ticks_per_second: u64) -> Result<u64, Malformed> {
    const SECOND: u64 = 1_000_000_000;
    let ticks = number(word)?;
    // Seconds and the rest apart: the product of all ticks would overflow after years on machines that count 1024 a second.
    let convert = || {
        let seconds = ticks.checked_div(ticks_per_second)?.checked_mul(SECOND)?;
        seconds.checked_add((ticks % ticks_per_second).checked_mul(SECOND)? / ticks_per_second)
    };
    convert().ok_or_else(|| Malformed::expected("a number of ticks", word))
}

fn number(word: &str) -> Result<u64, Malformed> {
    word.parse().map_err(|_| Malformed::expected("a number", word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: u64 = 10_000_000;

    fn check(text: &str, expected: &Stat) {
        assert_eq!(parse(text, 100).as_ref(), Ok(expected));
    }

    #[test]
    fn modes_and_counts() {
        let time = Time {
            user: Some(TICK),
            nice: Some(2 * TICK),
            system: Some(3 * TICK),
            idle: Some(4 * TICK),
            iowait: Some(5 * TICK),
            interrupt: Some(13 * TICK),
            steal: Some(8 * TICK),
        };
        let tasks = Some(Tasks { running: 2, blocked: 1 });
        check(
            "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5 0 1 2\nctxt 77\nbtime 9\nprocs_running 2\nprocs_blocked 1\n",
            &Stat { cpus: vec![(0, time)], context_switches: Some(77), tasks },
        );
        check("cpu0 1 2 3 4 5 6 7\n", &Stat { cpus: vec![(0, Time { steal: None, ..time })], ..Stat::default() });
        let oldest = Time { iowait: None, interrupt: None, steal: None, ..time };
        check("cpu0 1 2 3 4\nprocs_running 2\n", &Stat { cpus: vec![(0, oldest)], ..Stat::default() });
    }

    #[test]
    fn numbers_of_offline_cpus_stay_free() {
        let idle =
            |ticks: u64| Time { user: Some(0), nice: Some(0), system: Some(0), idle: Some(ticks * TICK), ..Time::default() };
        check("cpu0 0 0 0 1\ncpu2 0 0 0 3\n", &Stat { cpus: vec![(0, idle(1)), (2, idle(3))], ..Stat::default() });
        check("cpu2 0 0 0 3\ncpu0 0 0 0 1\ncpu0 0 0 0 9\n", &Stat { cpus: vec![(0, idle(1)), (2, idle(3))], ..Stat::default() });
    }

    #[test]
    fn ticks_of_any_length() {
        let of = |ticks: &str, hz| parse(&format!("cpu0 {ticks}"), hz).map(|stat| stat.cpus[0].1.user);
        assert_eq!(of("1024", 1024), Ok(Some(1_000_000_000)));
        assert_eq!(of("1", 1024), Ok(Some(976_562)));
        assert_eq!(of("1", 1000), Ok(Some(1_000_000)));
        assert!(of("1", 0).is_err());
    }

    #[test]
    fn nonsense() {
        let check = |text: &str, message: &str| assert_eq!(parse(text, 100).unwrap_err().to_string(), message);
        check("", "no line of a CPU");
        check("cpu  1 2 3 4\nctxt 5\n", "no line of a CPU");
        check("cpu0 1 x 3", r#"expected a number, found "x""#);
        check("cpu99999999999 1", r#"expected a CPU's number, found "99999999999""#);
        check("cpu0 18446744073709551615", r#"expected a number of ticks, found "18446744073709551615""#);
        check("cpu0 1\nctxt -1", r#"expected a number, found "-1""#);
    }

    proptest! {
        #[test]
        fn never_panics(text: String, line in "cpu[0-9]{0,12}( [0-9]{0,20}){0,11}\nctxt [0-9]{0,30}", ticks: u64) {
            let _ = parse(&text, ticks);
            let _ = parse(&line, ticks);
        }
    }
}
