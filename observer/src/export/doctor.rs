//! The report of `observer doctor`: what this machine and these privileges allow, and what is lost without the rest.

use serde_json::{Value as Json, json};

use super::grid::{Align, Grid};
use crate::model::{Availability, Feature};

/// For a terminal: one line for each feature, then what was found, then a paragraph for each that is not simply available.
pub fn table(features: &[Feature]) -> String {
    let mut grid = Grid::new(["FEATURE", "STATE", "WHAT IT GIVES"].map(|title| (title.to_owned(), Align::Left)).into());
    for feature in features {
        grid.push(vec![feature.name.into(), feature.state.name().into(), feature.lost.into()]);
    }
    let mut text = grid.render();
    let mut found = Grid::new(vec![("FOUND".to_owned(), Align::Left), (String::new(), Align::Left)]);
    let mut any = false;
    for feature in features {
        if let Some(what) = &feature.found {
            found.push(vec![feature.name.into(), what.clone()]);
            any = true;
        }
    }
    if any {
        text.push_str(&format!("\n{}", found.render()));
    }
    for feature in features {
        let Some(reason) = feature.state.reason() else { continue };
        text.push_str(&format!("\n{}: {reason}.\n", feature.name));
        if let Some(remedy) = &feature.remedy {
            text.push_str(&format!("  To get it: {remedy}.\n"));
        }
    }
    if features.iter().all(|feature| feature.state == Availability::Available) {
        text.push_str("\nEverything observer can do works here.\n");
    }
    text
}

/// `{"features": [{"feature", "state", "found", "reason", "lost", "remedy"}]}`; found, reason and remedy are null where there is none.
pub fn json(features: &[Feature]) -> Json {
    let object = |feature: &Feature| {
        json!({
            "feature": feature.name,
            "state": feature.state.name(),
            "found": feature.found,
            "reason": feature.state.reason(),
            "lost": feature.lost,
            "remedy": feature.remedy,
        })
    };
    json!({ "features": features.iter().map(object).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Vec<Feature> {
        let missing = Availability::Missing("/sys/kernel/btf/vmlinux does not exist".into());
        vec![
            Feature {
                name: "proc",
                state: Availability::Available,
                lost: "Time by CPU.",
                found: Some("2 CPUs".into()),
                remedy: None,
            },
            Feature { name: "btf", state: missing, lost: "Waits.", found: None, remedy: Some("use another kernel".into()) },
        ]
    }

    #[test]
    fn what_is_missing_says_why_and_what_to_do() {
        insta::assert_snapshot!(table(&features()), @r"
        FEATURE  STATE      WHAT IT GIVES
        proc     available  Time by CPU.
        btf      missing    Waits.

        FOUND
        proc   2 CPUs

        btf: /sys/kernel/btf/vmlinux does not exist.
          To get it: use another kernel.
        ");
        assert!(table(&features()[..1]).ends_with("works here.\n"));
    }

    #[test]
    fn for_scripts() {
        let features = &json(&features())["features"];
        assert_eq!(features[0]["state"], "available");
        assert!(features[0]["reason"].is_null() && features[0]["remedy"].is_null());
        assert_eq!(features[0]["found"], "2 CPUs");
        assert_eq!(features[1]["reason"], "/sys/kernel/btf/vmlinux does not exist");
    }
}
