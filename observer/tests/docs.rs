//! The documents that are made from the source are fresh.

use std::path::Path;

#[test]
fn metrics_md_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md");
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == observer::export::metrics::markdown(),
        "docs/METRICS.md is not what the catalogue says: run `cargo xtask docs`"
    );
}
