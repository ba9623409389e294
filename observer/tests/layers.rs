//! Who may know whom. The rules stand in [`LAYERS`] and [`UNSAFE`]; a file that breaks one fails with its sentence.
#![allow(clippy::unwrap_used, reason = "clippy exempts test functions, not the helpers beside them; all of this file is test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[path = "layers/source.rs"]
mod source;

use source::{Used, paths, tokens};

/// The rule of one layer: a top-level module of `observer`, with all below it.
struct Layer {
    name: &'static str,
    /// Paths of this crate that it may use besides its own; each with everything below.
    knows: &'static [&'static str],
    /// External crates that it may use; `None` is any.
    crates: Option<&'static [&'static str]>,
    sentence: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer {
        name: "model",
        knows: &[],
        crates: Some(&["observer_common"]),
        sentence: "model is pure: it knows std and observer_common, and no other layer",
    },
    Layer { name: "sys", knows: &[], crates: None, sentence: "sys wraps system calls and knows no other layer" },
    Layer {
        name: "collect",
        knows: &["model", "sys"],
        crates: None,
        sentence: "collect knows model and sys, never who consumes",
    },
    Layer { name: "export", knows: &["model"], crates: None, sentence: "export knows only model, never collect, run or tui" },
    Layer { name: "tui", knows: &["model"], crates: None, sentence: "tui knows only model, never collect, run or export" },
    Layer { name: "findings", knows: &["model"], crates: None, sentence: "findings knows only model: samples in, events out" },
    Layer {
        name: "config",
        knows: &["collect::Roots", "findings::Thresholds", "findings::Burst", "model::objective"],
        crates: None,
        sentence: "config knows collect::Roots, findings::Thresholds and model::objective, which it fills, and no other layer",
    },
    Layer {
        name: "cli",
        knows: &["config", "model"],
        crates: None,
        sentence: "cli knows the words of config and the kinds of model, and does nothing itself",
    },
];

/// These know everything.
const ABOVE: &[&str] = &["run", "main", "lib"];

/// Files that may say `unsafe`; the lints demand a reason for each block.
const UNSAFE: &[&str] = &[
    "observer/src/sys.rs",
    "observer-common/src/pod.rs",
    "observer-ebpf/src/kernel.rs",
    "observer-ebpf/src/maps.rs",
    // Only `#[unsafe(…)]` on entry points and sections.
    "observer-ebpf/src/main.rs",
    "observer-ebpf/src/blame.rs",
    "observer-ebpf/src/sched.rs",
    "observer-ebpf/src/tasks.rs",
    "observer-ebpf/src/tcp.rs",
    // A developer's tool, nothing that ships: it asks bpf() once whether live tests can run here, and no crate it has offers that.
    "xtask/src/live.rs",
];

