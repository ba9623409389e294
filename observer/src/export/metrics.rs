//! The catalogue of metrics, as `observer metrics` writes it and as docs/METRICS.md holds it.

use serde_json::{Value as Json, json};

use super::grid::{Align, Grid};
use crate::model::catalogue::{self, Entry};
use crate::model::{Attributes, Kind};

/// What docs/METRICS.md says of the kinds that stay here.
const NOT_EXPORTED: &str = "On screens and in `observer dump` only (`--entity thread` for threads); not exported by OTLP, where each would be a series\n\
     that soon ends. Cgroups carry the same time as their processes and threads, the host the same segments as its flows.\n\n";

/// For a terminal.
pub fn table() -> String {
    let columns = ["ENTITY", "NAME", "KIND", "UNIT", "ATTRIBUTES", "MEANING"];
    let mut grid = Grid::new(columns.map(|title| (title.to_owned(), Align::Left)).into());
    for Entry { kind, info, attributes } in catalogue::all() {
        let attributes = values(&attributes).into_iter().map(|(name, values)| format!("{name}={}", values.join("|")));
        grid.push(vec![
            kind.name().into(),
            info.name.into(),
            info.shape.name().into(),
            info.unit.ucum(),
            attributes.collect::<Vec<_>>().join(" "),
            info.help.into(),
        ]);
    }
    grid.render()
}

/// An array of objects: entity, name, title, kind, unit, help, and for each attribute its values.
pub fn json() -> Json {
    let entry = |Entry { kind, info, attributes }: Entry| {
        let attributes: serde_json::Map<_, _> =
            values(&attributes).into_iter().map(|(name, values)| (name.to_owned(), json!(values))).collect();
        json!({
            "entity": kind.name(),
            "name": info.name,
            "title": info.title,
            "kind": info.shape.name(),
            "unit": info.unit.ucum(),
            "help": info.help,
            "attributes": attributes,
        })
    };
    catalogue::all().into_iter().map(entry).collect()
}

/// docs/METRICS.md.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Written by `cargo xtask docs` from the catalogue in `observer/src/model`; `observer metrics` prints the same. Units are UCUM's.\n\n\
         A counter only grows: it shows as a rate and leaves as a cumulative sum. A gauge is a value now. A histogram leaves as an\n\
         OpenTelemetry exponential histogram of scale 3. A text is for people and leaves in JSON alone. What is unknown is left out, never\n\
         zero. The points of one metric partition it: their sum is the total; but of pressure, full is a part of some.\n",
    );
    let entries = catalogue::all();
    for kind in Kind::ALL {
        let note = if kind.is_exported() { "" } else { NOT_EXPORTED };
        text.push_str(&format!(
            "\n## {}\n\n{note}| name | kind | unit | attributes | meaning |\n| --- | --- | --- | --- | --- |\n",
            kind.name()
        ));
        for Entry { info, attributes, .. } in entries.iter().filter(|entry| entry.kind == kind) {
            let attributes = values(attributes).into_iter().map(|(name, values)| format!("`{name}`: {}", values.join(", ")));
            let attributes = attributes.collect::<Vec<_>>().join("; ");
            let (name, shape, unit) = (info.name, info.shape.name(), info.unit.ucum());
            let help = info.help.replace('|', r"\|");
            text.push_str(&format!("| `{name}` | {shape} | `{unit}` | {attributes} | {help} |\n"));
        }
    }
    text
}

/// Each attribute name with its values, in the order of the points.
fn values(sets: &[Attributes]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut found: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for (name, value) in sets.iter().flat_map(|set| set.iter()) {
        match found.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) if values.contains(value) => {}
            Some((_, values)) => values.push(value),
            None => found.push((name, vec![value])),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_output_holds_every_metric() {
        let (table, json, markdown) = (table(), json(), markdown());
        assert_eq!(json.as_array().unwrap().len(), catalogue::all().len());
        assert_eq!(table.lines().count(), catalogue::all().len() + 1);
        for (Entry { info, .. }, object) in catalogue::all().iter().zip(json.as_array().unwrap()) {
            assert_eq!(object["name"], info.name);
            assert!(table.contains(info.help) && markdown.contains(&format!("| `{}` |", info.name)), "{}", info.name);
        }
    }

    #[test]
    fn values_of_a_cross_product_are_listed_once() {
        let sets: [Attributes; 3] = [&[("a", "1"), ("b", "x")], &[("a", "1"), ("b", "y")], &[("a", "2"), ("b", "x")]];
        assert_eq!(values(&sets), [("a", vec!["1", "2"]), ("b", vec!["x", "y"])]);
    }
}
