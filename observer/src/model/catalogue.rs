//! The list of all metrics: what `observer metrics`, docs/METRICS.md and the rules below loop over.

use super::{
    Allocator, Attributes, Cgroup, Contention, Cpu, Entity, Host, Info, Kind, NetNs, Objective, Process, Source, TcpFlow, Thread,
};

/// A metric of one kind of entity.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose.
    pub kind: Kind,
    /// Name, title, sentence, unit, shape.
    pub info: &'static Info,
    /// The attribute sets of its points.
    pub attributes: Vec<Attributes>,
}

/// Every metric of every kind of entity, in the order of output.
pub fn all() -> Vec<Entry> {
    let mut entries = Vec::new();
    entries.extend(of::<Host>());
    entries.extend(of::<Cpu>());
    entries.extend(of::<Cgroup>());
    entries.extend(of::<Objective>());
    entries.extend(of::<Contention>());
    entries.extend(of::<Allocator>());
    entries.extend(of::<TcpFlow>());
    entries.extend(of::<NetNs>());
    entries.extend(of::<Process>());
    entries.extend(of::<Thread>());
    entries.extend(of::<Source>());
    entries
}

fn of<E: Entity>() -> impl Iterator<Item = Entry> {
    E::metrics().iter().map(|metric| Entry { kind: E::KIND, info: &metric.info, attributes: metric.attributes() })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::Unit;
    use super::super::metric::Shape;
    use super::*;

    /// Names that OpenTelemetry's semantic conventions define and observer uses verbatim.
    const CONVENTIONS: &[&str] = &[
        "process.cpu.time",
        "process.thread.count",
        "system.cpu.time",
        "system.memory.usage",
        "system.memory.linux.available",
        "system.uptime",
    ];

    #[test]
    fn every_kind_is_listed_in_order() {
        let kinds: BTreeSet<_> = all().iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::ALL);
    }

    #[test]
    fn names_follow_the_conventions() {
        for Entry { info, .. } in all() {
            let name = info.name;
            assert!(name.starts_with("observer.") || CONVENTIONS.contains(&name), "{name}: new names start with observer.");
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_';
            assert!(name.chars().all(allowed), "{name}: lower case, dots and underscores only");
            assert!(!name.ends_with("_total") && !name.contains("seconds"), "{name}: no unit and no _total in a name");
        }
    }

    #[test]
    fn titles_and_sentences_are_fit_to_print() {
        for Entry { info, .. } in all() {
            assert!((1..=10).contains(&info.title.chars().count()), "{}: title {:?}", info.name, info.title);
            assert!(info.help.ends_with('.') && info.help.starts_with(|c: char| !c.is_lowercase()), "{}", info.name);
        }
    }

    #[test]
    fn one_name_has_one_meaning() {
        let mut seen: BTreeMap<&str, (Unit, Shape)> = BTreeMap::new();
        let mut listed = BTreeSet::new();
        for Entry { kind, info, .. } in all() {
            let meaning = (info.unit, info.shape);
            assert_eq!(*seen.entry(info.name).or_insert(meaning), meaning, "{}: unit and shape differ", info.name);
            assert!(listed.insert((kind, info.name)), "{} twice on {}", info.name, kind.name());
        }
    }

    #[test]
    fn points_partition_their_metric() {
        for Entry { info, attributes, .. } in all() {
            assert!(!attributes.is_empty(), "{} has no points", info.name);
            let names = |set: Attributes| set.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            let distinct: BTreeSet<_> = attributes.iter().map(|set| set.to_vec()).collect();
            assert_eq!(distinct.len(), attributes.len(), "{}: an attribute set twice", info.name);
            assert!(
                attributes.iter().all(|set| names(set) == names(attributes[0])),
                "{}: every point carries the same attribute names, so none is a total beside its parts",
                info.name
            );
        }
    }

    #[test]
    fn histograms_are_of_seconds() {
        for Entry { info, .. } in all().into_iter().filter(|entry| entry.info.shape == Shape::Histogram) {
            assert_eq!(info.unit, Unit::Seconds, "{}", info.name);
        }
    }
}
