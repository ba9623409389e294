//! `cargo xtask collector`: the OpenTelemetry Collector, built for the tests from its Go modules.
//!
//! A small one: OTLP in, a file of JSON lines, Prometheus and the log out. Nothing else proves as
//! plainly that what observer sends is understood.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::digest::sha256;
use crate::process::{Cmd, find_program};
use crate::workspace::{self, Workspace};

pub(crate) const WITHOUT_GO: &str = "Go is missing, which builds the OpenTelemetry Collector (1.25 or newer, see go.dev)";

/// Newer ones lack modules in the public proxies.
const VERSION: &str = "v0.155.0";
/// The parts of the Collector that are numbered apart.
const STABLE_VERSION: &str = "v1.61.0";

const CORE: &str = "go.opentelemetry.io/collector";
const CONTRIB: &str = "github.com/open-telemetry/opentelemetry-collector-contrib";

/// What is built in: kind in the manifest, module, version.
fn components() -> [(&'static str, String, &'static str); 8] {
    [
        ("receivers", format!("{CORE}/receiver/otlpreceiver"), VERSION),
        ("processors", format!("{CORE}/processor/batchprocessor"), VERSION),
        ("exporters", format!("{CORE}/exporter/debugexporter"), VERSION),
        ("exporters", format!("{CONTRIB}/exporter/fileexporter"), VERSION),
        ("exporters", format!("{CONTRIB}/exporter/prometheusexporter"), VERSION),
        ("providers", format!("{CORE}/confmap/provider/envprovider"), STABLE_VERSION),
        ("providers", format!("{CORE}/confmap/provider/fileprovider"), STABLE_VERSION),
        ("providers", format!("{CORE}/confmap/provider/yamlprovider"), STABLE_VERSION),
    ]
}

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let go = go().context(WITHOUT_GO)?;
    println!("{}", build(workspace, &go)?.display());
    Ok(())
}

pub(crate) fn go() -> Option<PathBuf> {
    find_program("go")
}

/// Builds it unless the one from the last time is of the same recipe.
pub(crate) fn build(workspace: &Workspace, go: &Path) -> Result<PathBuf> {
    let folder = workspace.target.join("otelcol");
    let program = folder.join("otelcol");
    let stamp = folder.join("recipe.sha256");
    let sources = folder.join("sources");
    let manifest = manifest(&sources);
    let recipe = sha256(recipe().as_bytes());
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == recipe) {
        return Ok(program);
    }
    let _ = fs::remove_dir_all(&folder);
    let tools = folder.join("bin");
    let go = || go_call(go);

    let builder = format!("{CORE}/cmd/builder@{VERSION}");
    go().args(["install", &builder]).env("GOBIN", &tools).run()?;
    let config = folder.join("builder.yaml");
    workspace::write(&config, manifest)?;
    // The builder would call `go mod tidy`, which asks for modules that only tests of contrib need.
    Cmd::new(tools.join("builder")).args(["--skip-get-modules", "--skip-compilation", "--config"]).arg(&config).run()?;

    // Its go.mod names nothing but the components; `go get` finds the rest.
    let _ = fs::remove_file(sources.join("go.mod"));
    go().args(["mod", "init", "otelcol"]).dir(&sources).run()?;
    go().arg("get").args(modules()).dir(&sources).run()?;
    go().args(["build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&program).arg(".").dir(&sources).run()?;
    workspace::write(&stamp, recipe)?;
    Ok(program)
}

/// Go without the user's flags and workspace; its caches stay where the user has them.
fn go_call(go: &Path) -> Cmd {
    Cmd::new(go).env("GOFLAGS", "").env("GOWORK", "off").env("CGO_ENABLED", "0")
}

/// What `go get` is asked for, with versions.
fn modules() -> Vec<String> {
    let parts = components().into_iter().map(|(_, module, version)| format!("{module}@{version}"));
    parts.chain([format!("{CORE}/otelcol@{VERSION}")]).collect()
}

/// Independent of where the checkout is.
fn recipe() -> String {
    manifest(Path::new("sources"))
}

fn manifest(sources: &Path) -> String {
    let mut text = format!(
        "dist:\n  name: otelcol\n  module: otelcol\n  version: {VERSION}\n  \
         description: for observer's tests\n  output_path: {:?}\n",
        sources.display().to_string()
    );
    let mut last = "";
    for (kind, module, version) in components() {
        if kind != last {
            text.push_str(&format!("{kind}:\n"));
            last = kind;
        }
        text.push_str(&format!("  - gomod: {module} {version}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_one_list() {
        let text = manifest(Path::new("out"));
        for kind in ["receivers:", "processors:", "exporters:", "providers:"] {
            assert_eq!(text.matches(kind).count(), 1, "{text}");
        }
        assert_eq!(text.matches("gomod").count(), components().len());
        assert!(text.contains("output_path: \"out\"\n"), "{text}");
    }

    #[test]
    fn every_module_has_its_version() {
        assert_eq!(modules().len(), 9);
        assert!(modules().iter().all(|module| module.contains("@v")));
    }
}
