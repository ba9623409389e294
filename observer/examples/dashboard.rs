//! The dashboard over an invented machine, for trying keys and terminals: `cargo run --example dashboard`.

use std::sync::Arc;
use std::time::Duration;

use observer::model::Snapshot;
use observer::tui::{self, Options};

#[path = "../benches/invented/mod.rs"]
mod invented;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut was = None;
            for second in 1.. {
                let is = Arc::new(invented::sample(second, 200, 8));
                if sender.send(Arc::new(Snapshot { is: is.clone(), was: was.replace(is) })).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut options = Options::from_env(|name| std::env::var(name).ok());
        options.notes.push("invented".into());
        tui::run(options, receiver, |_| {}).await
    })
}
