//! Whether every crate that is compiled in has a licence from the list in deny.toml, which
//! `cargo deny` reads too.

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use spdx::{Expression, ParseMode};

use crate::process::Cmd;
use crate::workspace::{self, Workspace};

const LIST: &str = "deny.toml";

#[derive(Deserialize)]
struct Deny {
    graph: Graph,
    licenses: Licenses,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: HashSet<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// A licence that one crate alone may have.
#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate", alias = "name")]
    name: String,
    allow: HashSet<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let text = workspace::read_text(&workspace.path(LIST))?;
    let deny: Deny = toml::from_str(&text).with_context(|| format!("{LIST} is not as expected"))?;
    let platforms = deny.graph.targets.iter().flat_map(|target| ["--filter-platform", target]);
    let text = Cmd::cargo("metadata").args(["--format-version", "1", "--locked"]).args(platforms).dir(&workspace.root).text()?;
    let metadata: Metadata = serde_json::from_str(&text).context("`cargo metadata` printed something else than its JSON")?;
    let refused: Vec<String> = metadata.packages.iter().filter_map(|package| deny.licenses.refuse(package)).collect();
    if !refused.is_empty() {
        bail!("licences that {LIST} does not allow:\n  {}", refused.join("\n  "));
    }
    println!("{} packages, every licence is allowed by {LIST}", metadata.packages.len());
    Ok(())
}

impl Licenses {
    /// Why this package may not be used.
    fn refuse(&self, package: &Package) -> Option<String> {
        let name = format!("{} {}", package.name, package.version);
        let Some(text) = &package.license else {
            return Some(format!("{name}: states no licence"));
        };
        // Old crates write `MIT/Apache-2.0`.
        let expression = match Expression::parse_mode(text, ParseMode::LAX) {
            Ok(expression) => expression,
            Err(error) => {
                return Some(format!("{name}: {text:?} is no SPDX expression: {}", error.reason));
            }
        };
        let own = self.exceptions.iter().filter(|exception| exception.name == package.name);
        let own: HashSet<&str> = own.flat_map(|exception| &exception.allow).map(String::as_str).collect();
        let allowed = expression.evaluate(|wanted| {
            let wanted = wanted.to_string();
            self.allow.contains(&wanted) || own.contains(wanted.as_str())
        });
        (!allowed).then(|| format!("{name}: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, license: Option<&str>) -> Option<String> {
        let licenses: Licenses = toml::from_str(
            r#"
            allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
            exceptions = [{ crate = "special", allow = ["Zlib"] }]
            "#,
        )
        .unwrap();
        let license = license.map(str::to_owned);
        licenses.refuse(&Package { name: name.to_owned(), version: "1.0.0".to_owned(), license })
    }

    #[test]
    fn one_allowed_choice_is_enough() {
        assert_eq!(refusal("a", Some("MIT")), None);
        assert_eq!(refusal("a", Some("MIT/Apache-2.0")), None);
        assert_eq!(refusal("a", Some("GPL-2.0-only OR MIT")), None);
        assert_eq!(refusal("a", Some("(MIT OR Zlib) AND Apache-2.0 WITH LLVM-exception")), None);
    }

    #[test]
    fn everything_joined_by_and_must_be_allowed() {
        let text = refusal("a", Some("MIT AND GPL-2.0-only")).unwrap();
        assert_eq!(text, "a 1.0.0: MIT AND GPL-2.0-only");
    }

    #[test]
    fn an_exception_is_for_its_crate_alone() {
        assert_eq!(refusal("special", Some("Zlib")), None);
        assert!(refusal("a", Some("Zlib")).is_some());
    }

    #[test]
    fn a_licence_must_be_stated_and_readable() {
        assert_eq!(refusal("a", None).unwrap(), "a 1.0.0: states no licence");
        assert!(refusal("a", Some("as you like")).unwrap().contains("no SPDX expression"));
    }
}
