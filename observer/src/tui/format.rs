//! Numbers as people read them: three digits and a unit, in a cell of fixed width. `–` is unknown, `0` is zero.

use crate::model::Unit;
use crate::model::metric::Shape;

/// What is shown for what is not known.
pub const UNKNOWN: &str = "–";

/// How a number is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A share of one, or CPU time per time as a percentage of one CPU: `31%`.
    Percent,
    /// Seconds per second: `340ms/s`.
    PerSecond,
    /// Seconds: `1.20ms`.
    Duration,
    /// A count: `1.20k`.
    Count,
    /// A count per second: `1.20k/s`.
    Rate,
    /// Bytes: `1.20GiB`.
    Bytes,
    /// CPUs: `1.5`.
    Cpus,
}

impl Format {
    /// The usual one for a metric.
    pub fn of(unit: Unit, shape: Shape) -> Format {
        match (unit, shape) {
            (Unit::Seconds, Shape::Counter) => Format::PerSecond,
            (Unit::Seconds, _) => Format::Duration,
            (Unit::Count(_), Shape::Counter) => Format::Rate,
            (Unit::Count(_), _) => Format::Count,
            (Unit::Bytes, _) => Format::Bytes,
            (Unit::Ratio, _) => Format::Percent,
            (Unit::Cpus, _) => Format::Cpus,
        }
    }

    /// The text of a number.
    pub fn text(self, number: Option<f64>) -> String {
        let Some(number) = number.filter(|number| !number.is_nan()) else { return UNKNOWN.into() };
        match self {
            Format::Percent => percent(number),
            Format::Duration => duration(number),
            Format::PerSecond if number == 0.0 => "0".into(),
            Format::PerSecond => format!("{}/s", duration(number)),
            Format::Count => count(number),
            Format::Rate if number == 0.0 => "0".into(),
            Format::Rate => format!("{}/s", count(number)),
            Format::Bytes => scaled(number, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]),
            Format::Cpus => count(number),
        }
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 {
        "0%".into()
    } else if percent.abs() < 0.05 {
        "<0.1%".into()
    } else if percent < 9.95 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.0}%")
    }
}

/// Seconds: `0`, `12.0µs`, `1.20ms`, `3.40s`, `16m40s`, `2h05m`, `3d04h`.
pub fn duration(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0".into();
    }
    if seconds.is_infinite() {
        return ">128s".into();
    }
    if seconds >= 999.5 {
        let whole = seconds.round() as u64;
        let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
        return match whole {
            86_400.. => format!("{days}d{hours:02}h"),
            3_600.. => format!("{hours}h{minutes:02}m"),
            _ => format!("{minutes}m{:02}s", whole % 60),
        };
    }
    scaled(seconds * 1e9, 1000.0, &["ns", "µs", "ms", "s"])
}

/// A count: whole below 1000, then `1.20k`.
pub fn count(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1000.0 {
        format!("{number}")
    } else {
        scaled(number, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
    }
}

fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let mut unit = 0;
    while number.abs() >= step - 0.5 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    format!("{}{}", three(number), units[unit])
}

/// Three digits, so that a growing number does not get longer.
fn three(number: f64) -> String {
    match number.abs() {
        99.95.. => format!("{number:.0}"),
        9.995.. => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check = |format: Format, number: f64, text: &str| assert_eq!(format.text(Some(number)), text, "{format:?} {number}");
        check(Format::Percent, 0.0, "0%");
        check(Format::Percent, 0.0001, "<0.1%");
        check(Format::Percent, 0.0312, "3.1%");
        check(Format::Percent, 0.0996, "10%");
        check(Format::Percent, 12.8, "1280%");
        check(Format::Duration, 0.0, "0");
        check(Format::Duration, 1e-9, "1.00ns");
        check(Format::Duration, 953e-9, "953ns");
        check(Format::Duration, 999.6e-9, "1.00µs");
        check(Format::Duration, 0.0123, "12.3ms");
        check(Format::Duration, 999.0, "999s");
        check(Format::Duration, 1000.0, "16m40s");
        check(Format::Duration, 7500.0, "2h05m");
        check(Format::Duration, 273_600.0, "3d04h");
        check(Format::Duration, f64::INFINITY, ">128s");
        check(Format::PerSecond, 0.34, "340ms/s");
        check(Format::PerSecond, 0.0, "0");
        check(Format::Count, 12.0, "12");
        check(Format::Count, 999.7, "1.00k");
        check(Format::Count, 1234.0, "1.23k");
        check(Format::Rate, 1_234_567.0, "1.23M/s");
        check(Format::Bytes, 1536.0, "1.50KiB");
        check(Format::Bytes, 16.0 * 1024f64.powi(3), "16.0GiB");
        check(Format::Cpus, 1.5, "1.50");
        check(Format::Cpus, 2.0, "2");
        assert_eq!(Format::Rate.text(None), "–");
        assert_eq!(Format::Rate.text(Some(f64::NAN)), "–");
    }

    #[test]
    fn no_number_is_longer_than_its_cell() {
        for exponent in -12..12 {
            for mantissa in [1.0, 1.5, 9.994, 9.996, 9.9949, 9.9996] {
                let number = mantissa * 10f64.powi(exponent);
                for format in [Format::Duration, Format::Count, Format::Cpus, Format::Bytes] {
                    // Ten years are long enough.
                    if format == Format::Duration && number > 3e8 {
                        continue;
                    }
                    let text = format.text(Some(number));
                    assert!(text.chars().count() <= 9, "{format:?} {number}: {text}");
                }
            }
        }
    }
}
