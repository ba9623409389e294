//! `/proc/uptime`.

use procfs::{FromRead, Uptime};

use super::Malformed;

/// Nanoseconds since boot, suspended time included; the kernel tells hundredths of a second.
pub fn parse(text: &str) -> Result<u64, Malformed> {
    let wrong = || Malformed::expected("seconds since boot", text);
    let read = Uptime::from_read(text.as_bytes()).map_err(|_| wrong())?;
    if !(0.0..1e10).contains(&read.uptime) {
        return Err(wrong());
    }
    // In range, hence nothing is cut; by hundredths, because 0.1 s has no exact f64.
    Ok((read.uptime * 100.0).round() as u64 * 10_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nanoseconds() {
        assert_eq!(parse("1688.62 2423.84\n"), Ok(1_688_620_000_000));
        assert_eq!(parse("0.10 0.00"), Ok(100_000_000));
        for wrong in ["", "1688.62", "x y", "inf 1", "NaN 1", "-1 1", "1e30 1"] {
            assert!(parse(wrong).unwrap_err().to_string().starts_with("expected seconds since boot, found"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
