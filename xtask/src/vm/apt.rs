//! A private apt for each of Debian's suites: its sources, lists and cache lie in the build folder.
//!
//! The mirror and its keys are the machine's own, so that neither is written into the project, and
//! whatever reaches the machine's packages reaches the kernels.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::packages::persistently;
use crate::process::Cmd;
use crate::workspace::{self, read_text};

const RELEASE: &str = "/etc/os-release";

/// apt with the sources of one suite only.
pub(crate) struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Fetches the suite's lists into `folder`.
    pub(crate) fn update(folder: &Path, suite: &str) -> Result<Self> {
        let source = machine_source()?.with_suite(suite);
        workspace::write(&folder.join("sources.d/vm.sources"), source)?;
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        let apt = Self { config: folder.join("apt.conf") };
        workspace::write(&apt.config, configuration(folder))?;
        persistently(|| apt.call("apt-get").args(["--quiet", "update"]).run())?;
        Ok(apt)
    }

    /// The package that holds the kernel which `package` stands for: metapackages lead to it.
    pub(crate) fn kernel_behind(&self, package: &str) -> Result<String> {
        let mut package = package.to_owned();
        // A metapackage, the image, its binary; a longer chain would be a circle.
        for _ in 0..5 {
            let fields = self.call("apt-cache").args(["show", "--no-all-versions", &package]).quiet().text()?;
            match next_kernel(&fields, &package) {
                Some(next) => package = next,
                None => return Ok(package),
            }
        }
        bail!("the packages below {package} lead nowhere")
    }

    /// Downloads a package and unpacks it into `folder`; nothing is installed.
    pub(crate) fn unpack(&self, package: &str, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        persistently(|| self.call("apt-get").args(["--quiet", "download", package]).dir(folder).run())?;
        let archive = workspace::find_below(folder, &|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get left no package in {}", folder.display()))?;
        Cmd::new("dpkg").arg("-x").arg(&archive).arg(folder).run()?;
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
    }

    fn call(&self, program: &str) -> Cmd {
        Cmd::new(program).arg("-c").arg(&self.config)
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::Etc::sourcelist \"/dev/null\";\n\
         Dir::Etc::sourceparts \"{folder}/sources.d\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::Languages \"none\";\n\
         // apt's own user may not write into the build folder.\n\
         APT::Sandbox::User \"root\";\n\
         // Such hooks tidy up the system's cache, which is none of our business.\n\
         #clear APT::Update::Post-Invoke;\n"
    )
}

/// The kernel's package that this one depends on, from the answer of `apt-cache show`.
fn next_kernel(fields: &str, package: &str) -> Option<String> {
    let depends = fields.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let mut names = depends.split([',', '|']).filter_map(|dependency| dependency.split_whitespace().next());
    let kernel = |name: &&str| (name.starts_with("linux-image-") || name.starts_with("linux-binary-")) && *name != package;
    names.find(kernel).map(str::to_owned)
}

/// A source of packages: fields of a deb822 paragraph, continuation lines included.
#[derive(Debug, PartialEq, Eq)]
struct Source(Vec<(String, String)>);

impl Source {
    /// The same place, another suite.
    fn with_suite(&self, suite: &str) -> String {
        let kept = self.0.iter().filter(|(name, _)| !["types", "suites", "components"].contains(&name.to_lowercase().as_str()));
        let kept: String = kept.map(|(name, value)| format!("{name}:{value}\n")).collect();
        format!("Types: deb\nSuites: {suite}\nComponents: main\n{kept}")
    }

    fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        let field = self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.map_or("", |(_, value)| value).split_whitespace()
    }

    /// Whether it is where the machine's own release comes from.
    fn is_of(&self, release: &str) -> bool {
        self.words("types").any(|kind| kind == "deb") && self.words("suites").any(|suite| suite == release)
    }
}

/// Whether this machine's packages come from where Debian's kernels are, too: those who build on Debian have mirrors of their own.
pub(crate) fn is_debian() -> bool {
    read_text(Path::new(RELEASE)).is_ok_and(|release| field(&release, "ID").as_deref() == Some("debian"))
}

fn machine_source() -> Result<Source> {
    let release = read_text(Path::new(RELEASE))?;
    let release = field(&release, "VERSION_CODENAME").with_context(|| format!("{RELEASE} names no release: is this Debian?"))?;
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let sources = files.iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match file.extension()?.to_str()? {
            "list" => Some(one_line_sources(&text)),
            "sources" => Some(paragraphs(&text)),
            _ => None,
        }
    });
    let found = sources.flatten().find(|source| source.is_of(&release));
    found.with_context(|| format!("no apt source of this machine has {release}: the kernels are fetched where it comes from"))
}

