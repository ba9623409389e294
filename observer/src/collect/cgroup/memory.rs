//! The files of a cgroup's memory: v2 `memory.*` and those of v1 that mean the same.
//!
//! Each parser sets the fields that its file tells. One that is not what the kernel writes stays unknown, the others are read all the same,
//! and the first that is wrong is the error. Lines with other names are left out: every kernel adds some.

use crate::collect::proc::Malformed;
use crate::model::cgroup::resources::{Memory, MemoryStat};

/// v1 has no word for "no limit": it writes the largest multiple of a page below 2⁶³.
const NO_LIMIT: u64 = 1 << 62;

/// `memory.current`; v1 `memory.usage_in_bytes`.
pub fn usage(text: &str, memory: &mut Memory) -> Result<(), Malformed> {
    memory.usage = Some(number(text)?);
    Ok(())
}

/// `memory.max`; v1 `memory.limit_in_bytes`.
pub fn limit(text: &str, memory: &mut Memory) -> Result<(), Malformed> {
    memory.limit = threshold(text)?;
    Ok(())
}

/// `memory.high`.
pub fn high(text: &str, memory: &mut Memory) -> Result<(), Malformed> {
    memory.high = threshold(text)?;
    Ok(())
}

/// `memory.events`.
pub fn events(text: &str, memory: &mut Memory) -> Result<(), Malformed> {
    let events = &mut memory.events;
    fields(
        text,
        &mut [
            ("low", &mut events.low),
            ("high", &mut events.high),
            ("max", &mut events.max),
            ("oom", &mut events.oom),
            ("oom_kill", &mut events.oom_kill),
            ("oom_group_kill", &mut events.oom_group_kill),
        ],
    )
}

/// v1 `memory.failcnt`.
pub fn failures(text: &str, memory: &mut Memory) -> Result<(), Malformed> {
    memory.events.max = Some(number(text)?);
    Ok(())
}

/// v1 `memory.oom_control`.
pub fn oom_control(text: &str, memory: &mut Memory) -> Result<(), Malformed> {
    fields(text, &mut [("oom_kill", &mut memory.events.oom_kill)])
}

/// v2 `memory.stat`.
pub fn stat(text: &str, stat: &mut MemoryStat) -> Result<(), Malformed> {
    let [mut stacks, mut tables, mut percpu, mut slab, mut refaults] = [None; 5];
    let result = fields(
        text,
        &mut [
            ("anon", &mut stat.anon),
            ("file", &mut stat.file),
            ("kernel", &mut stat.kernel),
            ("kernel_stack", &mut stacks),
            ("pagetables", &mut tables),
            ("percpu", &mut percpu),
            ("slab", &mut slab),
            ("pgfault", &mut stat.faults),
            ("pgmajfault", &mut stat.major_faults),
            ("pgscan", &mut stat.scanned),
            ("pgsteal", &mut stat.reclaimed),
            ("workingset_refault", &mut refaults),
            ("workingset_refault_anon", &mut stat.refaults_anon),
            ("workingset_refault_file", &mut stat.refaults_file),
        ],
    );
    if stat.kernel.is_none() {
        stat.kernel = [stacks, tables, percpu, slab].into_iter().flatten().reduce(u64::saturating_add);
    }
    // Before 5.9, when only pages of files were watched.
    stat.refaults_file = stat.refaults_file.or(refaults);
    result
}

/// v1 `memory.stat`.
pub fn stat_v1(text: &str, stat: &mut MemoryStat) -> Result<(), Malformed> {
    fields(
        text,
        &mut [
            ("total_rss", &mut stat.anon),
            ("total_cache", &mut stat.file),
            ("total_pgfault", &mut stat.faults),
            ("total_pgmajfault", &mut stat.major_faults),
            ("total_workingset_refault_anon", &mut stat.refaults_anon),
            ("total_workingset_refault_file", &mut stat.refaults_file),
        ],
    )
}

/// v2 `memory.numa_stat`, `anon N0=4096 N1=0`: bytes by node.
pub fn nodes(text: &str, memory: &mut Memory) -> Result<(), Malformed> {
    by_node(text, &["anon ", "file "], 1, memory)
}

/// v1 `memory.numa_stat`, `hierarchical_total=7 N0=7`: pages of this size, by node.
pub fn nodes_v1(text: &str, page: u64, memory: &mut Memory) -> Result<(), Malformed> {
    by_node(text, &["hierarchical_total="], page, memory)
}

