//! What the health of the scheduler hook must say on this kernel while nothing is wrong.

use std::sync::OnceLock;

use observer::collect::bpf::offsets;
use observer::model::State;

/// `On`, or on a kernel without some of the fields exactly that, and nothing else besides.
pub(crate) fn attached() -> Result<State, String> {
    static STATE: OnceLock<Result<State, String>> = OnceLock::new();
    STATE.get_or_init(read).clone()
}

fn read() -> Result<State, String> {
    const BTF: &str = "/sys/kernel/btf/vmlinux";
    let bytes = std::fs::read(BTF).map_err(|error| format!("{BTF}: {error}"))?;
    let lacking = offsets::resolve(&bytes).map_err(|error| error.to_string())?.lacking;
    let reasons: Vec<String> = lacking.iter().map(|lacking| format!("{}: {}", lacking.missing, lacking.lost)).collect();
    Ok(if reasons.is_empty() { State::On } else { State::Degraded(reasons.join("; ")) })
}