#[test]
fn every_file_keeps_to_its_layer() {
    let root = workspace().join("observer/src");
    let crates = dependencies(&read(&workspace().join("observer/Cargo.toml")));
    let check = |file: PathBuf| check_layer(&module_of(file.strip_prefix(&root).unwrap()), &read(&file), &crates);
    let broken: Vec<_> = rust_files(&root).into_iter().flat_map(check).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_module_has_a_rule() {
    let root = workspace().join("observer/src");
    for file in rust_files(&root) {
        let top = module_of(file.strip_prefix(&root).unwrap()).swap_remove(0);
        let known = LAYERS.iter().any(|layer| layer.name == top) || ABOVE.contains(&top.as_str());
        assert!(known, "observer/src/{top}: say in tests/layers.rs whom it may know");
    }
}

#[test]
fn unsafe_has_its_places() {
    for member in ["observer", "observer-common", "observer-ebpf", "xtask"] {
        for file in rust_files(&workspace().join(member)) {
            let name = file.strip_prefix(workspace()).unwrap().to_str().unwrap().to_owned();
            let allowed = UNSAFE.contains(&name.as_str()) || !says_unsafe(&read(&file));
            assert!(allowed, "{name}: unsafe has its place in {}", UNSAFE.join(", "));
        }
    }
}

// ---- The tester, tested ----

/// The paths that a text must not use, being part of a module.
#[track_caller]
fn check(module: &str, text: &str, expected: &[&str]) {
    let module: Vec<_> = module.split("::").map(str::to_owned).collect();
    let crates = ["serde", "observer_common", "libc"].map(str::to_owned).into();
    let found = check_layer(&module, text, &crates);
    let used: Vec<_> = found.iter().map(|line| line.split('`').nth(1).unwrap()).collect();
    assert_eq!(used, expected, "{text}");
}

#[test]
fn model_is_pure() {
    check("model::cpu", "use super::Metric; use std::fmt; use observer_common::sched;", &[]);
    check("model::cpu", "use crate::collect::Roots;", &["collect::Roots"]);
    check("model::cpu", "use serde::Serialize;", &["serde::Serialize"]);
    check("model::cpu", "use ::serde::Serialize; use libc;", &["serde::Serialize", "libc"]);
    check("model::cpu", "fn f() { serde::to_string(1) }", &["serde::to_string"]);
    check("model::cpu", "fn f() { let serde = 1; x.serde(); std::serde::x(); T::serde::<u8>() }", &[]);
}

#[test]
fn relative_paths_are_followed() {
    check("model::cpu", "mod tests { use super::*; use super::super::sched; }", &[]);
    check("model", "mod tests { use super::super::run; }", &["run"]);
    check("model", "mod a { fn f() { if x {} } } use super::run;", &["run"]);
    check("export::json", "use super::super::tui::x; use super::Narrow;", &["tui::x"]);
    check(
        "export::json",
        "use super::super::model::Kind; fn f() -> crate::run::Failure { crate::model::x() }",
        &["run::Failure"],
    );
}

#[test]
fn trees_are_spread_out() {
    check("export::json", "use crate::{model::{Kind, Unit}, collect::{self, Roots}};", &["collect", "collect::Roots"]);
    check("export::json", "use crate::{model::Kind as K, tui as t, run::*,}; use crate::sys;", &["tui", "run::*", "sys"]);
}

#[test]
fn comments_and_strings_are_not_code() {
    check(
        "export::json",
        "// use crate::run;\n/* use crate::run; /* nested */ */ const X: &str = \"crate::run \\\" crate::tui\";",
        &[],
    );
    check("export::json", r####"const X: &str = r##"crate::run"#"##; use crate::tui;"####, &["tui"]);
    check(
        "export::json",
        r#"const C: char = '"'; use crate::run; const D: char = '\''; fn f<'a>(x: &'a crate::sys::S) {}"#,
        &["run", "sys::S"],
    );
    assert!(says_unsafe("fn f() { unsafe { } }") && says_unsafe("#[unsafe(no_mangle)]"));
    assert!(!says_unsafe("// unsafe\nconst X: &str = \"unsafe\"; #![deny(unsafe_code)]"));
}

#[test]
fn each_layer_has_its_own_rule() {
    check("config", "use crate::collect::Roots; use crate::collect::Collector;", &["collect::Collector"]);
    check("config::file", "use super::Config; use crate::collect::Roots as Places;", &[]);
    check("cli", "use crate::config::Level; use crate::model::Kind; use crate::export::json;", &["export::json"]);
    check("collect::proc", "use crate::model::Host; use crate::sys; use crate::export::json;", &["export::json"]);
    check("tui::app", "use crate::collect as c; pub use crate::export::*;", &["collect", "export::*"]);
    check("run", "use crate::tui; use crate::collect;", &[]);
    check("run::collecting", "use crate::tui;", &[]);
}

#[test]
fn a_broken_rule_is_told_in_its_sentence() {
    let found = check_layer(&["export".into(), "json".into()], "\n\nuse crate::run::x;", &BTreeSet::new());
    assert_eq!(found, ["export::json uses `run::x`: export knows only model, never collect, run or tui"]);
}

// ---- How the rules are applied ----

fn check_layer(module: &[String], text: &str, crates: &BTreeSet<String>) -> Vec<String> {
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == module[0]) else { return Vec::new() };
    let broken = paths(module, text).into_iter().filter(|used| !layer.may_use(used, crates));
    broken.map(|used| format!("{} uses `{}`: {}", module.join("::"), used.path(), layer.sentence)).collect()
}

impl Layer {
    fn may_use(&self, used: &Used, crates: &BTreeSet<String>) -> bool {
        let path = used.path();
        let top = path.split("::").next().unwrap_or_default();
        match used {
            Used::Here(_) => {
                let is_layer = LAYERS.iter().any(|layer| layer.name == top) || ABOVE.contains(&top);
                let below = |of: &&str| path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
                !is_layer || top == self.name || self.knows.iter().any(below)
            }
            Used::Elsewhere(_) => !crates.contains(top) || self.crates.is_none_or(|allowed| allowed.contains(&top)),
        }
    }
}

fn says_unsafe(text: &str) -> bool {
    tokens(text).iter().any(|token| token == "unsafe")
}

/// `model/mod.rs` is `model`, `model/cpu.rs` is `model::cpu`.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<_> = file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    parts.pop_if(|last| last == "mod");
    parts
}

/// Names of the crates in `[dependencies]`, as the source writes them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().map(|name| name.replace('-', "_")).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name() != Some("target".as_ref()) {
            files.extend(rust_files(&path));
        } else if path.extension() == Some("rs".as_ref()) {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
