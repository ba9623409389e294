//! Where the time went, in one plain sentence with its evidence.

use crate::model::{Cgroup, Cpu, Snapshot, cgroup, cpu};
use crate::tui::format::Format;
use crate::tui::lines;
use crate::tui::text;

/// Seconds waited a second from which waiting is worth a word: a tenth of a CPU.
pub const WAIT_MATTERS: f64 = 0.1;
/// Share of all CPU time taken by the hypervisor from which it is worth a word.
pub const STEAL_MATTERS: f64 = 0.01;
/// Seconds throttled a second from which a quota is worth a word.
pub const THROTTLED_MATTERS: f64 = 0.05;
/// Longer names keep only their end.
const NAME: u16 = 40;

/// What the sentence is made from.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Evidence {
    /// Seconds waited a second, over all CPUs.
    pub wait: Option<f64>,
    /// The cgroup that waited most itself, and how much.
    pub most: Option<(String, f64)>,
    /// Share of all CPUs' time taken by the hypervisor.
    pub steal: Option<f64>,
    /// The cgroup that was throttled most, and how much.
    pub throttled: Option<(String, f64)>,
    /// Whether two samples are there to compare.
    pub compared: bool,
}

/// Gathers it.
pub fn evidence(snapshot: &Snapshot) -> Evidence {
    let cpus: Vec<_> = snapshot.rows::<Cpu>().collect();
    let sum = |values: Vec<f64>| if values.is_empty() { None } else { Some(values.iter().sum::<f64>()) };
    let steal: Vec<f64> = cpus.iter().filter_map(|row| row.number(&cpu::TIME, &[("cpu.mode", "steal")])).collect();
    let count = steal.len() as f64;
    let cgroups: Vec<_> = snapshot.rows::<Cgroup>().collect();
    let own = own_waits(snapshot);
    let largest = |values: &mut dyn Iterator<Item = (usize, f64)>| {
        values.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, value)| (cgroups[index].is.path.clone(), value))
    };
    let throttled =
        cgroups.iter().enumerate().filter_map(|(index, row)| Some((index, row.number(&cgroup::THROTTLED_TIME, &[])?)));
    Evidence {
        wait: sum(cpus.iter().filter_map(|row| row.number(&cpu::WAIT_TIME, &[])).collect()),
        most: largest(&mut own.into_iter().enumerate().filter_map(|(index, wait)| Some((index, wait?)))),
        steal: sum(steal).map(|steal| steal / count),
        throttled: largest(&mut throttled.into_iter()),
        compared: snapshot.interval().is_some(),
    }
}

/// What each cgroup waited itself, its descendants left out.
fn own_waits(snapshot: &Snapshot) -> Vec<Option<f64>> {
    let waits: Vec<_> = snapshot.rows::<Cgroup>().map(|row| row.number(&cgroup::WAIT_TIME, &[])).collect();
    let mut own = waits.clone();
    for (index, parent) in lines::parents(&snapshot.is.cgroups).into_iter().enumerate() {
        if let (Some(wait), Some(Some(above))) = (waits[index], parent.map(|parent| &mut own[parent])) {
            *above -= wait;
        }
    }
    own
}

/// The sentence.
pub fn sentence(evidence: &Evidence) -> String {
    if !evidence.compared {
        return "Measuring: rates need a second sample.".into();
    }
    let per_second = |seconds| Format::PerSecond.text(Some(seconds));
    let name = |path: &str| if path == "/" { "the root group itself".to_owned() } else { text::tail(path, NAME).into_owned() };
    let mut parts = Vec::new();
    let mut calm = true;
    match (evidence.wait, &evidence.most) {
        (None, _) => parts.push("run-queue wait is not measured".to_owned()),
        (Some(wait), most) if wait >= WAIT_MATTERS => {
            calm = false;
            let most = most.as_ref().map(|(path, wait)| format!(", most in {} ({})", name(path), per_second(*wait)));
            parts.push(format!("waited {}{}", per_second(wait), most.unwrap_or_default()));
        }
        (Some(wait), _) => parts.push(format!("nothing waits much ({})", per_second(wait))),
    }
    match evidence.steal {
        Some(steal) if steal >= STEAL_MATTERS => {
            calm = false;
            parts.push(format!("steal {}", Format::Percent.text(Some(steal))));
        }
        _ => {}
    }
    match &evidence.throttled {
        Some((path, throttled)) if *throttled >= THROTTLED_MATTERS => {
            calm = false;
            parts.push(format!("throttled {} in {}", per_second(*throttled), name(path)));
        }
        _ => {}
    }
    if calm && evidence.wait.is_some() {
        parts.push("no steal or throttling to speak of".into());
    }
    let text = parts.join("; ");
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_matters() {
        let check = |wait, most: Option<(&str, f64)>, steal, throttled: Option<(&str, f64)>, expected: &str| {
            let owned = |named: Option<(&str, f64)>| named.map(|(path, value)| (path.to_owned(), value));
            let evidence = Evidence { wait, most: owned(most), steal, throttled: owned(throttled), compared: true };
            assert_eq!(sentence(&evidence), expected);
        };
        check(
            Some(1.24),
            Some(("/batch.slice", 0.9)),
            Some(0.02),
            Some(("/api.slice", 0.3)),
            "Waited 1.24s/s, most in /batch.slice (900ms/s); steal 2.0%; throttled 300ms/s in /api.slice.",
        );
        check(Some(0.012), None, Some(0.0), None, "Nothing waits much (12.0ms/s); no steal or throttling to speak of.");
        check(Some(2.0), Some(("/", 1.5)), None, None, "Waited 2.00s/s, most in the root group itself (1.50s/s).");
        check(None, None, Some(0.05), None, "Run-queue wait is not measured; steal 5.0%.");
        check(None, None, None, None, "Run-queue wait is not measured.");
        check(Some(0.0), None, None, Some(("/a", 0.04)), "Nothing waits much (0); no steal or throttling to speak of.");
        assert_eq!(sentence(&Evidence::default()), "Measuring: rates need a second sample.");
    }
}
