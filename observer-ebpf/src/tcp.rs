//! Question: what did TCP have to send again, on which connections, and why?
//!
//! Hooks: `tp_btf/tcp_retransmit_skb` and `tp_btf/tcp_retransmit_synack`. They run in softirqs, in timers and in whatever task holds the
//! socket, so the current task says nothing: cgroup, network namespace and addresses are the socket's own.
//! Cost: nothing until something is lost; then two or three look-ups in a hash map.
//! And `iter/task_file`, when the daemon wants to know whose a flow is: once for each open file, some 100 ns.
//! Needs: BTF; kernel 5.9 for `bpf_skc_to_tcp_sock`; 5.11 for `bpf_sock_from_file`, without which flows have no process.
//! Lost without it: flows, peers and causes; the counters in `/proc/net/{snmp,netstat}` remain.
//!
//! Several events can happen at once on several CPUs, also for one flow, so counts are added atomically.

#![allow(unsafe_code, reason = "only the two attributes that make the iterator's entry point; nothing here is done unsafely")]

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use observer_common::pod;
use observer_common::tcp::{CA_LOSS, CA_RECOVERY, Cause, Flow, FlowKey, Holder, Last, NEW_SYN_RECV};

use crate::kernel::{self, Iteration, Sock, TcpSkb};
use crate::maps::{self, Cpu};

/// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, int err)`; before 6.17 without `err`, and only where it is 0.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub(crate) fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let (sock, skb) = (Sock(ctx.arg(0)), TcpSkb(ctx.arg(1)));
    let owner = Owner::of(sock);
    let failed = kernel::retransmit_has_err() && ctx.arg::<i32>(2) != 0;
    let Some(tcp) = sock.tcp() else { return 0 };
    let cause = match tcp.ca_state() {
        _ if skb.is_syn() => Cause::Syn,
        CA_LOSS => Cause::Timeout,
        CA_RECOVERY => Cause::Fast,
        _ => Cause::Probe,
    };
    let more = Flow {
        segments: segments(cause, if failed { 0 } else { skb.segments() }),
        failures: u64::from(failed),
        last: Last {
            srtt: tcp.srtt(),
            cwnd: tcp.cwnd(),
            rto: tcp.rto(),
            backoff: tcp.backoff(),
            retransmits: tcp.retransmits(),
            state: sock.state(),
        },
    };
    owner.count(sock, &more);
    0
}

/// `tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)`: the first is the listener. Only successes.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
pub(crate) fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    let (listener, request) = (Sock(ctx.arg(0)), Sock(ctx.arg(1)));
    let last = Last { state: NEW_SYN_RECV, ..pod::zeroed() };
    Owner::of(listener).count(request, &Flow { segments: segments(Cause::SynAck, 1), failures: 0, last });
    0
}

/// As many of one cause. Compared, because an index that is not known when the program is loaded may not lead into the stack.
#[inline(always)]
fn segments(cause: Cause, many: u64) -> [u64; Cause::COUNT] {
    let of = |other: Cause| if cause as usize == other as usize { many } else { 0 };
    [of(Cause::Timeout), of(Cause::Fast), of(Cause::Probe), of(Cause::Syn), of(Cause::SynAck)]
}

/// `bpf_iter_task_file(struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file)`: once for each file that a process
/// has open. aya has no macro for it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn holders(context: *mut c_void) -> i32 {
    let iteration = Iteration(context);
    let Some(task) = iteration.task() else { return 0 };
    let Some((sock, tcp)) = iteration.tcp_socket() else { return 0 };
    if tcp.total_retrans() == 0 {
        return 0;
    }
    let Some((local, peer)) = sock.addresses() else { return 0 };
    let holder = Holder {
        local,
        peer,
        ports: sock.ports(),
        netns: sock.netns(),
        tgid: task.tgid(),
        fd: iteration.fd(),
        comm: task.leader().comm(),
    };
    iteration.write(&holder);
    0
}

/// To what a socket belongs. These pointers are followed before the first branch: for each such load, on each path that leads to it, the
/// verifier searches all of BTF for a name.
struct Owner {
    cgroup: u64,
    netns: u32,
}

impl Owner {
    #[inline(always)]
    fn of(sock: Sock) -> Owner {
        Owner { cgroup: sock.cgroup(), netns: sock.netns() }
    }

    /// Counts for its flow between the ends of a socket or request.
    #[inline(always)]
    fn count(self, ends: Sock, more: &Flow) {
        let Some((local, peer)) = ends.addresses() else { return };
        // A CPU that came after the daemon had counted them has no generation, and no flow can be told.
        let generation = Cpu::get(kernel::this_cpu()).map_or(0, Cpu::generation);
        let cgroup = kernel::unified_key(self.cgroup);
        let key = FlowKey { generation, cgroup, local, peer, ports: ends.ports(), netns: self.netns };
        maps::count_flow(&key, more);
    }
}
