//! `/proc/pressure/{cpu,memory,io}`: how long some task, and all tasks, were stalled for a resource (PSI, Documentation/accounting/psi.rst).

use super::Malformed;
use crate::model::host::Stalled;

/// The sums of one file in nanoseconds; the kernel tells microseconds. `full` of the CPU is there since 5.13.
pub fn parse(text: &str) -> Result<Stalled, Malformed> {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
        let total = line.map(|line| line.rsplit_once("total=").ok_or_else(|| Malformed::expected("a line with total=", line)));
        total.transpose()?.map(|(_, us)| nanoseconds(us)).transpose()
    };
    Ok(Stalled { some: total("some")?.ok_or_else(|| Malformed::new("no line some"))?, full: total("full")? })
}

fn nanoseconds(us: &str) -> Result<u64, Malformed> {
    let number: Option<u64> = us.trim().parse().ok();
    number.and_then(|us| us.checked_mul(1000)).ok_or_else(|| Malformed::expected("a number of microseconds", us))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums() {
        let text = "some avg10=51.82 avg60=28.33 avg300=19.20 total=9556\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=17\n";
        assert_eq!(parse(text), Ok(Stalled { some: 9_556_000, full: Some(17_000) }));
        assert_eq!(parse("some avg10=0.00 total=1\n"), Ok(Stalled { some: 1_000, full: None }), "CPU before 5.13");
        assert!(parse("some avg10=0.00\n").is_err() && parse("").is_err());
        assert!(parse("some total=99999999999999999999\n").unwrap_err().to_string().contains("microseconds"));
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = parse(&text);
            let _ = parse(&format!("some {text}\nfull total={text}"));
        }
    }
}
