//! The report of `observer doctor`: what this machine and these privileges allow, and what is lost without the rest.

use serde_json::{Value as Json, json};

use super::grid::{Align, Grid};
use crate::model::{Availability, Feature};

/// For a terminal: one line for each feature, then a paragraph for each that is not simply available.
pub fn table(features: &[Feature]) -> String {
    let mut grid = Grid::new(["FEATURE", "STATE", "WHAT IT GIVES"].map(|title| (title.to_owned(), Align::Left)).into());
    for feature in features {
        grid.push(vec![feature.name.into(), feature.state.name().into(), feature.lost.into()]);
    }
    let mut text = grid.render();
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

/// `{"features": [{"feature", "state", "reason", "lost", "remedy"}]}`; reason and remedy are null where there is none.
pub fn json(features: &[Feature]) -> Json {
    let object = |feature: &Feature| {
        json!({
            "feature": feature.name,
            "state": feature.state.name(),
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
            Feature { name: "proc", state: Availability::Available, lost: "Time by CPU.", remedy: None },
            Feature { name: "btf", state: missing, lost: "Waits.", remedy: Some("use another kernel".into()) },
        ]
    }

    #[test]
    fn what_is_missing_says_why_and_what_to_do() {
        insta::assert_snapshot!(table(&features()), @r"
        FEATURE  STATE      WHAT IT GIVES
        proc     available  Time by CPU.
        btf      missing    Waits.

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
        assert_eq!(features[1]["reason"], "/sys/kernel/btf/vmlinux does not exist");
    }
}
