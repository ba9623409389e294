//! Where the time went, in one plain sentence with its evidence.

use super::{blame, row};
use crate::model::{Attributes, Blame, Blamed, Cgroup, Cpu, Row, cgroup, cpu, host};
use crate::tui::format::Format;
use crate::tui::lines::{self, Loss};
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
    /// Seconds waited a second on the machine, throttled time left out where it is told apart.
    pub wait: Option<f64>,
    /// The cgroup that waited most itself, and how much.
    pub most: Option<(String, f64)>,
    /// Behind whom, and what share of that.
    pub behind: Option<(Blamed, f64)>,
    /// Share of all CPUs' time taken by the hypervisor.
    pub steal: Option<f64>,
    /// The cgroup that was throttled most, and how much.
    pub throttled: Option<(String, f64)>,
    /// Whose quota that was, if not its own.
    pub quota: Option<String>,
    /// Whether two samples are there to compare.
    pub compared: bool,
}

/// Gathers it.
pub fn evidence(blame: &Blame<'_>) -> Evidence {
    let snapshot = blame.snapshot();
    let cpus: Vec<_> = snapshot.rows::<Cpu>().collect();
    let sum = |values: Vec<f64>| if values.is_empty() { None } else { Some(values.iter().sum::<f64>()) };
    let steal: Vec<f64> = cpus.iter().filter_map(|row| row.number(&cpu::TIME, &[("cpu.mode", "steal")])).collect();
    let count = steal.len() as f64;
    let cgroups = &snapshot.is.cgroups;
    let parents = lines::parents(cgroups);
    let rows: Vec<_> = snapshot.rows::<Cgroup>().collect();
    let losses: Vec<_> = rows.iter().map(Loss::of).collect();
    let most = largest(&own(&parents, &losses.iter().map(|loss| loss.waited).collect::<Vec<_>>()));
    let behind = most.and_then(|(index, _)| {
        let culprits = blame.culprits_of_own(cgroups[index].id).without("throttled");
        culprits.main().map(|(blamed, share)| (blamed.clone(), share))
    });
    let (throttled, quota) = throttled(&rows, &losses, &parents);
    let titled = |(index, number): (usize, f64)| (cgroups[index].full_title().into_owned(), number);
    let waited = row(snapshot, &snapshot.is.host).number(&host::LEDGER, WAITED);
    Evidence {
        wait: waited.or_else(|| sum(cpus.iter().filter_map(|row| row.number(&cpu::WAIT_TIME, &[])).collect())),
        most: most.map(titled),
        behind,
        steal: sum(steal).map(|steal| steal / count),
        throttled: throttled.map(titled),
        quota,
        compared: snapshot.interval().is_some(),
    }
}

const WAITED: Attributes = &[("observer.ledger.account", "waited")];

/// The cgroup whose own tasks were throttled most, and whose quota it was if not its own: the nearest that stopped its group. Where the
/// kernel does not tell of tasks, the group that was stopped most.
fn throttled(rows: &[Row<'_, Cgroup>], losses: &[Loss], parents: &[Option<usize>]) -> (Option<(usize, f64)>, Option<String>) {
    let stopped: Vec<_> = rows.iter().map(|row| row.number(&cgroup::THROTTLED_TIME, &[])).collect();
    let tasks = own(parents, &losses.iter().map(|loss| loss.throttled).collect::<Vec<_>>());
    let Some((index, number)) = largest(&tasks).filter(|(_, number)| *number > 0.0) else { return (largest(&stopped), None) };
    let mut ancestors = std::iter::successors(Some(index), |index| parents[*index]);
    let limiting = ancestors.find(|index| stopped[*index].is_some_and(|stopped| stopped > 0.0));
    let quota = limiting.filter(|limiting| *limiting != index).map(|limiting| rows[limiting].is.full_title().into_owned());
    (Some((index, number)), quota)
}

/// Of numbers of subtrees those of each cgroup itself.
fn own(parents: &[Option<usize>], all: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut own = all.to_vec();
    for (index, parent) in parents.iter().enumerate() {
        if let (Some(number), Some(Some(above))) = (all[index], parent.map(|parent| &mut own[parent])) {
            *above -= number;
        }
    }
    own
}

fn largest(numbers: &[Option<f64>]) -> Option<(usize, f64)> {
    let known = numbers.iter().enumerate().filter_map(|(index, number)| Some((index, (*number)?)));
    known.max_by(|a, b| a.1.total_cmp(&b.1))
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
            let behind = evidence
                .behind
                .as_ref()
                .map(|(blamed, share)| format!(", {} {}", Format::Percent.text(Some(*share)), blame::phrase(blamed, NAME)));
            let behind = behind.unwrap_or_default();
            let most = most.as_ref().map(|(path, wait)| format!(", most in {} ({}{behind})", name(path), per_second(*wait)));
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
            let quota = evidence.quota.as_ref().map(|path| format!(" by the quota of {}", name(path))).unwrap_or_default();
            parts.push(format!("throttled {} in {}{quota}", per_second(*throttled), name(path)));
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
            let evidence =
                Evidence { wait, most: owned(most), steal, throttled: owned(throttled), compared: true, ..Evidence::default() };
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

    #[test]
    fn names_the_culprit_and_the_quota() {
        let behind = |name: &str, kind| Some((Blamed { name: name.into(), kind, rate: 0.63 }, 0.7));
        let mut evidence = Evidence {
            wait: Some(1.24),
            most: Some(("/batch.slice".into(), 0.9)),
            behind: behind("/api.slice", "cgroup"),
            throttled: Some(("/api.slice/web".into(), 0.3)),
            quota: Some("/api.slice".into()),
            compared: true,
            ..Evidence::default()
        };
        assert_eq!(
            sentence(&evidence),
            "Waited 1.24s/s, most in /batch.slice (900ms/s, 70% behind /api.slice); throttled 300ms/s in /api.slice/web by the quota of \
             /api.slice."
        );
        (evidence.behind, evidence.throttled) = (behind("~self", "self"), None);
        assert_eq!(sentence(&evidence), "Waited 1.24s/s, most in /batch.slice (900ms/s, 70% behind its own tasks).");
    }
}
