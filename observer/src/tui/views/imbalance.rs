//! CPUs that idle while tasks wait on others, in a line.

use super::row;
use crate::model::{Attributes, Cpu, Snapshot, cpu, host};
use crate::tui::format::Format;
use crate::tui::palette::Tone;
use crate::tui::text::{Piece, piece};

/// CPUs that idle while tasks wait from which it is worth a word: a twentieth of one.
pub const IMBALANCE_MATTERS: f64 = 0.05;

/// Causes, each with what the line says of those that wait.
const CAUSES: [(Attributes, &str); 3] = [
    (&[("observer.imbalance.cause", "pinned")], ", bound by affinity or cpuset"),
    (&[("observer.imbalance.cause", "allowed")], " that may run there"),
    (&[("observer.imbalance.cause", "unknown")], ""),
];

/// What the line is made from. Shares are of one CPU's time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Uneven {
    /// CPU time that stood idle while tasks waited.
    pub idle: f64,
    /// What most of it was for: an index of [`CAUSES`].
    cause: usize,
    /// The CPU with the longest queue, and its mean length.
    longest: Option<(u32, f64)>,
    /// The CPU that idled most, and for how long.
    idlest: Option<(u32, f64)>,
}

impl Uneven {
    /// Of the last interval; `None` when it is unknown.
    pub fn of(snapshot: &Snapshot) -> Option<Uneven> {
        let host = row(snapshot, &snapshot.is.host);
        let idle = host.number(&host::IMBALANCE, &[])?;
        let by_cause = CAUSES.map(|(cause, _)| host.number(&host::IMBALANCE, cause).unwrap_or(0.0));
        let cause = (0..CAUSES.len()).max_by(|a, b| by_cause[*a].total_cmp(&by_cause[*b]))?;
        let cpus: Vec<_> = snapshot.rows::<Cpu>().collect();
        let most = |metric, attributes| {
            let known = cpus.iter().filter_map(|row| Some((row.is.number, row.number(metric, attributes)?)));
            known.max_by(|a, b| a.1.total_cmp(&b.1))
        };
        Some(Uneven { idle, cause, longest: most(&cpu::DEPTH, &[]), idlest: most(&cpu::TIME, &[("cpu.mode", "idle")]) })
    }

    /// A sentence, if it is worth one.
    pub fn sentence(&self) -> Option<String> {
        if self.idle < IMBALANCE_MATTERS {
            return None;
        }
        let idle = match self.idle {
            less if less < 2.0 => format!("{} of a CPU idles", Format::Percent.text(Some(less))),
            more => format!("{} CPUs idle", Format::Cpus.text(Some(more))),
        };
        let longest = self.longest.map(|(cpu, length)| format!("CPU {cpu} has {} tasks", Format::Count.text(Some(length))));
        let idlest = self.idlest.map(|(cpu, idle)| format!("CPU {cpu} idles {}", Format::Percent.text(Some(idle))));
        let most: Vec<_> = longest.into_iter().chain(idlest).collect();
        let most = if most.is_empty() { String::new() } else { format!(": {}", most.join(", ")) };
        Some(format!("{idle} while tasks wait{}{most}.", CAUSES[self.cause].1))
    }
}

/// The same as one number among others.
pub(super) fn number(snapshot: &Snapshot) -> Piece {
    let idle = row(snapshot, &snapshot.is.host).number(&host::IMBALANCE, &[]);
    let tone = if idle.is_some_and(|idle| idle >= IMBALANCE_MATTERS) { Tone::Warn } else { Tone::Plain };
    piece(1, tone, format!("idle while tasks wait {}", Format::Percent.text(idle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_much_why_and_where() {
        let check = |idle, cause, expected: Option<&str>| {
            let uneven = Uneven { idle, cause, longest: Some((0, 2.98)), idlest: Some((1, 0.41)) };
            assert_eq!(uneven.sentence().as_deref(), expected);
        };
        check(
            0.38,
            0,
            Some("38% of a CPU idles while tasks wait, bound by affinity or cpuset: CPU 0 has 2.98 tasks, CPU 1 idles 41%."),
        );
        check(2.4, 1, Some("2.40 CPUs idle while tasks wait that may run there: CPU 0 has 2.98 tasks, CPU 1 idles 41%."));
        check(0.06, 2, Some("6.0% of a CPU idles while tasks wait: CPU 0 has 2.98 tasks, CPU 1 idles 41%."));
        check(0.049, 0, None);
        let nothing = Uneven { idle: 1.0, cause: 2, longest: None, idlest: None };
        assert_eq!(nothing.sentence().as_deref(), Some("100% of a CPU idles while tasks wait."));
    }
}
