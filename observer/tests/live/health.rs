//! What this kernel's type information says of it: the health of the programs while nothing is wrong, and what `pcount` counts.

use std::sync::OnceLock;

use observer::collect::bpf::btf::Btf;
use observer::collect::bpf::offsets;
use observer::model::State;

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// `On`, or on a kernel without some of the fields exactly that, and nothing else besides.
pub(crate) fn attached() -> Result<State, String> {
    static STATE: OnceLock<Result<State, String>> = OnceLock::new();
    STATE.get_or_init(read).clone()
}

/// The health of the TCP family while nothing is wrong: before 5.15 a socket's cgroup is no pointer that a program could follow, before 5.11 no
/// program comes from a file to its socket.
pub(crate) fn tcp_attached() -> Result<State, String> {
    static STATE: OnceLock<Result<State, String>> = OnceLock::new();
    let read = || {
        let bytes = vmlinux()?;
        let btf = Btf::read(&bytes, ["sock_cgroup_data", "bpf_func_id"]).map_err(|error| error.to_string())?;
        let cgroup = btf.member("sock_cgroup_data.cgroup").map_err(|error| error.to_string())?;
        let mut reasons: Vec<_> =
            cgroup.err().map(|missing| format!("the kernel's BTF says: {missing}: flows have no cgroup")).into_iter().collect();
        if !tells_processes(&btf)? {
            reasons.push(
                "cannot ask for the processes of sockets: the kernel has no bpf_sock_from_file (5.11 and later): flows have no process"
                    .into(),
            );
        }
        Ok(if reasons.is_empty() { State::On } else { State::Degraded(reasons.join("; ")) })
    };
    STATE.get_or_init(read).clone()
}

fn tells_processes(btf: &Btf<'_>) -> Result<bool, String> {
    Ok(btf.enumerator("bpf_func_id", "BPF_FUNC_sock_from_file").map_err(|error| error.to_string())?.is_ok())
}

/// Whether flows have processes on this kernel.
pub(crate) fn flows_have_processes() -> Result<bool, String> {
    let bytes = vmlinux()?;
    tells_processes(&Btf::read(&bytes, ["bpf_func_id"]).map_err(|error| error.to_string())?)
}

/// Whether the kernel's `pcount` counts waits, as the histogram does, or every dispatch.
///
/// The two differ by the tasks that are preempted on their way to sleep (`set_current_state`, then `schedule`): they are not
/// `TASK_RUNNING` when they leave, so the kernel does not stamp that they wait, and their next dispatch has no wait. Since commit
/// c5895d3f06cb it does not count it either; a field renamed in the same release (5.14) tells.
pub(crate) fn pcount_is_of_waits() -> Result<bool, String> {
    static ANSWER: OnceLock<Result<bool, String>> = OnceLock::new();
    let read = || {
        let bytes = vmlinux()?;
        let btf = Btf::read(&bytes, ["task_struct"]).map_err(|error| error.to_string())?;
        Ok(btf.member("task_struct.__state").map_err(|error| error.to_string())?.is_ok())
    };
    ANSWER.get_or_init(read).clone()
}

fn vmlinux() -> Result<Vec<u8>, String> {
    std::fs::read(BTF).map_err(|error| format!("{BTF}: {error}"))
}

fn read() -> Result<State, String> {
    let bytes = vmlinux()?;
    let lacking = offsets::resolve(&bytes).map_err(|error| error.to_string())?.lacking;
    let reasons: Vec<String> = lacking.iter().map(|lacking| format!("{}: {}", lacking.missing, lacking.lost)).collect();
    Ok(if reasons.is_empty() { State::On } else { State::Degraded(reasons.join("; ")) })
}