fn field(os_release: &str, name: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// The newer format: paragraphs of fields.
fn paragraphs(text: &str) -> Vec<Source> {
    let mut sources = vec![Source(Vec::new())];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let last = sources.last_mut().map(|source| &mut source.0);
        match (last, line.split_once(':')) {
            (_, None) if line.trim().is_empty() => sources.push(Source(Vec::new())),
            // A key may be written out below its field.
            (Some(fields), _) if line.starts_with([' ', '\t']) => {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            }
            (Some(fields), Some((name, value))) => fields.push((name.to_owned(), value.to_owned())),
            _ => {}
        }
    }
    sources
}

/// The older format: `deb [signed-by=/key] address suite component…`.
fn one_line_sources(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line_source).collect()
}

fn one_line_source(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let mut fields = vec![("Types", "deb"), ("URIs", words.next()?), ("Suites", words.next()?)];
    for option in options.split_whitespace() {
        match option.split_once('=')? {
            ("signed-by", key) => fields.push(("Signed-By", key)),
            ("trusted", answer) => fields.push(("Trusted", answer)),
            _ => {}
        }
    }
    Some(Source(fields.into_iter().map(|(name, value)| (name.to_owned(), format!(" {value}"))).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAGRAPHS: &str = "\
# a comment
Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security

Types: deb deb-src
URIs: http://mirror.example/debian
# another
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc=
";

    #[test]
    fn a_paragraph_keeps_its_place_and_its_key() {
        let sources = paragraphs(PARAGRAPHS);
        let of: Vec<bool> = sources.iter().map(|source| source.is_of("bookworm")).collect();
        assert_eq!(of, [false, true]);
        let expected = "\
Types: deb
Suites: sid
Components: main
URIs: http://mirror.example/debian
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc=
";
        assert_eq!(sources[1].with_suite("sid"), expected);
    }

    #[test]
    fn a_line_keeps_its_place_and_its_key() {
        let text = "# deb http://mirror.example/old bookworm main\n\
                    deb-src http://mirror.example/debian bookworm main\n\
                    deb [ arch=amd64 signed-by=/keys/debian.gpg ] http://mirror.example/debian bookworm main contrib\n\
                    deb http://mirror.example/security bookworm-security main\n";
        let sources = one_line_sources(text);
        let of: Vec<bool> = sources.iter().map(|source| source.is_of("bookworm")).collect();
        assert_eq!(of, [true, false]);
        let expected = "\
Types: deb
Suites: bullseye
Components: main
URIs: http://mirror.example/debian
Signed-By: /keys/debian.gpg
";
        assert_eq!(sources[0].with_suite("bullseye"), expected);
    }

    #[test]
    fn metapackages_lead_to_the_kernel() {
        let check = |depends: &str, expected: Option<&str>| {
            let fields = format!("Package: p\nDepends: {depends}\nDescription: linux-image-no\n");
            assert_eq!(next_kernel(&fields, "linux-image-7.2-cloud-amd64").as_deref(), expected);
        };
        check("linux-image-5.10.0-32-cloud-amd64 (= 5.10.223-1)", Some("linux-image-5.10.0-32-cloud-amd64"));
        check("linux-base-cloud-amd64 (= 7.2), linux-image-7.2.13-cloud-amd64 (= 7.2)", Some("linux-image-7.2.13-cloud-amd64"));
        check("linux-binary-7.2-cloud-amd64 (= 7.2) | other, kmod", Some("linux-binary-7.2-cloud-amd64"));
        check("kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool", None);
        check("linux-image-7.2-cloud-amd64", None);
    }

    #[test]
    fn the_release_is_named_with_and_without_quotes() {
        assert_eq!(field("ID=debian\nVERSION_CODENAME=bookworm\n", "VERSION_CODENAME").as_deref(), Some("bookworm"));
        assert_eq!(field("VERSION_CODENAME=\"trixie\"\n", "VERSION_CODENAME").as_deref(), Some("trixie"));
        assert_eq!(field("VERSION_ID=12\nID=arch\n", "ID").as_deref(), Some("arch"));
        assert_eq!(field("ID=arch\n", "VERSION_CODENAME"), None);
    }
}
