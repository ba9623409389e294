//! Running other programs: each call is shown first, and a failure names the program and status.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// One call of another program.
pub(crate) struct Cmd {
    command: Command,
    shown: bool,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), shown: true }
    }

    /// The cargo that runs this task. Inside `cargo xtask` that is a toolchain's own program, so
    /// that rustup's choice of a toolchain is not made a second time.
    pub(crate) fn cargo(subcommand: &str) -> Self {
        let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let inherited = env::vars_os().map(|(name, _)| name).filter(|name| is_of_our_package(&name.to_string_lossy()));
        inherited.fold(Self::new(program).arg(subcommand), Self::env_remove)
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Does not print the call: for questions, where only the answer matters.
    pub(crate) fn quiet(mut self) -> Self {
        self.shown = false;
        self
    }

    /// Runs it; anything but success is an error.
    pub(crate) fn run(self) -> Result<()> {
        let line = self.line();
        let status = self.status()?;
        if !status.success() {
            bail!("`{line}` failed: {status}");
        }
        Ok(())
    }

    /// Runs it and leaves the judgement of its status to the caller.
    pub(crate) fn status(mut self) -> Result<ExitStatus> {
        let line = self.announce();
        self.command.status().with_context(|| format!("cannot start `{line}`"))
    }

    /// Runs it and returns what it wrote to stdout. Stderr stays the user's.
    pub(crate) fn text(mut self) -> Result<String> {
        let line = self.announce();
        let output = self.command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start `{line}`"))?;
        if !output.status.success() {
            bail!("`{line}` failed: {}", output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` wrote something else than UTF-8"))
    }

    /// The answer of a program that may be missing or may not know: `None` then, without a word.
    pub(crate) fn answer(mut self) -> Option<String> {
        let output = self.command.stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then_some(text)
    }

    fn announce(&self) -> String {
        let line = self.line();
        if self.shown {
            eprintln!("$ {line}");
        }
        line
    }

    /// The call as one would type it, with the variables that are set for it.
    fn line(&self) -> String {
        let mut words = Vec::new();
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                words.push(format!("{}={}", name.display(), shorten(&quote(value))));
            }
        }
        let program = Path::new(self.command.get_program());
        // The folder of the toolchain's cargo says nothing to a reader.
        let name = if program.ends_with("cargo") { OsStr::new("cargo") } else { program.as_os_str() };
        words.push(quote(name));
        words.extend(self.command.get_args().map(quote));
        words.join(" ")
    }
}

/// Whether `cargo run` set a variable to tell this program about its own package. To a cargo below it would be one of the user's: build
/// scripts that look at such variables (`ring`'s does) would run again after every change between `cargo xtask` and plain cargo.
fn is_of_our_package(name: &str) -> bool {
    const GROUPS: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    const SINGLE: [&str; 4] = ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "CARGO_TARGET_TMPDIR", "OUT_DIR"];
    SINGLE.contains(&name) || GROUPS.iter().any(|group| name.starts_with(group))
}

/// Where a program is in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy().replace('\u{1f}', " ");
    if !word.is_empty() && !word.contains([' ', '"', '\'', '$', '*', ';', '&', '(', ')', '|']) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Lists of flags are long; what is run matters more.
fn shorten(word: &str) -> String {
    const LIMIT: usize = 60;
    if word.chars().count() <= LIMIT {
        return word.to_owned();
    }
    let start: String = word.chars().take(LIMIT).collect();
    format!("{start}…'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_shown_as_one_would_type_it() {
        let cmd = Cmd::new("tool").arg("plain").arg("two words").arg("it's").arg("").env("KEY", "value");
        assert_eq!(cmd.line(), r"KEY=value tool plain 'two words' 'it'\''s' ''");
    }

    #[test]
    fn a_cargo_below_is_not_told_about_our_package() {
        let cargo = Cmd::cargo("build");
        let removed: Vec<_> = cargo.command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        // Cargo sets them for its tests, too.
        for (name, _) in env::vars().filter(|(name, _)| is_of_our_package(name)) {
            assert!(removed.contains(&OsStr::new(&name)), "{name} is not among {removed:?}");
        }
        assert_eq!(cargo.line(), "cargo build");

        for name in ["CARGO_PKG_VERSION_MAJOR", "CARGO_MANIFEST_PATH", "CARGO_BIN_EXE_xtask", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"]
        {
            assert!(is_of_our_package(name), "{name}");
        }
        let users = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "CARGO_PROFILE_DEV_DEBUG", "CARGO_NET_OFFLINE"];
        let more = ["CARGO_REGISTRIES_X_INDEX", "CARGO_INCREMENTAL", "CARGO_TERM_COLOR", "CARGO", "RUSTUP_TOOLCHAIN", "PATH"];
        for name in users.into_iter().chain(more) {
            assert!(!is_of_our_package(name), "{name}");
        }
    }

    #[test]
    fn a_failure_names_the_program_and_the_status() {
        let error = Cmd::new("false").quiet().run().unwrap_err();
        assert_eq!(error.to_string(), "`false` failed: exit status: 1");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Cmd::new("no-such-program-anywhere").quiet().run().unwrap_err();
        assert_eq!(error.to_string(), "cannot start `no-such-program-anywhere`");
        assert_eq!(Cmd::new("no-such-program-anywhere").answer(), None);
    }
}