/// The sum of these lines by node.
fn by_node(text: &str, lines: &[&str], unit: u64, memory: &mut Memory) -> Result<(), Malformed> {
    let mut nodes: Vec<(u32, u64)> = Vec::new();
    let wanted = |line: &&str| lines.iter().any(|name| line.starts_with(name));
    for line in text.lines().filter(wanted) {
        for word in line.split(' ').filter_map(|word| word.strip_prefix('N')) {
            let wrong = || Malformed::expected("a node and a number", word);
            let (node, number) = word.split_once('=').ok_or_else(wrong)?;
            let (node, number) = (node.parse().map_err(|_| wrong())?, number.parse::<u64>().map_err(|_| wrong())?);
            let bytes = number.checked_mul(unit).filter(is_sane).ok_or_else(wrong)?;
            match nodes.iter_mut().find(|(known, _)| *known == node) {
                Some((_, sum)) => *sum = sum.saturating_add(bytes),
                None => nodes.push((node, bytes)),
            }
        }
    }
    memory.nodes = nodes.into();
    Ok(())
}

/// Sets those of the fields that have a line, `name number`.
pub(super) fn fields(text: &str, wanted: &mut [(&str, &mut Option<u64>)]) -> Result<(), Malformed> {
    let mut result = Ok(());
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else { continue };
        let Some((_, field)) = wanted.iter_mut().find(|(wanted, _)| *wanted == name) else { continue };
        match number(value) {
            Ok(number) => **field = Some(number),
            Err(_) if result.is_err() => {}
            Err(_) => result = Err(Malformed::expected("a number", line)),
        }
    }
    result
}

pub(super) fn threshold(text: &str) -> Result<Option<u64>, Malformed> {
    let text = text.trim_end();
    if text == "max" { Ok(None) } else { number(text).map(|bytes| (bytes < NO_LIMIT).then_some(bytes)) }
}

pub(super) fn number(text: &str) -> Result<u64, Malformed> {
    let text = text.trim_end();
    text.parse().ok().filter(is_sane).ok_or_else(|| Malformed::expected("a number", text))
}

