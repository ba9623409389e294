//! `/proc/loadavg`. procfs' own type rounds the averages to f32, so the three numbers are read here.

use super::Malformed;

/// Load averages over 1, 5 and 15 minutes.
pub fn parse(text: &str) -> Result<[f64; 3], Malformed> {
    let mut words = text.split_ascii_whitespace();
    let mut next = || {
        let word = words.next().unwrap_or_default();
        let load: Option<f64> = word.parse().ok();
        load.filter(|load| load.is_finite() && *load >= 0.0).ok_or_else(|| Malformed::expected("a load average", word))
    };
    Ok([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn averages() {
        assert_eq!(parse("0.60 0.95 12.77 2/97 20018\n"), Ok([0.6, 0.95, 12.77]));
        let check = |text: &str, message: &str| assert_eq!(parse(text).unwrap_err().to_string(), message);
        check("", r#"expected a load average, found """#);
        check("0.1 nan 0.3", r#"expected a load average, found "nan""#);
        check("0.1 0.2 -1", r#"expected a load average, found "-1""#);
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
