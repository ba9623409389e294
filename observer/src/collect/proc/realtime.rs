//! `/proc/sys/kernel/sched_rt_runtime_us` and `…_period_us`: how much of a CPU real-time tasks may take.

use super::Malformed;

/// The number of one of the files, in microseconds; `None` for the -1 of a runtime without limit.
pub fn parse(text: &str) -> Result<Option<u64>, Malformed> {
    match text.trim_end() {
        "-1" => Ok(None),
        number => number.parse().map(Some).map_err(|_| Malformed::expected("microseconds, or -1", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds() {
        assert_eq!((parse("950000\n"), parse("-1\n"), parse("0\n")), (Ok(Some(950_000)), Ok(None), Ok(Some(0))));
        for wrong in ["", "x", "-2", "1.5"] {
            assert!(parse(wrong).unwrap_err().to_string().starts_with("expected microseconds"), "{wrong}");
        }
    }
}
