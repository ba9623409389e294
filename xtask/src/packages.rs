//! Installing what Debian packages, where that is possible without asking anybody.

use std::sync::Once;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{Cmd, find_program};

/// Installs packages with apt-get when this process may; otherwise the error says what to install.
/// `why` completes "needed to …".
pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    if find_program("apt-get").is_none() {
        bail!("needed to {why}, and there is no apt-get here: install what Debian calls {list}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("needed to {why}: run `sudo apt-get install {list}`, then try again");
    }
    // Lists of a fresh container are empty or old; a failure shows itself in the next call.
    static UPDATE: Once = Once::new();
    let mut updated = Ok(());
    UPDATE.call_once(|| updated = persistently(|| apt_get().arg("update").run()));
    updated?;
    let install = || apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages).run();
    persistently(install).with_context(|| format!("needed to {why}: {list}"))
}

/// Mirrors have bad moments: three tries, with a pause before the next.
pub(crate) fn persistently(download: impl Fn() -> Result<()>) -> Result<()> {
    for pause in [5, 20] {
        match download() {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("{error:#}; once more in {pause} s"),
        }
        thread::sleep(Duration::from_secs(pause));
    }
    download()
}

fn apt_get() -> Cmd {
    Cmd::new("apt-get").arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive")
}
