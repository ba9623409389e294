//! The report of `observer doctor`: what this machine and these privileges allow, what is lost without the rest, and how the scheduler
//! is set up.

use serde_json::{Value as Json, json};

use super::grid::{Align, Grid};
use crate::model::{Availability, Feature, Setting};

/// For a terminal: one line for each feature, then what was found, then a paragraph for each that is not simply available; then the
/// scheduler's settings, and a paragraph for each that changes what numbers mean.
pub fn table(features: &[Feature], settings: &[Setting]) -> String {
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
    text.push_str(&scheduler(settings));
    text
}

fn scheduler(settings: &[Setting]) -> String {
    let mut grid = Grid::new(["SCHEDULER", "HERE (– IS ABSENT OR NOT TOLD)"].map(|title| (title.to_owned(), Align::Left)).into());
    for setting in settings {
        grid.push(vec![setting.name.into(), setting.value.clone().unwrap_or_else(|| "–".into())]);
    }
    let mut text = format!("\n{}", grid.render());
    for setting in settings {
        if let Some(meaning) = &setting.meaning {
            text.push_str(&format!("\n{}: {meaning}.\n", setting.name));
        }
    }
    text
}

/// `{"features": [{"feature", "state", "found", "reason", "lost", "remedy"}], "scheduler": [{"setting", "value", "meaning"}]}`; found,
/// reason, remedy, value and meaning are null where there is none.
pub fn json(features: &[Feature], settings: &[Setting]) -> Json {
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
    let setting = |setting: &Setting| json!({ "setting": setting.name, "value": setting.value, "meaning": setting.meaning });
    json!({
        "features": features.iter().map(object).collect::<Vec<_>>(),
        "scheduler": settings.iter().map(setting).collect::<Vec<_>>(),
    })
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

    fn settings() -> Vec<Setting> {
        let setting = |name, value: Option<&str>, meaning: Option<&str>| Setting {
            name,
            value: value.map(str::to_owned),
            meaning: meaning.map(str::to_owned),
        };
        vec![
            setting("sched_ext", None, None),
            setting("isolated", Some("CPUs 2-3"), Some("nobody moves")),
            setting("smt", Some("off"), None),
        ]
    }

    #[test]
    fn what_is_missing_says_why_and_what_to_do() {
        insta::assert_snapshot!(table(&features(), &settings()), @r"
        FEATURE  STATE      WHAT IT GIVES
        proc     available  Time by CPU.
        btf      missing    Waits.

        FOUND
        proc   2 CPUs

        btf: /sys/kernel/btf/vmlinux does not exist.
          To get it: use another kernel.

        SCHEDULER  HERE (– IS ABSENT OR NOT TOLD)
        sched_ext  –
        isolated   CPUs 2-3
        smt        off

        isolated: nobody moves.
        ");
        assert!(table(&features()[..1], &settings()).contains("works here.\n"));
    }

    #[test]
    fn for_scripts() {
        let report = json(&features(), &settings());
        assert_eq!(report["scheduler"][1], json!({ "setting": "isolated", "value": "CPUs 2-3", "meaning": "nobody moves" }));
        assert!(report["scheduler"][0]["value"].is_null());
        let features = &report["features"];
        assert_eq!(features[0]["state"], "available");
        assert!(features[0]["reason"].is_null() && features[0]["remedy"].is_null());
        assert_eq!(features[0]["found"], "2 CPUs");
        assert_eq!(features[1]["reason"], "/sys/kernel/btf/vmlinux does not exist");
    }
}