/// Half of what 64 bits hold, so that sums of fields cannot overflow.
fn is_sane(number: &u64) -> bool {
    *number <= u64::MAX / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::cgroup::resources::Events;

    type Parse<T> = fn(&str, &mut T) -> Result<(), Malformed>;

    fn parsed<T: Default>(parse: Parse<T>, text: &str) -> (T, Option<String>) {
        let mut known = T::default();
        let problem = parse(text, &mut known).err().map(|malformed| malformed.to_string());
        (known, problem)
    }

    #[track_caller]
    fn check<T: Default + PartialEq + std::fmt::Debug>(parse: Parse<T>, text: &str, expected: T) {
        assert_eq!(parsed(parse, text), (expected, None), "{text}");
    }

    #[track_caller]
    fn wrong(parse: Parse<Memory>, text: &str, expected: &str) {
        assert_eq!(parsed(parse, text), (Memory::default(), Some(expected.to_owned())), "{text}");
    }

    #[test]
    fn usages_and_limits() {
        let none = Memory::default;
        check(usage, "42766336\n", Memory { usage: Some(42_766_336), ..none() });
        check(limit, "max\n", none());
        check(limit, "1073741824\n", Memory { limit: Some(1 << 30), ..none() });
        check(limit, "9223372036854771712\n", none());
        check(limit, "9223372036854710272\n", none());
        check(limit, "0\n", Memory { limit: Some(0), ..none() });
        check(high, "5\n", Memory { high: Some(5), ..none() });
        check(failures, "7\n", Memory { events: Events { max: Some(7), ..Events::default() }, ..none() });
        wrong(usage, "", r#"expected a number, found """#);
        wrong(usage, "-1\n", r#"expected a number, found "-1""#);
        wrong(usage, "18446744073709551615\n", r#"expected a number, found "18446744073709551615""#);
        wrong(limit, "maximum\x1b[2J\n", r#"expected a number, found "maximum\x1b[2J""#);
    }

    #[test]
    fn events_and_kills() {
        let all = Events { low: Some(1), high: Some(2), max: Some(3), oom: Some(4), oom_kill: Some(5), oom_group_kill: Some(6) };
        let text = "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nsock_throttled 7\n";
        check(events, text, Memory { events: all, ..Memory::default() });
        let old = Events { oom_group_kill: None, ..all };
        check(events, "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\n", Memory { events: old, ..Memory::default() });
        let killed = Events { oom_kill: Some(9), ..Events::default() };
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 9\n";
        check(oom_control, text, Memory { events: killed, ..Memory::default() });
        check(oom_control, "oom_kill_disable 0\nunder_oom 0\n", Memory::default());
    }

    #[test]
    fn stats_of_v2() {
        let known = MemoryStat {
            anon: Some(10),
            file: Some(20),
            kernel: Some(30),
            faults: Some(5),
            major_faults: Some(2),
            ..MemoryStat::default()
        };
        let text = "anon 10\nfile 20\nkernel 30\nkernel_stack 4\nslab 5\nshmem 1\npgfault 5\npgmajfault 2\n";
        check(stat, text, known);
        let newer = MemoryStat { refaults_anon: Some(6), refaults_file: Some(7), scanned: Some(8), reclaimed: Some(9), ..known };
        let more =
            "workingset_refault_anon 6\nworkingset_refault_file 7\npgscan 8\npgscan_kswapd 1\npgsteal 9\npgsteal_direct 3\n";
        check(stat, &format!("{text}{more}"), newer);
        let text =
            "anon 10\nfile 20\nkernel_stack 4\npercpu 1\npagetables 20\nslab 5\npgfault 5\npgmajfault 2\nworkingset_refault 3\n";
        check(stat, text, MemoryStat { refaults_file: Some(3), ..known });
        check(stat, "no_value\n\nnew_field x\nanon_thp x\n", MemoryStat::default());
    }

    #[test]
    fn stats_of_v1_are_those_of_the_subtree() {
        let text = "cache 1\nrss 2\npgfault 3\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 10\ntotal_rss 20\n\
                    total_pgfault 30\ntotal_pgmajfault 4\ntotal_workingset_refault_file 5\ntotal_workingset_refault_anon 6\n";
        let expected = MemoryStat {
            anon: Some(20),
            file: Some(10),
            faults: Some(30),
            major_faults: Some(4),
            refaults_file: Some(5),
            refaults_anon: Some(6),
            ..MemoryStat::default()
        };
        check(stat_v1, text, expected);
    }

    #[test]
    fn usage_by_node() {
        let nodes_are = |nodes: &[(u32, u64)]| Memory { nodes: nodes.into(), ..Memory::default() };
        check(nodes, "anon N0=10 N2=5\nfile N0=1 N2=2\nkernel_stack N0=7 N2=7\n", nodes_are(&[(0, 11), (2, 7)]));
        let v1: Parse<Memory> = |text, memory| nodes_v1(text, 4096, memory);
        check(v1, "total=3810 N0=3810\nfile=62 N0=62\nhierarchical_total=3 N0=2 N1=1\n", nodes_are(&[(0, 8192), (1, 4096)]));
        check(v1, "total=3810 N0=3810\n", nodes_are(&[]));
        wrong(nodes, "anon N0=x\n", r#"expected a node and a number, found "0=x""#);
        wrong(nodes, "anon N0\n", r#"expected a node and a number, found "0""#);
        wrong(
            v1,
            "hierarchical_total=3 N0=18446744073709551615\n",
            r#"expected a node and a number, found "0=18446744073709551615""#,
        );
    }

    #[test]
    fn one_wrong_line_costs_its_own_field() {
        let (memory, problem) = parsed(stat, "anon 10\nfile \x1bx\npgfault 18446744073709551615\npgmajfault 2\n");
        assert_eq!(memory, MemoryStat { anon: Some(10), major_faults: Some(2), ..MemoryStat::default() });
        assert_eq!(problem.unwrap(), r#"expected a number, found "file \x1bx""#);
    }

    proptest! {
        #[test]
        fn never_panics(text: String, line in "(anon|file|max|oom_kill|slab) ?(N[0-9]{0,11}=)?[0-9+-]{0,21}", page: u64) {
            for parse in [usage, limit, high, events, failures, oom_control, nodes] {
                let _ = (parse(&text, &mut Memory::default()), parse(&line, &mut Memory::default()));
            }
            for parse in [stat, stat_v1] {
                let _ = (parse(&text, &mut MemoryStat::default()), parse(&line, &mut MemoryStat::default()));
            }
            let _ = nodes_v1(&format!("hierarchical_total={line} N0=9{text}"), page, &mut Memory::default());
        }
    }
}
